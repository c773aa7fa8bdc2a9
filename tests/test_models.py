"""Networks by name: what is found, what is built, and what is refused before torch is loaded."""

import json
import warnings

import pytest
import torch
from torch import nn

from subclass_kd.config import Student
from subclass_kd.errors import UserError
from subclass_kd.models import build_model, check_model_name, timm_names
from subclass_kd.networks import Normalised, SmallConvNet, SmallResNet

MODULE = """
from torch import nn

def flat(num_classes, in_chans, hidden=5):
    return nn.Sequential(nn.Flatten(), nn.Linear(in_chans * 64, hidden), nn.Linear(hidden, num_classes))

def no_module(num_classes, in_chans):
    return lambda images: images

def fails(num_classes, in_chans):
    raise KeyError("several\\nlines")

NUMBER = 3
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Stand in a folder that holds modules of a user's."""
    (tmp_path / "users_models.py").write_text(MODULE)
    (tmp_path / "users_broken.py").write_text("def (:\n")
    (tmp_path / "users_needy.py").write_text("import there_is_no_such_module\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(model, **keys):
    check_model_name(Student(model=model, **keys), "student")


def build(model, outputs=3, channels=1, mean=0.5, std=0.25, **keys):
    return build_model(
        Student(model=model, **keys), outputs, channels, torch.full((channels,), mean), torch.full((channels,), std)
    )


def refused(call, *arguments, **keys):
    with pytest.raises(UserError) as caught:
        call(*arguments, **keys)
    assert len(str(caught.value).splitlines()) == 1
    return caught.value


def timm():
    """Import timm, whose own import warns of its own affairs."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm

        return timm


# Names


def test_timms_names_read_from_its_files_are_those_that_timm_lists():
    assert timm_names() == sorted(timm().list_models())
    assert len(timm_names()) > 1000


@pytest.mark.parametrize(
    "model", ["small:resnet", "small:convnet", "timm:mobilenetv3_small_050", "timm:resnet18.a1_in1k"]
)
def test_a_known_name_passes(model):
    check(model)


@pytest.mark.parametrize(
    ("model", "expected", "remedy"),
    [
        ("small:resnett", "small:resnet or small:convnet", 'Did you mean "small:resnet"?'),
        ("small:zzzzzzz", "small:resnet or small:convnet", ""),
        ("timm:mobilnetv3_small_050", "a model that the installed timm knows", 'Did you mean "mobilenetv3_small_050"?'),
        ("resnet18", "small:resnet, small:convnet, timm:NAME or module:callable", 'Write "timm:resnet18".'),
        ("convnet", "small:resnet, small:convnet, timm:NAME or module:callable", 'Did you mean "small:convnet"?'),
        ("timm:", "small:resnet, small:convnet, timm:NAME or module:callable", ""),
        ("", "small:resnet, small:convnet, timm:NAME or module:callable", ""),
        ("no_such_module:build", "module:callable", "Run skd in the folder that holds it, or install it."),
        ("os.no_such_part:build", "module:callable", "Run skd in the folder that holds it, or install it."),
        ("..:build", "module:callable", "Run skd in the folder that holds it, or install it."),
    ],
)
def test_an_unknown_name_is_refused_with_a_near_one(model, expected, remedy):
    error = refused(check, model)
    assert error.where == 'key "student.model"'
    assert error.expected == expected
    assert error.remedy.startswith(remedy)
    assert bool(error.remedy) == bool(remedy)


def test_only_timm_has_pretrained_weights():
    error = refused(check, "small:resnet", pretrained=True)
    assert error.where == 'key "student.pretrained"'
    check("timm:resnet18", pretrained=True)


def test_a_package_whose_import_fails_is_refused_by_name(folder):
    (folder / "users_package").mkdir()
    (folder / "users_package/__init__.py").write_text("raise RuntimeError('not today')")
    assert refused(check, "users_package.net:build").found == 'no module "users_package.net"'


@pytest.mark.parametrize("model", ["small:resnett", "timm:resnet81", "resnet18", "no_such_module:build"])
def test_an_unknown_name_is_answered_without_torch_or_timm(python, model):
    code = f"""
import json, sys
from subclass_kd.config import Student
from subclass_kd.models import check_model_name
try:
    check_model_name(Student(model={model!r}), "student")
except Exception as error:
    print(json.dumps([type(error).__name__, sorted({{"torch", "timm", "numpy"}} & set(sys.modules))]))
"""
    assert json.loads(python("-c", code).stdout) == ["UserError", []]


# Building


@pytest.mark.parametrize(("model", "kind"), [("small:resnet", SmallResNet), ("small:convnet", SmallConvNet)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_small_network_is_built_with_outputs_channels_and_options(model, kind, channels):
    built = build(model, outputs=6, channels=channels, options={"width": 4})
    assert isinstance(built, Normalised)
    assert isinstance(built.body, kind)
    assert built.body.head.in_features == 16
    assert built(torch.rand(2, channels, 28, 28)).shape == (2, 6)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_timm_model_is_built_with_outputs_channels_and_options(channels):
    timm()
    built = build("timm:test_resnet", outputs=6, channels=channels, options={"drop_rate": 0.25}).eval()
    assert built(torch.rand(2, channels, 32, 32)).shape == (2, 6)
    assert built.body.drop_rate == 0.25
    assert built.body.num_classes == 6


def test_a_callable_of_the_user_is_found_in_the_present_folder(folder):
    check("users_models:flat")
    built = build("users_models:flat", outputs=4, options={"hidden": 9})
    assert built(torch.rand(2, 1, 8, 8)).shape == (2, 4)
    assert built.body[1].out_features == 9


def test_looking_into_the_present_folder_leaves_the_path_as_it_was(folder, monkeypatch):
    import sys

    before = list(sys.path)
    check("users_models:flat")
    refused(check, "no_such_module:build")
    refused(build, "users_broken:build")
    assert sys.path == before


def test_every_network_sees_its_images_at_zero_mean_and_unit_spread(folder):
    built = build("users_models:flat", mean=0.3, std=0.2)
    images = torch.rand(2, 1, 8, 8)
    assert built(images).equal(built.body((images - 0.3) / 0.2))


def test_a_network_of_a_size_of_its_own_takes_images_of_any(folder):
    built = build("users_models:flat", size=8)  # its weights fit 64 pixels alone
    for stored in (8, 20, 64):
        assert built(torch.rand(2, 1, stored, stored)).shape == (2, 3)
    images = torch.rand(2, 1, 8, 8)
    assert built(images).equal(built.body((images - 0.5) / 0.25))


def test_weights_come_from_torchs_random_state():
    def weights(seed):
        torch.manual_seed(seed)
        return nn.utils.parameters_to_vector(build("small:convnet").parameters())

    assert weights(1).equal(weights(1))
    assert not weights(1).equal(weights(2))


@pytest.mark.parametrize(
    ("model", "options", "found"),
    [
        ("small:convnet", {"widht": 3}, "TypeError: "),
        ("small:convnet", {"width": "a"}, "TypeError: "),
        ("small:convnet", {"width": -1}, "RuntimeError: "),
        ("small:convnet", {"num_classes": 3}, "TypeError: "),
        ("small:resnet", {"drop_rate": 2}, "ValueError: "),
        ("timm:test_resnet", {"nope": 1}, "TypeError: "),
        ("timm:test_resnet", {"pretrained": True}, "TypeError: "),
        ("timm:test_resnet.no_such_tag", {}, "RuntimeError: Invalid pretrained tag"),
        ("users_models:flat", {"depth": 3}, "TypeError: "),
        ("users_models:fails", {}, "KeyError: "),
        ("users_broken:build", {}, "SyntaxError: "),
        ("users_needy:build", {}, "ModuleNotFoundError: No module named 'there_is_no_such_module'"),
        ("users_models:missing", {}, 'no callable "missing" in "users_models"'),
        ("users_models:NUMBER", {}, 'no callable "NUMBER" in "users_models"'),
        ("users_models:no_module", {}, "a function"),
    ],
)
def test_what_cannot_be_built_is_refused_with_what_was_raised(folder, model, options, found):
    timm()
    error = refused(build, model, options=options)
    assert error.where == f'model "{model}"'
    assert error.found.startswith(found)


def test_pretrained_weights_that_cannot_be_had_are_told_from_wrong_options(monkeypatch):
    def offline(*_, **__):
        raise FileNotFoundError("cannot find the requested files\nin the local cache")

    monkeypatch.setattr(timm(), "create_model", offline)
    error = refused(build, "timm:test_resnet", pretrained=True)
    assert error.found.startswith("no pretrained weights (cannot find")
    assert error.remedy == "Connect once, or set pretrained: false."


@pytest.mark.parametrize(("channels", "mean"), [(3, 0.485), (1, 0.5)])
def test_pretrained_weights_bring_their_own_normalisation_if_it_fits_the_channels(monkeypatch, channels, mean):
    class Pretrained(nn.Module):
        pretrained_cfg = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}  # noqa: RUF012

    monkeypatch.setattr(timm(), "create_model", lambda *_, **__: Pretrained())
    built = build("timm:test_resnet", channels=channels, pretrained=True)
    assert built.mean.flatten()[0].item() == pytest.approx(mean)

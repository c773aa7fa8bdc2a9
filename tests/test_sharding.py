"""A network in shares: what it is cut into, what a process holds of it, and the same weights and answers."""

import json
import subprocess
import sys

import pytest
import timm
import torch
from torch import distributed, nn
from torch.distributed.device_mesh import init_device_mesh

import sharded_team
from sharded_team import STOP, Kept, Net, answered, fit
from subclass_kd import store
from subclass_kd.arithmetic import Arithmetic, Choice
from subclass_kd.config import Student, Study, Teacher
from subclass_kd.errors import UserError
from subclass_kd.measuring import choose
from subclass_kd.networks import SmallConvNet
from subclass_kd.run_folder import check_folder
from subclass_kd.sharding import blocks, check_passes, check_weights, share_out, shares_weights


@pytest.fixture(scope="module")
def whole():
    """Weights and history of a training in one process."""
    return fit()


@pytest.fixture(scope="module")
def team(module_popen, tmp_path_factory):
    """Give the folder that two processes leave, of which each holds a share; they go on from what one has begun."""
    folder = tmp_path_factory.mktemp("team")
    with pytest.raises(InterruptedError):
        fit(Kept(folder / "from-one", left=STOP))
    command = [sys.executable, sharded_team.__file__]
    processes = [
        module_popen([*command, str(rank), str(folder)], stderr=subprocess.PIPE, text=True) for rank in range(2)
    ]
    errors = [process.communicate(timeout=100)[1] for process in processes]
    assert [process.returncode for process in processes] == [0, 0], errors
    return folder


def assert_same(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.shape == other[name].shape
        torch.testing.assert_close(tensor, other[name], rtol=0, atol=1e-9)


def losses(history):
    return [[epoch.loss, epoch.validation_log_loss, epoch.validation_f1] for epoch in history]


@pytest.mark.parametrize("name", ["whole", "went-on"])
def test_two_processes_end_as_one_and_go_on_from_where_one_was_stopped(whole, team, name):
    weights, history = whole
    path = team / f"{name}.safetensors"
    assert_same(weights, store.load(path))
    torch.testing.assert_close(losses(history), store.notes(path)["losses"], rtol=0, atol=1e-6)


def test_one_process_goes_on_from_where_two_were_stopped(whole, team):
    kept = Kept(team / "from-two")
    _, place = kept.read()
    assert (place["epoch"], place["step"]) == divmod(STOP, 4)
    weights, history = fit(kept)
    assert_same(whole[0], weights)
    torch.testing.assert_close(losses(history), losses(whole[1]), rtol=0, atol=1e-6)


def test_each_process_holds_about_half_and_computes_with_one_block_at_a_time(team):
    held = [json.loads((team / f"held-{rank}.json").read_text()) for rank in range(2)]
    sizes, statistics = [weight.numel() for weight in Net().parameters()], 6 * 2 * 7  # which each process has whole
    for kind, numbers in (("model", 1), ("optimizer", 2)):
        own = [each[kind] / 8 - (statistics if kind == "model" else 0) for each in held]
        assert sum(own) == numbers * sum(sizes)
        assert max(own) < 0.6 * sum(own)  # of 7 channels one has 4, the other 3
    block, outside = 7 * 7 * 9 + 2 * 7, 64 + 7 * 9 + 7 + 7 * 4 + 4
    assert sum(sizes) == 6 * block + outside
    assert [each["at_once"] for each in held] == [block + outside] * 2


def test_answers_are_those_of_one_process_whatever_each_has_to_do(team):
    """Of 9 batches and of one image, the processes have different numbers."""
    one, two = answered(), store.load(team / "made.safetensors")
    assert two["targets"].shape == (2, 30, 4)
    assert two["one"].shape == (1, 4)
    assert_same(one, two)


def names(network):
    cut = {id(block) for block in blocks(network)}
    return [name for name, module in network.named_modules() if id(module) in cut]


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("vit_tiny_patch16_224", [f"blocks.{number}" for number in range(12)]),
        ("resnet18", ["layer1", "layer2", "layer3", "layer3.0", "layer3.1", "layer4", "layer4.0", "layer4.1"]),
    ],
)
def test_blocks_are_what_is_repeated_and_the_parts_of_what_is_large(model, expected):
    with torch.device("meta"):
        network = timm.create_model(model, num_classes=2)
    assert names(network) == expected
    assert names(nn.Sequential(nn.Linear(2, 9), nn.ReLU(), nn.Linear(9, 2))) == ["0", "2"]
    assert names(nn.Linear(3, 2)) == []


def test_only_a_teacher_that_asks_for_it_is_shared_out_and_only_in_a_team(monkeypatch):
    assert not shares_weights(Teacher(shard=True))
    monkeypatch.setattr("subclass_kd.team._current", sharded_team.Team(1, 2, 1))
    assert shares_weights(Teacher(shard=True))
    assert not shares_weights(Teacher())
    assert not shares_weights(Student(epochs=1))


def test_what_may_fit_on_no_single_device_is_not_timed_on_one(monkeypatch):
    monkeypatch.setattr("subclass_kd.team._current", sharded_team.Team(0, 2))

    def build(role):
        assert role == "student"
        return SmallConvNet(2, width=4)

    study = Study(device="cpu", precision="float32", teacher=Teacher(shard=True, batch_size=32))
    choices = choose(study, build, (1, 8, 8))
    assert choices.teacher == choices.targets == Choice(Arithmetic("contiguous", "float32", 32), {})


def test_the_key_may_change_in_a_folder_and_be_new_to_it(tmp_path):
    content = Study().model_dump(mode="json")
    del content["teacher"]["shard"]  # as an older version wrote it
    (tmp_path / "study.json").write_text(json.dumps(content))
    check_folder(Study(teacher=Teacher(shard=True)), tmp_path)
    with pytest.raises(UserError, match=r"teacher\.epochs: 20 before, 3 now"):
        check_folder(Study(teacher=Teacher(epochs=3)), tmp_path)


class Odd(nn.Module):
    """Goes round its blocks' own calls."""

    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])

    def forward(self, x):
        return self.layers[1](self.layers[0].forward(x))


@pytest.fixture
def mesh():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,), mesh_dim_names=("data_parallel",))
    distributed.destroy_process_group()


def test_what_cannot_be_shared_out_is_refused(mesh):
    scalar, tied = nn.Linear(2, 2), nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    scalar.gain = nn.Parameter(torch.tensor(1.0))
    tied[1].weight = tied[0].weight
    for network, found in (
        (scalar, "a weight without a dimension (gain)"),
        (tied, "one weight by two names (0.weight"),
    ):
        with pytest.raises(UserError, match=r'key "teacher.shard": found true, and ') as caught:
            check_weights(network)
        assert found in caught.value.found
    with pytest.raises(UserError, match="a pass through it in shares fails: ") as caught:
        check_passes(share_out(Odd(), mesh), torch.zeros(1, 4))
    assert caught.value.remedy == "Set it to false, or choose another model."
    check_passes(share_out(Net(), mesh), torch.zeros(1, 1, 8, 8))

"""Stored targets: the teacher's answer to each view, and refusal when what they were made from has changed."""

from dataclasses import replace

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from subclass_kd import targets
from subclass_kd.augment import Views
from subclass_kd.config import Augment
from subclass_kd.errors import UserError
from subclass_kd.feeding import Feed
from subclass_kd.targets import Origin

ORIGIN = Origin(teacher="t", data="d", views="v")


@pytest.fixture
def path(tmp_path):
    """Give the path of stored targets (2, 3, 4)."""
    targets.write(tmp_path / "targets.safetensors", torch.arange(24.0).reshape(2, 3, 4), ORIGIN, "recipe")
    return tmp_path / "targets.safetensors"


def test_targets_come_back_as_they_went(path):
    assert targets.read(path, ORIGIN).equal(torch.arange(24.0).reshape(2, 3, 4))


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (["teacher"], "teacher"),
        (["data"], "data"),
        (["views"], "views"),
        (["teacher", "views"], "teacher and views"),
        (["teacher", "data", "views"], "teacher and data and views"),
    ],
)
def test_stale_targets_are_refused_with_exactly_what_changed_and_the_command_that_mends_it(path, changed, words):
    with pytest.raises(UserError) as caught:
        targets.read(path, replace(ORIGIN, **dict.fromkeys(changed, "other")))
    error = caught.value
    assert error.where == str(path)
    assert error.found == f"targets of another {words}"
    assert error.expected == f"targets made from the present {words}"
    assert f'rm "{path}"' in error.remedy


def test_damaged_targets_are_refused(path):
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(UserError, match="cannot be read"):
        targets.read(path, ORIGIN)


def test_targets_are_the_teachers_logits_for_each_view_of_each_training_image():
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 5), nn.Dropout(0.5))
    images = torch.randint(0, 256, (30, 1, 8, 8), dtype=torch.uint8)
    train = torch.tensor([1, 4, 7, 29])
    views = Views(seed=2, count=3, augment=Augment(flip=True, shift=0.25))
    fabric = Fabric(accelerator="cpu", devices=1)
    logits = targets.compute(teacher, Feed(images.numpy(), train, fabric), views, fabric)
    assert (logits.shape, logits.dtype, logits.requires_grad) == ((3, 4, 5), torch.float32, False)
    for view in range(3):
        for place, row in enumerate(train.tolist()):
            seen = views.apply(images[row : row + 1], train[place : place + 1], view).float() / 255
            with torch.no_grad():
                by_hand = teacher[1](seen.flatten(1))[0]  # no dropout: the teacher answers in evaluation mode
            torch.testing.assert_close(logits[view, place], by_hand)

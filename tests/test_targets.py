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


def teacher_and_feed(rows=50):
    torch.manual_seed(0)
    teacher = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    images = torch.randint(0, 256, (rows, 1, 8, 8), dtype=torch.uint8)
    fabric = Fabric(accelerator="cpu", devices=1)
    return teacher, Feed(images.numpy(), torch.arange(rows), fabric), fabric


class Counting(nn.Module):
    """A teacher that counts what it answers, and fails when it has answered so often."""

    def __init__(self, teacher, fails_at=None):
        super().__init__()
        self.teacher, self.fails_at, self.answered = teacher, fails_at, 0

    def forward(self, images):
        if self.answered == self.fails_at:
            raise KeyboardInterrupt
        self.answered += 1
        return self.teacher(images)


def test_an_interruption_costs_no_finished_part_and_no_digit(tmp_path, monkeypatch):
    """Ten batches of 5 images in 2 views; interrupted in the seventh batch, with a part kept after each."""
    teacher, feed, fabric = teacher_and_feed()
    views = Views(seed=2, count=2, augment=Augment())
    whole = targets.compute(teacher, feed, views, fabric, batch_size=5)
    monkeypatch.setattr(targets, "SECONDS_A_PART", -1)
    parts = targets.Parts(tmp_path / "skd-seed0.safetensors", "mark")
    with pytest.raises(KeyboardInterrupt):
        targets.compute(Counting(teacher, fails_at=13), feed, views, fabric, batch_size=5, parts=parts)
    assert sum(part.shape[1] for part in parts.read()) == 30
    other = targets.Parts(tmp_path / "skd-seed0.safetensors", "another mark")
    assert other.read() == []
    counting = Counting(teacher)
    assert targets.compute(counting, feed, views, fabric, batch_size=5, parts=parts).equal(whole)
    assert counting.answered == 8  # 4 batches that were left, 2 views each
    parts.remove()
    assert list(tmp_path.iterdir()) == []


def test_the_batch_size_changes_no_target():
    teacher, feed, fabric = teacher_and_feed()
    views = Views(seed=2, count=3, augment=Augment())
    sizes = [targets.compute(teacher, feed, views, fabric, batch_size=size) for size in (1, 7, 50, 64)]
    for other in sizes[1:]:
        torch.testing.assert_close(other, sizes[0], rtol=1e-5, atol=1e-6)


def test_each_image_is_answered_by_its_own_member_alone():
    """Members that say their own number: the answers are the numbers, in the order of the images."""
    _, feed, fabric = teacher_and_feed()

    class Saying(nn.Module):
        def __init__(self, number):
            super().__init__()
            self.number, self.seen = number, 0

        def forward(self, images):
            self.seen += len(images)
            return images.mean((1, 2, 3)).unsqueeze(1) + torch.tensor([10.0 * self.number, 0.0])

    member_of = torch.tensor([2, 0, 2, 1, 0] * 10)
    images = torch.cat(list(feed.batches([torch.arange(50)]))).float() / 255
    for batch_size in (1, 7, 64):
        members = [Saying(number) for number in range(3)]
        views = Views(seed=2, count=2, augment=Augment(flip=True, shift=0.0))  # which leave an image's mean
        logits = targets.compute(members, feed, views, fabric, batch_size, member_of=member_of)
        assert [member.seen for member in members] == [40, 20, 40]  # two views of each image, and no other image
        for view in range(2):
            torch.testing.assert_close(logits[view, :, 1], images.mean((1, 2, 3)))
            torch.testing.assert_close(logits[view, :, 0] - logits[view, :, 1], 10.0 * member_of, rtol=0, atol=1e-5)


def test_members_that_take_turns_go_on_where_they_stopped(tmp_path, monkeypatch):
    teacher, feed, fabric = teacher_and_feed()
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 5)).eval()
    member_of, views = torch.arange(50) % 2, Views(seed=2, count=2, augment=Augment())
    whole = targets.compute([teacher, other], feed, views, fabric, 5, member_of=member_of)
    monkeypatch.setattr(targets, "SECONDS_A_PART", -1)
    parts = targets.Parts(tmp_path / "skd-seed0.safetensors", "mark")
    with pytest.raises(KeyboardInterrupt):
        targets.compute(
            [teacher, Counting(other, fails_at=3)], feed, views, fabric, 5, parts=parts, member_of=member_of
        )
    assert sum(part.shape[1] for part in parts.read()) == 30  # 25 of the first member, 5 of the second
    first, second = Counting(teacher), Counting(other)
    again = targets.compute([first, second], feed, views, fabric, 5, parts=parts, member_of=member_of)
    assert again.equal(whole)
    assert (first.answered, second.answered) == (0, 8)  # 4 batches that were left, 2 views each


def test_views_without_end_have_targets_of_the_images_themselves():
    teacher, feed, fabric = teacher_and_feed()
    logits = targets.compute(teacher, feed, Views(seed=2, count=None, augment=Augment()), fabric)
    assert logits.shape == (1, 50, 5)
    assert logits.equal(targets.compute(teacher, feed, Views(seed=2, count=1, augment=Augment()), fabric))


def test_the_difference_that_bfloat16_makes_is_the_largest_of_all_probabilities():
    teacher, feed, exact = teacher_and_feed()
    coarse = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    difference = targets.largest_difference(teacher, feed, exact, coarse)
    images = torch.cat(list(feed.batches([torch.arange(50)]))).float() / 255
    with torch.no_grad():
        by_hand = teacher(images).softmax(-1)
        rounded = (images.flatten(1).bfloat16() @ teacher[1].weight.T.bfloat16() + teacher[1].bias.bfloat16()).float()
    assert difference == pytest.approx((rounded.softmax(-1) - by_hand).abs().max().item(), rel=0.2)
    assert 1e-5 < difference < 0.02
    assert targets.largest_difference(teacher, feed, exact, exact) == 0

"""The laws of the one training loop."""

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.nn import functional as F

from subclass_kd import SubclassHierarchy
from subclass_kd.augment import Views
from subclass_kd.config import Augment, Student
from subclass_kd.feeding import Feed
from subclass_kd.networks import Normalised
from subclass_kd.targets import compute
from subclass_kd.training import Lesson, Pixels, best_epoch, predict, train

HIERARCHY = SubclassHierarchy.from_parent([0, 0, 1, 1])
VIEWS = Views(seed=3, count=2, augment=Augment(flip=True, shift=0.1))
NETWORK = Student(model="small:convnet", epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.1)


@pytest.fixture
def pixels():
    """48 images of noise around four patterns: 30 for training, 18 for validation."""
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randint(0, 256, (4, 1, 8, 8), generator=generator)
    noise = torch.randint(-60, 61, (48, 1, 8, 8), generator=generator)
    images = (patterns[torch.arange(48) % 4] + noise).clamp(0, 255).to(torch.uint8)
    return Pixels(images.numpy(), torch.arange(30), torch.arange(30, 48), positive=1)


LABELS = torch.arange(48) % 4


class Recording(nn.Module):
    """A linear network that notes what it saw and in which mode."""

    def __init__(self, outputs=4):
        super().__init__()
        torch.manual_seed(0)
        self.head = nn.Linear(64, outputs)
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, images.clone()))
        return self.head(images.flatten(1))


def fabric():
    return Fabric(accelerator="cpu", devices=1)


def fit(model, lesson, pixels, network=NETWORK, seed=1, views=VIEWS):
    return train(model, lesson, pixels, views, network, fabric(), seed)


def test_training_is_that_of_a_bare_loop(pixels):
    model = Recording()
    bare = copy.deepcopy(model)
    weights, history = fit(model, Lesson(HIERARCHY, LABELS), pixels)

    optimizer = torch.optim.AdamW(bare.parameters(), lr=0.01, weight_decay=0.1)
    states, losses, step = [], [], 0
    for epoch in range(3):
        order = torch.randperm(30, generator=torch.Generator().manual_seed(1 * 1_000_003 + epoch))
        total = 0.0
        for batch in order.tensor_split(4):  # 30 images in batches of at most 8
            # 12 steps: the first at the full rate (5 % of 12 is less than one), then half a cosine over the other 11
            rate = 1.0 if step == 0 else 0.5 * (1 + math.cos(math.pi * (step - 1) / 11))
            optimizer.param_groups[0]["lr"] = 0.01 * rate
            images = VIEWS.apply(torch.from_numpy(pixels.images)[batch], batch, epoch % 2).float() / 255
            loss = F.cross_entropy(bare.head(images.flatten(1)), LABELS[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(batch)
            step += 1
        losses.append(total / 30)
        states.append(copy.deepcopy(bare.state_dict()))
    assert [epoch.loss for epoch in history] == pytest.approx(losses, rel=1e-5)
    kept = best_epoch(history, Lesson(HIERARCHY, LABELS)).epoch
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, states[kept - 1][name], rtol=1e-5, atol=1e-6)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others(pixels):
    runs = [fit(Recording(), Lesson(HIERARCHY, LABELS), pixels, seed=seed)[0] for seed in (1, 1, 2)]
    assert runs[0]["head.weight"].equal(runs[1]["head.weight"])
    assert not runs[0]["head.weight"].equal(runs[2]["head.weight"])


def test_every_lesson_sees_the_same_images_in_the_same_order_and_as_many_steps(pixels):
    teacher_logits = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(5))
    lessons = [
        (Recording(4), Lesson(HIERARCHY, LABELS)),
        (Recording(4), Lesson(HIERARCHY, LABELS, teacher_logits, temperature=2.0, alpha=0.5)),
        (Recording(2), Lesson(SubclassHierarchy.identity(["a", "b"]), LABELS // 2)),
    ]
    seen = []
    for model, lesson in lessons:
        fit(model, lesson, pixels)
        seen.append([images for training, images in model.seen if training])
    assert [len(images) for images in seen] == [12, 12, 12]
    assert all(first.equal(second) for other in seen[1:] for first, second in zip(seen[0], other, strict=True))


def test_training_is_in_training_mode_after_every_validation(pixels):
    model = Recording()
    fit(model, Lesson(HIERARCHY, LABELS), pixels)
    # Four batches in training mode, then the validation split in one batch, three times.
    assert [training for training, _ in model.seen] == [True, True, True, True, False] * 3


def test_no_batch_is_a_lone_image(pixels):
    model = Recording()
    few = Pixels(pixels.images, torch.arange(17), pixels.validation, positive=1)
    fit(model, Lesson(HIERARCHY, LABELS), few)
    assert {len(images) for training, images in model.seen if training} == {5, 6}


def test_one_hot_targets_alone_at_temperature_one_are_cross_entropy(pixels):
    one_hot = F.one_hot(LABELS[:30], 4).float() * 1000
    with_targets = Lesson(HIERARCHY, LABELS, one_hot.expand(2, -1, -1), temperature=1.0, alpha=1.0)
    taught, history = fit(Recording(), with_targets, pixels)
    alone, _ = fit(Recording(), Lesson(HIERARCHY, LABELS), pixels)
    torch.testing.assert_close(taught["head.weight"], alone["head.weight"], rtol=1e-4, atol=1e-6)
    assert history[0].soft == pytest.approx(history[0].hard, rel=1e-5)


@pytest.mark.parametrize("alpha", [0.0, 0.4, 1.0])
def test_stored_targets_mixed_with_the_labels_teach_what_the_two_losses_teach(pixels, alpha):
    """A teacher asked online is not mixed; one that says the same of every view must train the same student."""
    says = torch.randn(4, generator=torch.Generator().manual_seed(5))
    online = Lesson(HIERARCHY, LABELS, lambda images: says.expand(len(images), -1), alpha=alpha)
    stored = replace(online, targets=says.expand(2, 30, 4))
    (mixed, one), (both, two) = (fit(Recording(), lesson, pixels) for lesson in (stored, online))
    torch.testing.assert_close(mixed["head.weight"], both["head.weight"], rtol=1e-4, atol=1e-6)
    for key in ("loss", "hard", "soft", "validation_log_loss"):
        pairs = zip(one, two, strict=True)
        assert all(getattr(a, key) == pytest.approx(getattr(b, key), rel=1e-4, abs=1e-6) for a, b in pairs), key


def test_a_lesson_with_the_identity_hierarchy_is_the_same_for_either_hard_target(pixels):
    identity = SubclassHierarchy.identity(["a", "b"])
    targets = torch.randn(2, 30, 2, generator=torch.Generator().manual_seed(5))
    runs = [
        fit(Recording(2), Lesson(identity, LABELS // 2, targets, 2.0, 0.5, hard_target), pixels)[0]["head.weight"]
        for hard_target in ("subclass", "class")
    ]
    torch.testing.assert_close(*runs, rtol=1e-5, atol=1e-6)


def test_without_the_part_within_classes_only_what_targets_say_of_classes_is_learned(pixels):
    """Targets of the same classes, their subclasses turned about: the same student at 0, another at 1."""
    targets = torch.randn(2, 30, 4, generator=torch.Generator().manual_seed(5))
    turned = targets[..., [1, 0, 3, 2]]  # subclasses 0, 1 are of one class, 2, 3 of the other
    for weight, alike in ((0.0, True), (1.0, False)):
        lessons = [Lesson(HIERARCHY, LABELS, own, 2.0, 0.8, within_class=weight) for own in (targets, turned)]
        first, second = (fit(Recording(), lesson, pixels)[0]["head.weight"] for lesson in lessons)
        assert torch.allclose(first, second, rtol=1e-4, atol=1e-6) == alike


def test_a_network_of_a_size_of_its_own_gets_every_view_resized_in_training_validation_and_targets(pixels):
    def model(size):
        return Normalised(nn.Flatten(), torch.zeros(1), torch.ones(1), size)

    class Small(Recording):
        def forward(self, images):
            self.seen.append((self.training, images.clone()))
            return self.head(images.flatten(1).repeat(1, 4))

    plain, small = Recording(), Small()
    fit(Normalised(plain, torch.zeros(1), torch.ones(1)), Lesson(HIERARCHY, LABELS), pixels)
    fit(Normalised(small, torch.zeros(1), torch.ones(1), 4), Lesson(HIERARCHY, LABELS), pixels)
    assert [training for training, _ in plain.seen] == [training for training, _ in small.seen]
    for (_, whole), (_, resized) in zip(plain.seen, small.seen, strict=True):
        assert resized.equal(F.interpolate(whole, (4, 4), mode="bilinear", antialias=True))
    of_whole, of_resized = (compute(model(size), feed_of(pixels), VIEWS, fabric()) for size in (None, 4))
    by_hand = F.interpolate(of_whole.view(-1, 1, 8, 8), (4, 4), mode="bilinear", antialias=True)
    assert of_resized.equal(by_hand.view(2, 30, 16))


def feed_of(pixels):
    return Feed(pixels.images, pixels.train, fabric())


def test_targets_are_taken_by_view_and_image(pixels):
    """Targets equal to what the student says already make the soft part zero, on the right view only."""
    model = Recording()
    own = compute(model, Feed(pixels.images, pixels.train, fabric()), VIEWS, fabric())
    still = Student(model="small:convnet", epochs=2, batch_size=8, learning_rate=1e-12)
    right = fit(copy.deepcopy(model), Lesson(HIERARCHY, LABELS, own, alpha=1.0), pixels, still)[1]
    wrong = fit(copy.deepcopy(model), Lesson(HIERARCHY, LABELS, own.flip(0), alpha=1.0), pixels, still)[1]
    assert [epoch.soft for epoch in right] == pytest.approx([0, 0], abs=1e-6)
    assert min(epoch.soft for epoch in wrong) > 1e-4


@pytest.mark.parametrize("select_by", ["f1", "log_loss"])
def test_the_kept_weights_are_those_of_the_best_epoch_by_validation(pixels, select_by):
    model = Recording()
    lesson = Lesson(HIERARCHY, LABELS, select_by=select_by)
    network = Student(model="small:convnet", epochs=6, batch_size=8, learning_rate=0.5)
    weights, history = fit(model, lesson, pixels, network)
    best = best_epoch(history, lesson)
    values = [epoch.validation_f1 if select_by == "f1" else -epoch.validation_log_loss for epoch in history]
    assert values[best.epoch - 1] == max(values)

    model.load_state_dict(weights)
    logits = predict(model, Feed(pixels.images, pixels.validation, fabric()), fabric())
    assert F.cross_entropy(logits, LABELS[30:]).item() == pytest.approx(best.validation_log_loss, rel=1e-5)
    decided = HIERARCHY.class_log_probs(logits).argmax(-1)
    truly = LABELS[30:] // 2
    hits = (decided * truly).sum().item()
    assert 2 * hits / (decided.sum() + truly.sum()).item() == pytest.approx(best.validation_f1)


def test_dropout_follows_the_seed(pixels):
    def run(seed):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 4))
        torch.manual_seed(99)  # whatever state the process is in
        return fit(model, Lesson(HIERARCHY, LABELS), pixels, seed=seed)[0]["2.weight"]

    assert run(1).equal(run(1))


def test_weights_of_one_change_nothing_and_weights_of_zero_leave_only_decay(pixels):
    plain, _ = fit(Recording(), Lesson(HIERARCHY, LABELS), pixels)
    ones, _ = fit(Recording(), Lesson(HIERARCHY, LABELS, weights=torch.ones(48)), pixels)
    assert all(plain[name].equal(ones[name]) for name in plain)
    still = NETWORK.model_copy(update={"weight_decay": 0.0})
    start = {name: tensor.clone() for name, tensor in Recording().state_dict().items()}
    zeros, _ = fit(Recording(), Lesson(HIERARCHY, LABELS, weights=torch.zeros(48)), pixels, network=still)
    assert all(start[name].equal(zeros[name]) for name in start)


def test_a_weight_multiplies_the_loss_of_its_sample(pixels):
    """One step of gradient descent: AdamW's first step is the sign of the gradient, so hold it against one by hand."""
    weights = torch.arange(48.0) / 20
    once = NETWORK.model_copy(update={"epochs": 1, "batch_size": 30, "weight_decay": 0.0})
    model = Recording()
    bare = copy.deepcopy(model)
    fitted, _ = fit(model, Lesson(HIERARCHY, LABELS, weights=weights), pixels, network=once)
    logits = bare.head(torch.from_numpy(pixels.images)[:30].float().flatten(1) / 255)
    (F.cross_entropy(logits, LABELS[:30], reduction="none") * weights[:30]).mean().backward()
    moved = fitted["head.weight"] - bare.head.weight
    gradient = bare.head.weight.grad
    clear = gradient.abs() > 1e-6
    assert clear.float().mean() > 0.9
    assert moved[clear].sign().equal(-gradient[clear].sign())


def test_a_curriculum_shows_easy_images_first_in_as_many_steps(pixels):
    """Images whose label is even are easy; three epochs of two stages: one of the easy, two of all."""
    stage = np.where(LABELS.numpy() % 2 == 0, 0, 1)
    plain, staged = Recording(), Recording()
    fit(plain, Lesson(HIERARCHY, LABELS), pixels, views=Views(0, 1, Augment(flip=False, shift=0.0)))
    fit(staged, Lesson(HIERARCHY, LABELS, stage=stage), pixels, views=Views(0, 1, Augment(flip=False, shift=0.0)))
    sizes = [[len(images) for training, images in model.seen if training] for model in (plain, staged)]
    assert sizes[0] == sizes[1] == [8, 8, 7, 7] * 3
    of_image = {image.numpy().tobytes(): row for row, image in enumerate(torch.from_numpy(pixels.images).float() / 255)}
    shown = torch.cat([images for training, images in staged.seen if training])
    rows = [of_image[image.numpy().tobytes()] for image in shown]
    easy = {row for row in range(30) if row % 2 == 0}
    assert set(rows[:30]) == easy
    assert sorted(rows[:15]) == sorted(rows[15:30]) == sorted(easy)
    for epoch in (1, 2):
        assert sorted(rows[30 * epoch : 30 * (epoch + 1)]) == list(range(30))


def test_a_member_without_an_image_of_the_first_stage_begins_with_the_first_that_it_has(pixels):
    """What may happen to a member of a cross-fitted teacher: its images are of stages 1 and 2 alone."""
    stage = np.where(LABELS.numpy() % 2 == 0, 1, 2)
    fit(late := Recording(), Lesson(HIERARCHY, LABELS, stage=stage), pixels)
    fit(early := Recording(), Lesson(HIERARCHY, LABELS, stage=stage - 1), pixels)
    assert all(one.equal(other) for (_, one), (_, other) in zip(late.seen, early.seen, strict=True))

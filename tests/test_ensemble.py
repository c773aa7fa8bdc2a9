"""Networks trained as one are what they would be alone, but for the last digits."""

import copy

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from subclass_kd import SubclassHierarchy
from subclass_kd.augment import Views
from subclass_kd.config import Augment, Student
from subclass_kd.ensemble import Ensemble, may_be_stacked
from subclass_kd.networks import Normalised, SmallConvNet, SmallResNet
from subclass_kd.training import Lesson, Pixels, train, train_together

HIERARCHY = SubclassHierarchy.from_parent([0, 0, 1, 1])
LABELS = torch.arange(60) % 4
MEAN, SPREAD = torch.tensor([0.4]), torch.tensor([0.3])
# Measured: 1e-6 after 20 steps; what a step amplifies, the next one does again.
TOLERANCE = {"rtol": 1e-3, "atol": 1e-4}


def members(kind, count=3):
    models = []
    for seed in range(count):
        torch.manual_seed(seed)
        models.append(Normalised(kind(4, 1, width=4), MEAN, SPREAD))
    return models


@pytest.fixture
def pixels():
    images = torch.randint(0, 256, (60, 1, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return Pixels(images.numpy(), torch.arange(40), torch.arange(40, 60), positive=1)


@pytest.mark.parametrize("kind", [SmallConvNet, SmallResNet])
@pytest.mark.parametrize("training", [True, False])
def test_an_ensemble_answers_as_its_members_do(kind, training):
    models = members(kind)
    images = torch.rand(8, 1, 16, 16)
    together = Ensemble([copy.deepcopy(model) for model in models]).train(training)(images)
    alone = torch.stack([model.train(training)(images) for model in models])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", [SmallConvNet, SmallResNet])
def test_arms_trained_as_one_end_where_each_ends_alone(pixels, kind):
    targets = torch.randn(2, 40, 4, generator=torch.Generator().manual_seed(5))
    lessons = [
        Lesson(HIERARCHY, LABELS),
        Lesson(HIERARCHY, LABELS, targets, temperature=2.0, alpha=0.9),
        Lesson(HIERARCHY, LABELS.flip(0), targets.flip(1), alpha=0.5, hard_target="class"),
    ]
    network = Student(epochs=3, batch_size=10, learning_rate=0.003)
    views, fabric = Views(3, 2, Augment()), Fabric(accelerator="cpu", devices=1)
    told = []
    together = train_together(
        members(kind), lessons, pixels, views, network, fabric, 1, lambda number, epoch: told.append((number, epoch))
    )
    assert [number for number, _ in told] == [0, 1, 2] * 3
    for number, lesson in enumerate(lessons):
        alone, history = train(members(kind)[number], lesson, pixels, views, network, fabric, 1)
        weights, history_together = together[number]
        assert [epoch.loss for epoch in history_together] == pytest.approx([epoch.loss for epoch in history], rel=1e-3)
        assert [epoch for which, epoch in told if which == number] == history_together
        assert set(weights) == set(alone)
        for name in alone:
            torch.testing.assert_close(weights[name], alone[name], **TOLERANCE)


def test_weights_keep_their_names_and_dtypes():
    models = members(SmallConvNet)
    ensemble = Ensemble(models)
    for number, model in enumerate(models):
        state, own = ensemble.member_state(number), model.state_dict()
        assert set(state) == set(own)
        assert all(state[name].equal(own[name]) and state[name].dtype == own[name].dtype for name in own)


def test_networks_that_draw_random_numbers_are_not_stacked():
    import timm

    assert may_be_stacked(SmallResNet(4))
    assert not may_be_stacked(SmallResNet(4, drop_rate=0.1))
    assert not may_be_stacked(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)))
    assert not may_be_stacked(timm.create_model("mobilenetv3_small_050", drop_path_rate=0.1))


def test_networks_with_a_state_beyond_weights_and_buffers_by_one_name_are_not_stacked():
    kept, passing = nn.Linear(2, 2), nn.Linear(2, 2)
    passing.register_buffer("table", torch.zeros(2), persistent=False)
    tied = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    assert [may_be_stacked(model) for model in (kept, passing, tied)] == [True, False, False]


def test_frozen_weights_stay_frozen():
    models = [nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2)) for _ in range(2)]
    for model in models:
        model[0].requires_grad_(False)
    ensemble = Ensemble(models)
    ensemble(torch.rand(4, 3)).sum().backward()
    assert [parameter.grad is not None for parameter in ensemble.parameters()] == [False, False, True, True]

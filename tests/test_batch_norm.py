"""Batch normalisation over a global batch: in a team of one it is torch's own, to the last digits."""

from contextlib import nullcontext

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import distributed, nn
from torch.nn import functional as F

from subclass_kd.batch_norm import OverGlobalBatch


@pytest.fixture(scope="module", autouse=True)
def team_of_one():
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def passed(layer, images, mode):
    """Give outputs, gradients and statistics of one training step of a layer."""
    images = images.clone().requires_grad_()
    with mode:
        outputs = layer(images)
    (outputs * torch.linspace(-1, 1, outputs.numel()).view(outputs.shape)).sum().backward()
    gradients = [parameter.grad for parameter in layer.parameters()]
    return [outputs, images.grad, *gradients, *layer.buffers()]


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: nn.BatchNorm2d(5), (6, 5, 7, 7)),
        (lambda: nn.BatchNorm2d(5, affine=False, momentum=0.3), (6, 5, 7, 7)),
        (lambda: nn.BatchNorm1d(5, eps=0.1), (6, 5)),
        (lambda: BatchNormAct2d(5), (6, 5, 4, 4)),  # timm's, with its activation
        (lambda: nn.BatchNorm2d(5, track_running_stats=False), (6, 5, 4, 4)),
    ],
)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_outputs_gradients_and_statistics_are_torchs(make, shape, layout):
    images = 3 + 2 * torch.randn(shape, generator=torch.Generator().manual_seed(0))
    images = images.to(memory_format=layout) if images.ndim == 4 else images
    own, torchs = passed(make(), images, OverGlobalBatch()), passed(make(), images, nullcontext())
    for mine, theirs in zip(own, torchs, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=2e-5)


def test_what_is_evaluated_keeps_its_own_statistics():
    layer = nn.BatchNorm2d(3).eval()
    images = torch.randn(4, 3, 5, 5)
    with OverGlobalBatch():
        assert layer(images).equal(F.batch_norm(images, torch.zeros(3), torch.ones(3)))
    assert layer.running_mean.equal(torch.zeros(3))

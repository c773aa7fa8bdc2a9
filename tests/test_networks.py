"""The small networks: shapes, the costs that their descriptions tell, and normalisation inside."""

import re

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torchvision.transforms import v2

from subclass_kd.ensemble import Ensemble
from subclass_kd.networks import Normalised, SmallConvNet, SmallResNet
from subclass_kd.work import network_cost

BOTH = pytest.mark.parametrize("network", [SmallResNet, SmallConvNet])


@BOTH
def test_parameters_and_multiply_adds_are_the_documented_ones(network):
    text = " ".join(network.__doc__.split())
    parameters = re.search(r"it has ([\d,]+) parameters", text)[1]
    cost = {size: network_cost(network(num_classes=10), (1, size, size)) for size in (28, 64, 96)}
    assert {row["parameters"] for row in cost.values()} == {int(parameters.replace(",", ""))}
    documented = re.search(r"takes ([\d.]+) million .* 28x28 pixels, ([\d.]+) million .* 64x64, ([\d.]+) million", text)
    for figure, row in zip(documented.groups(), cost.values(), strict=True):
        assert float(figure) == pytest.approx(row["multiply_adds"] / 1e6, abs=0.0051)


def test_costs_of_the_student_are_those_worked_out_by_hand():
    """Three 3x3 convolutions 1-8-16-32 with batch normalisation, and a linear head; maps of 14, 7, 4 pixels."""
    cost = network_cost(SmallConvNet(num_classes=10), (1, 28, 28))
    assert cost["parameters"] == 9 * (1 * 8 + 8 * 16 + 16 * 32) + 2 * (8 + 16 + 32) + 32 * 10 + 10
    assert cost["multiply_adds"] == 9 * (8 * 14**2 + 8 * 16 * 7**2 + 16 * 32 * 4**2) + 320


def test_costs_of_the_teacher_are_those_worked_out_by_hand():
    """Stem 1-24 to 14 pixels; stages 24, 48, 96 of one block to 14, 7, 4 pixels, two with a 1x1 shortcut."""
    cost = network_cost(SmallResNet(num_classes=10), (1, 28, 28))
    blocks = [(24, 24, 14, 0), (24, 48, 7, 1), (48, 96, 4, 1)]
    weights = 9 * 24 + sum(9 * i * o + 9 * o * o + s * i * o for i, o, _, s in blocks)
    norms = 2 * 24 + sum((2 + s) * 2 * o for _, o, _, s in blocks)
    assert cost["parameters"] == weights + norms + 96 * 10 + 10
    adds = 9 * 24 * 14**2 + sum((9 * i * o + 9 * o * o + s * i * o) * size**2 for i, o, size, s in blocks)
    assert cost["multiply_adds"] == adds + 960


@BOTH
@pytest.mark.parametrize("size", [8, 28, 33, 64, 96])
@pytest.mark.parametrize("channels", [1, 3])
def test_logits_have_one_row_an_image_at_every_size_and_channel_count(network, size, channels):
    model = network(num_classes=7, in_chans=channels)
    logits = model(torch.rand(3, channels, size, size))
    assert logits.shape == (3, 7)
    assert logits.isfinite().all()


@BOTH
@pytest.mark.parametrize("width", [2, 4, 6, 12])
def test_a_narrow_network_trains_channels_last_without_harm(network, width):
    """A 1x1 convolution with a stride corrupts the heap here in oneDNN 3.13: the process would die."""
    torch.manual_seed(0)
    model = network(num_classes=3, width=width)
    images = torch.rand(32, 1, 28, 28)
    gradients = []
    for layout in (torch.contiguous_format, torch.channels_last):
        model = model.to(memory_format=layout)
        for _ in range(8):
            model.zero_grad()
            model(images.contiguous(memory_format=layout)).square().sum().backward()
        gradients.append(torch.cat([parameter.grad.flatten() for parameter in model.parameters()]))
    first, second = gradients
    assert (first - second).norm() < 0.01 * first.norm()


def test_options_change_what_they_name():
    assert len(SmallResNet(10, blocks=3).stages) == 9
    assert SmallResNet(10, width=8).head.in_features == SmallConvNet(10, width=8).head.in_features == 32
    assert SmallResNet(10, drop_rate=0.3).dropout.p == 0.3


def test_normalisation_is_inside_and_travels_with_the_weights():
    mean, std = torch.tensor([0.25, 0.5]), torch.tensor([0.5, 2.0])
    model = Normalised(torch.nn.Identity(), mean, std)
    found = model(torch.ones(1, 2, 1, 1)).flatten()
    assert found.tolist() == [(1 - 0.25) / 0.5, (1 - 0.5) / 2]
    other = Normalised(torch.nn.Identity(), torch.zeros(2), torch.ones(2))
    other.load_state_dict(model.state_dict())
    assert other(torch.ones(1, 2, 1, 1)).flatten().equal(found)
    assert not list(model.parameters())


def sized(size, body=None):
    return Normalised(body or torch.nn.Identity(), torch.zeros(3), torch.ones(3), size)


@pytest.mark.parametrize(("stored", "size"), [((64, 64), 24), ((28, 28), 8), ((48, 64), 32), ((28, 28), 96)])
def test_an_image_is_resized_as_pillow_and_torchvision_do(stored, size):
    images = torch.rand(4, 3, *stored, generator=torch.Generator().manual_seed(0))
    found = sized(size)(images)
    assert found.shape == (4, 3, size, size)
    for image, other in zip(images.flatten(0, 1), found.flatten(0, 1), strict=True):
        by_pillow = Image.fromarray(image.numpy()).resize((size, size), Image.Resampling.BILINEAR)  # in floats
        np.testing.assert_allclose(other.numpy(), np.asarray(by_pillow), atol=1e-5)
    by_torchvision = v2.functional.resize(images, [size, size], v2.InterpolationMode.BILINEAR, antialias=True)
    torch.testing.assert_close(found, by_torchvision, rtol=0, atol=1e-6)


def test_mixed_precision_on_a_cpu_resizes_in_float32():
    images = torch.rand(2, 1, 16, 16, generator=torch.Generator().manual_seed(0))
    network = Normalised(torch.nn.Identity(), torch.zeros(1), torch.ones(1), 24)
    found = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed").setup_module(network)(images)
    # Fabric rounds the pixels to bfloat16, 1 / 256 at most; interpolation averages
    assert torch.allclose(found, network(images), rtol=0, atol=1 / 256)
    assert not torch.equal(found, network(images))


def test_a_quarter_of_the_size_is_the_triangle_filter_worked_out_by_hand():
    """Every output pixel is a mean of 8 input pixels each way, weighed by their distance; cut off at the border."""
    images = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    rows = np.zeros((8, 32))
    for place in range(8):
        centre = 4 * (place + 0.5)
        weights = np.maximum(0, 1 - np.abs(np.arange(32) + 0.5 - centre) / 4)
        rows[place] = weights / weights.sum()
    found = Normalised(torch.nn.Identity(), torch.zeros(1), torch.ones(1), 8)(images)
    np.testing.assert_allclose(found[0, 0].numpy(), rows @ images[0, 0].numpy() @ rows.T, atol=1e-6)


def test_the_size_that_images_have_is_no_change_to_the_digit():
    images = torch.rand(2, 3, 24, 24)
    assert sized(24)(images).equal(sized(None)(images))
    assert sized(24)(images).equal(images)


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_an_image_is_resized_alike_in_any_batch_and_layout(layout):
    images = torch.rand(9, 3, 40, 40)
    whole = sized(16)(images.contiguous(memory_format=layout))
    assert whole.is_contiguous(memory_format=layout)
    assert whole.equal(sized(16)(images))
    assert whole[4:5].equal(sized(16)(images[4:5]))


def test_a_network_costs_what_its_own_size_costs():
    for body in (SmallConvNet(num_classes=10), SmallResNet(num_classes=10)):
        own = Normalised(body, torch.zeros(1), torch.ones(1), 28)
        assert network_cost(own, (1, 64, 64)) == network_cost(body, (1, 28, 28))


def test_networks_of_a_size_of_their_own_learn_as_one():
    models = [Normalised(SmallConvNet(4, width=4), torch.zeros(1), torch.ones(1), 16).eval() for _ in range(2)]
    images = torch.rand(5, 1, 40, 40)
    together = Ensemble(models).eval()(images)
    torch.testing.assert_close(together, torch.stack([model(images) for model in models]), rtol=1e-4, atol=1e-5)

"""The mean of several networks' probabilities, against numpy by hand."""

import numpy as np
import pytest
import torch
from torch import nn

from subclass_kd.build import network_cost
from subclass_kd.committee import Committee
from subclass_kd.networks import SmallConvNet


class Saying(nn.Module):
    """A network that says what it was given to say."""

    def __init__(self, logits):
        super().__init__()
        self.register_buffer("logits", logits)

    def forward(self, images):
        return self.logits


def logits_of(members, scale, samples=20, outputs=5):
    generator = torch.Generator().manual_seed(members)
    return scale * torch.randn(members, samples, outputs, generator=generator)


@pytest.mark.parametrize("scale", [0.1, 3.0, 30.0])
@pytest.mark.parametrize("members", [1, 2, 7])
def test_it_gives_the_logarithm_of_the_mean_of_probabilities(members, scale):
    logits = logits_of(members, scale)
    found = Committee([Saying(own) for own in logits])(torch.zeros(20, 1))
    exact = logits.double().numpy()
    shares = np.exp(exact - exact.max(-1, keepdims=True))
    mean = (shares / shares.sum(-1, keepdims=True)).mean(0)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(found.double().numpy(), np.log(mean), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found.double().exp().sum(-1).numpy(), 1, atol=1e-5)


def test_members_that_are_sure_of_different_answers_leave_it_between_them():
    sure = 1e4 * torch.eye(2)
    found = Committee([Saying(sure[:1]), Saying(sure[1:])])(torch.zeros(1, 1))
    torch.testing.assert_close(found.exp(), torch.tensor([[0.5, 0.5]]))
    three = Committee([Saying(sure[:1])] * 3)(torch.zeros(1, 1))
    assert three.tolist() == [[pytest.approx(0, abs=1e-6), pytest.approx(-1e4)]]  # finite, as losses ask


def test_the_order_of_the_members_does_not_matter():
    logits = logits_of(4, 3.0)
    found, turned = (Committee([Saying(own) for own in each])(torch.zeros(20, 1)) for each in (logits, logits.flip(0)))
    torch.testing.assert_close(found, turned)


def test_half_precision_is_left_before_the_mean():
    logits = logits_of(3, 3.0).bfloat16()
    found = Committee([Saying(own) for own in logits])(torch.zeros(20, 1))
    exact = Committee([Saying(own.float()) for own in logits])(torch.zeros(20, 1))
    assert found.dtype == torch.float32
    assert found.equal(exact)


def test_it_costs_what_its_members_do():
    one = network_cost(SmallConvNet(4), (1, 16, 16))
    three = network_cost(Committee([SmallConvNet(4) for _ in range(3)]), (1, 16, 16))
    assert three == {name: 3 * count for name, count in one.items()}

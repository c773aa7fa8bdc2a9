"""Several networks that answer as one: the mean of their probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class Committee(nn.Module):
    r"""Networks whose probabilities are averaged; it gives the mean's logarithm, which serves as logits.

    .. math:: \log \bar p_k = \log \frac{1}{M} \sum_{m=1}^{M} \mathrm{softmax}(z_m)_k

    A mean of probabilities, not of logits, so that one member's certainty cannot outweigh the others' doubt without
    limit. As a teacher: Hinton, Vinyals, Dean 2015, section 1, https://arxiv.org/abs/1503.02531; how well such
    probabilities are calibrated: Lakshminarayanan, Pritzel, Blundell 2017, https://arxiv.org/abs/1612.01474

    Args:
        members: M >= 1 networks, each of which gives logits (B, K) for images (B, C, H, W).

    >>> sure, unsure = nn.Linear(1, 2), nn.Linear(1, 2)
    >>> for network, odds in ((sure, [0.9, 0.1]), (unsure, [0.5, 0.5])):
    ...     _ = network.load_state_dict({"weight": torch.zeros(2, 1), "bias": torch.tensor(odds).log()})
    >>> Committee([sure, unsure])(torch.zeros(1, 1)).exp()
    tensor([[0.7000, 0.3000]], grad_fn=<ExpBackward0>)
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, images: Tensor) -> Tensor:
        """Give log-probabilities (B, K), float32 or wider, for images (B, C, H, W)."""
        each = torch.stack([member(images).float().log_softmax(-1) for member in self.members])  # (M, B, K)
        return each.logsumexp(0) - math.log(len(self.members))

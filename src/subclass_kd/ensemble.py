"""Several networks of one form, trained as one: what a small network leaves idle of a GPU, others use."""

from __future__ import annotations

import copy
from collections.abc import Sequence

from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap


class Ensemble(nn.Module):
    """M networks of one form whose weights are stacked, so that one kernel computes for all (torch.func.vmap).

    Each learns as if alone: the sum of their losses has for each the gradient of its own, and AdamW treats every weight
    by itself. Only the order of additions inside a kernel differs, and with it the last digits.

    Args:
        members: M networks on one device, of one form; their weights are copied.

    >>> import torch
    >>> two = [nn.Linear(3, 2), nn.Linear(3, 2)]
    >>> images = torch.rand(5, 3)
    >>> torch.allclose(Ensemble(two)(images), torch.stack([two[0](images), two[1](images)]))
    True
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        weights, buffers = stack_module_state(list(members))  # name -> (M, ...) each
        self._names = {name: name.replace(".", "/") for name in (*weights, *buffers)}  # a dot may not stand in a name
        for name, stacked in weights.items():
            self.register_parameter(self._names[name], nn.Parameter(stacked.detach().clone(), stacked.requires_grad))
        for name, stacked in buffers.items():
            self.register_buffer(self._names[name], stacked.clone())
        # In a tuple, so that it is no part of this module: it lends its form alone.
        self._form = (copy.deepcopy(members[0]).to("meta"),)

    def forward(self, images: Tensor) -> Tensor:
        """Give the logits (M, B, K) of all for images (B, C, H, W)."""
        form = self._form[0].train(self.training)
        states = {name: getattr(self, own) for name, own in self._names.items()}  # (M, ...) each

        def member(state: dict[str, Tensor]) -> Tensor:
            logits: Tensor = functional_call(form, state, (images,))
            return logits

        logits: Tensor = vmap(member)(states)
        return logits

    def member_state(self, number: int) -> dict[str, Tensor]:
        """Give one network's weights and buffers by name, as its own ``state_dict()`` would."""
        return {name: getattr(self, own)[number] for name, own in self._names.items()}


def may_be_stacked(model: nn.Module) -> bool:
    """Say whether networks like this learn in an ensemble as they do alone.

    Not if they draw random numbers, nor if their state is other than their weights and buffers, each by one name.

    >>> may_be_stacked(nn.Linear(3, 2)), may_be_stacked(nn.Sequential(nn.Linear(3, 2), nn.Dropout(0.1)))
    (True, False)
    """
    # Dropout's p, and drop_prob of the stochastic depth of timm's networks.
    shares = [getattr(layer, name, 0) for layer in model.modules() for name in ("p", "drop_prob", "drop_rate")]
    names = {name for name, _ in model.named_parameters()} | {name for name, _ in model.named_buffers()}
    return names == set(model.state_dict()) and not any(
        isinstance(share, float | int) and share > 0 for share in shares
    )

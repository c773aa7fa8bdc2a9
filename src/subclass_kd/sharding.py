"""A network whose weights, gradients and optimiser state lie in shares on the devices of a team (PyTorch's FSDP2).

All that knows of such a network is here; elsewhere it is a network like any. Rajbhandari et al. 2020,
https://arxiv.org/abs/1910.02054; Zhao et al. 2023, https://arxiv.org/abs/2304.11277. torch's own modules for it are
imported only where there is one: they take a second.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

from torch import OutOfMemoryError, Tensor, nn

from subclass_kd.config import Network, Teacher
from subclass_kd.errors import UserError
from subclass_kd.team import current

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

LARGE = 0.1  # of a network's weights: a block that has more is looked into for smaller ones
LISTS = (nn.ModuleList, nn.ModuleDict)  # which have no forward pass of their own


def shares_weights(network: Network) -> bool:
    """Say whether this process's team holds a network of the study in shares: a teacher that asks for it."""
    return isinstance(network, Teacher) and network.shard and current().count > 1


def is_shared_out(model: nn.Module) -> bool:
    """Say whether a network's weights lie in shares."""
    return any(_is_share(weight) for weight in model.parameters())


def blocks(network: nn.Module) -> list[nn.Module]:
    """Give the parts of a network that are whole on a device one after another, inner ones first.

    A block is one of several modules of a class that have one parent: a transformer's layers, a residual network's
    blocks. A single layer is one only in a list or a sequence, which call it; elsewhere its weights may be used without
    it. Inside a block of more than a tenth of all weights, a stage say, there may be smaller ones. What is in no block
    is whole together.

    Args:
        network: not yet shared out.

    >>> layers = [nn.TransformerEncoderLayer(8, 2, batch_first=True) for _ in range(12)]
    >>> network = nn.Sequential(nn.Conv2d(3, 8, 16), nn.Flatten(2), nn.Sequential(*layers), nn.Linear(8, 2))
    >>> blocks(network) == layers
    True
    """
    most = LARGE * _size(network)

    def inside(module: nn.Module) -> Iterator[nn.Module]:
        kinds = Counter(type(child) for child in module.children())
        calls = isinstance(module, (nn.Sequential, *LISTS))
        for child in module.children():
            several = kinds[type(child)] > 1 and (calls or any(True for _ in child.children()))
            is_block = several and _size(child) > 0 and not isinstance(child, LISTS)
            if not is_block or _size(child) > most:
                yield from inside(child)
            if is_block:
                yield child

    return list(dict.fromkeys(inside(network)))


def share_out(network: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Leave each process its share of every weight, in place.

    A block's weights are gathered for its forward pass and again for its backward pass, and freed after each; its
    gradients are averaged, of which a process keeps its share. Outside of a pass no device has more than its share.

    Args:
        network: the same on every process; on the CPU, so that a GPU gets one block after another.
        mesh: the team's devices, in a dimension "data_parallel".

    Returns:
        The network.
    """
    from torch.distributed.fsdp import fully_shard

    for weight in network.parameters():
        weight.data = weight.data.contiguous()  # channels last cannot be cut; images may still lie so
    for part in (*blocks(network), network):
        fully_shard(part, mesh=mesh["data_parallel"], reshard_after_forward=True)
    return network


def check_weights(network: nn.Module) -> None:
    """Refuse, before it is shared out, a network with weights that cannot be.

    Raises:
        UserError: a weight without a dimension, or one of two names, whose two gradients would go two ways.
    """
    names: dict[Tensor, str] = {}
    for name, weight in network.named_parameters(remove_duplicate=False):
        if weight.ndim == 0:
            raise _refusal(f"a weight without a dimension ({name})")
        if names.setdefault(weight, name) != name:
            raise _refusal(f"one weight by two names ({names[weight]}, {name})")


def check_passes(network: nn.Module, blank: Tensor) -> None:
    """Refuse a network that cannot be passed through block by block, by a pass forward and backward.

    Some go round a block's own call, to its weights or its ``forward``, or change its output in place.

    Args:
        network: shared out; left in evaluation mode.
        blank: (1, C, H, W).

    Raises:
        UserError: it cannot.
    """
    from torch.distributed import DistError

    try:
        network.eval()(blank).sum().backward()
    except RuntimeError as error:
        if isinstance(error, DistError | OutOfMemoryError) or "gloo/transport" in str(error):
            raise
        reason = str(error).partition("\n")[0]
        raise _refusal(f"a pass through it in shares fails: {reason}") from error
    network.zero_grad(set_to_none=True)


def _refusal(reason: str) -> UserError:
    expected = "a network whose weights can be shared out block by block"
    return UserError(
        'key "teacher.shard"', f"true, and {reason}", expected, "Set it to false, or choose another model."
    )


def gathered(tensors: Mapping[str, Tensor], keep: bool) -> dict[str, Tensor]:
    """Copy tensors to the CPU, those in shares as a whole; one at a time is whole on a device.

    Args:
        tensors: where any is in shares, every process of the team calls this with its own.
        keep: whether this process wants the copies; it takes part without.

    Returns:
        The copies by name; nothing without ``keep``.
    """
    copies = {}
    for name, tensor in tensors.items():
        whole = tensor.detach()
        if _is_share(whole):
            whole = whole.full_tensor()  # type: ignore[attr-defined]
        if keep:
            copies[name] = whole.cpu().clone()
    return copies


def like(whole: Tensor, own: Tensor) -> Tensor:
    """Give what a process has of a whole tensor where its own lies in shares: its share; else the tensor.

    Args:
        whole: the same on every process.
        own: of the same shape.
    """
    if not _is_share(own):
        return whole
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(whole, own.device_mesh, own.placements)  # type: ignore[attr-defined]


@contextmanager
def in_step(model: nn.Module, passes: int, blank: Tensor) -> Iterator[None]:
    """Let all processes pass images through a network in shares equally often, as its blocks are gathered by all.

    Args:
        model: nothing happens where its weights are whole.
        passes: that this process does inside the block; where another does more, it passes a blank image after them.
        blank: (1, C, H, W), such a one.
    """
    more = current().largest(passes) - passes if is_shared_out(model) else 0
    yield
    for _ in range(more):
        model(blank)


def _is_share(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # torch's DTensor, without importing it


def _size(module: nn.Module) -> int:
    return sum(weight.numel() for weight in module.parameters())

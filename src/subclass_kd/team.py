"""The processes that do one training together, one a device; a run on one device is a team of one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Team:
    """Which of several processes this one is, and what they do in step.

    What is shared out lies in one order on every device: the first share is the first process's, and so on, so that
    the shares, one after another, are what one device would have had.

    Args:
        rank: of this process, from 0; 0 leads: it plans, prints and writes.
        count: how many processes there are on all nodes.
        local_rank: of this process on its node, which is the number of its device.
        nodes: how many machines.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    nodes: int = 1

    @property
    def leads(self) -> bool:
        """Whether this process plans, prints and writes."""
        return self.rank == 0

    @property
    def devices(self) -> int:
        """How many processes there are on each node."""
        return self.count // self.nodes

    def share(self, count: int) -> slice:
        """Give this process's share of ``count`` things; the first processes have one more where it does not divide.

        >>> [Team(rank, 3).share(8) for rank in range(3)]
        [slice(0, 3, None), slice(3, 6, None), slice(6, 8, None)]
        """
        each, more = divmod(count, self.count)
        start = self.rank * each + min(self.rank, more)
        return slice(start, start + each + (self.rank < more))

    def total(self, tensor: Tensor) -> Tensor:
        """Add the tensors of all processes up, in place."""
        if self.count > 1:
            from torch import distributed

            distributed.all_reduce(tensor)
        return tensor

    def largest(self, number: int) -> int:
        """Give the largest number that any process has: what they agree on."""
        if self.count == 1:
            return number
        import torch
        from torch import distributed

        numbers = torch.tensor(number)
        distributed.all_reduce(numbers, distributed.ReduceOp.MAX)
        return int(numbers)

    def whole(self, own: Tensor, at: slice | Tensor, count: int, leading: tuple[int, ...] = ()) -> Tensor:
        """Put the processes' parts together, each in its place, on every process.

        Args:
            own: this process's part, (*leading, m, K); of any shape where m is 0.
            at: its place among all: from where to where, or (m,) int64.
            count: of all.
            leading: as said.

        Returns:
            (*leading, count, K).
        """
        if self.count == 1 and isinstance(at, slice):
            return own
        there = own.numel() > 0
        parts = own.new_zeros(*leading, count, self.largest(own.shape[-1] if there else 0))
        if there:
            parts[..., at, :] = own
        return self.total(parts)


ALONE = Team()
_current = ALONE


def current() -> Team:
    """Give the team that this process is in: :data:`ALONE` but inside :func:`subclass_kd.together.joined`."""
    return _current


def enter(team: Team) -> None:
    """Say which team this process is in from now on."""
    global _current
    _current = team

"""How far a training is, on disk: what a run that was stopped in the middle of it goes on from."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from subclass_kd import store
from subclass_kd.sharding import gathered, like
from subclass_kd.team import Team

SECONDS = 30.0  # of work that an interruption may cost


class Checkpoint:
    """Weights, optimiser, random state and place of one training, kept every half minute, whole or not at all.

    A run goes on from the very step: the order of images follows from seed and epoch, so that what is kept is all that
    the next step depends on. Nothing of it is left when the training is done.

    Args:
        path: of the file that the training makes; the checkpoint lies hidden beside it.
        recipe: fingerprint of what decides every digit; a checkpoint of another recipe is not used.
        seconds: between two of them.
        writes: whether this process writes it; in a team the first one does.
    """

    def __init__(self, path: Path, recipe: str, seconds: float = SECONDS, *, writes: bool = True) -> None:
        self._writes = writes
        self._path = path.with_name(f".{path.stem}.checkpoint")
        self._recipe, self._seconds, self._written = recipe, seconds, time.monotonic()

    @property
    def due(self) -> bool:
        """Whether to write one now: time has passed, or this process is asked to stop."""
        return _stopping.asked > 0 or time.monotonic() - self._written >= self._seconds

    def due_in(self, team: Team) -> bool:
        """Whether to write one now in every process of a team: it is due in any; all are to stop if any is."""
        call = team.largest(_stopping.asked or int(self.due))  # a signal's number, 1 for time, or 0
        if call > 1:
            _stopping.asked = call
        return call > 0

    def read(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Give the tensors and the place that were written last; None where there are none that fit."""
        if not store.is_valid(self._path, self._recipe):
            return None
        return store.load(self._path), store.notes(self._path)

    def write(self, tensors: Mapping[str, Tensor], place: Mapping[str, Any]) -> None:
        """Keep tensors and a place, in JSON's values; where this process is asked to stop, it stops here.

        Raises:
            SystemExit: this process is asked to stop.
        """
        # Copies: tied weights are one tensor under two names, which safetensors refuses.
        own = gathered(tensors, self._writes)
        if self._writes:
            store.save(self._path, own, self._recipe, dict(place))
        self._written = time.monotonic()
        end_if_asked()

    def remove(self) -> None:
        """Remove it, when the training is on record."""
        if self._writes:
            self._path.unlink(missing_ok=True)


class _Stopping:
    """By which signal this process was asked to stop, 0 for none, and whether it may first write a checkpoint."""

    def __init__(self) -> None:
        self.asked, self.waits = 0, False


_stopping = _Stopping()


def stop_at_a_checkpoint(*signals: int) -> None:
    """Let SIGTERM, or these, end this process: at once, or in a training after its step and a checkpoint."""

    def stop(number: int, frame: FrameType | None) -> None:
        _stopping.asked = number
        if not _stopping.waits:
            end_if_asked()

    for number in signals or (signal.SIGTERM,):
        signal.signal(number, stop)


def end_if_asked() -> None:
    """End this process where it was asked to stop, and what it was in took the exception for its own."""
    if _stopping.asked:
        raise SystemExit(128 + _stopping.asked)


@contextmanager
def no_stop_but_at_a_checkpoint() -> Iterator[None]:
    """Let a request to stop wait for :meth:`Checkpoint.write`, or for the end of the block.

    Raises:
        SystemExit: at the end of the block, where this process was asked to stop, whatever went wrong in it.
    """
    _stopping.waits = True
    try:
        yield
    finally:
        _stopping.waits = False
        end_if_asked()


def state_of(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> dict[str, Tensor]:
    """Give all tensors that the next step depends on, by names that :func:`restore` knows; they may be in shares.

    Args:
        model: as it trains.
        optimizer: of its parameters, in their order, after a step or more.
        device: whose random state counts beside the CPU's.
    """
    tensors = {f"model.{name}": tensor.detach() for name, tensor in model.state_dict().items()}
    for number, parameter in enumerate(model.parameters()):
        for name, tensor in optimizer.state[parameter].items():
            tensors[f"optimizer.{number}.{name}"] = tensor
    tensors["random"] = torch.get_rng_state()
    if device.type == "cuda":
        tensors["random.cuda"] = torch.cuda.get_rng_state(device)
    return tensors


def restore(
    tensors: Mapping[str, Tensor], model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> None:
    """Put back what :func:`state_of` gave."""
    state = model.state_dict()
    model.load_state_dict({name: like(tensor, state[name]) for name, tensor in part(tensors, "model.").items()})
    for number, parameter in enumerate(model.parameters()):
        own = part(tensors, f"optimizer.{number}.")
        # In the parameter's own layout, which files do not keep and a fused optimiser relies on.
        optimizer.state[parameter] = {
            name: torch.empty_like(parameter).copy_(like(tensor, parameter))
            if tensor.shape == parameter.shape
            else tensor.to(device)
            for name, tensor in own.items()
        }
    torch.set_rng_state(tensors["random"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"], device)


def part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Give the tensors whose names begin so, without the beginning.

    >>> part({"a.b": torch.zeros(1), "c": torch.zeros(2)}, "a.")
    {'b': tensor([0.])}
    """
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}

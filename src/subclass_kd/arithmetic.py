"""How networks compute: layout, number format, images and networks at once. It needs no torch to be told of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    import torch

Layout = Literal["channels_last", "contiguous"]
Precision = Literal["float32", "bfloat16"]


@dataclass(frozen=True)
class Arithmetic:
    """Layout and number format of a network's training or prediction, images at once, and networks trained as one."""

    layout: Layout
    precision: Precision
    batch_size: int
    members: int = 1

    @property
    def memory_format(self) -> torch.memory_format:
        """As torch calls the layout."""
        import torch

        return torch.channels_last if self.layout == "channels_last" else torch.contiguous_format

    def __str__(self) -> str:
        """As in ``channels_last float32``."""
        return f"{self.layout} {self.precision}" + (f", {self.members} students as one" if self.members > 1 else "")


@dataclass(frozen=True)
class Choice:
    """What was chosen, and of what: least milliseconds by candidate; empty if there was but one.

    Milliseconds are those of a step and network in training, of an image for targets.
    """

    chosen: Arithmetic
    milliseconds: Mapping[str, float]


@dataclass(frozen=True)
class Choices:
    """How teacher and student train, how the teacher makes targets, and on which device that was measured."""

    device: str
    teacher: Choice
    student: Choice
    targets: Choice

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; :func:`from_dict` reads them."""
        return asdict(self)

    def describe(self, timings: bool = True) -> dict[str, str]:
        """Say what was chosen for "teacher", "student" and "targets", and against what.

        >>> fast, slow = (Arithmetic(layout, "float32", 64) for layout in get_args(Layout))
        >>> choice = Choice(fast, {str(fast): 6.04, str(slow): 8.96})
        >>> Choices("cpu", choice, choice, Choice(slow, {})).describe()["teacher"]
        'channels_last float32 (6.0 ms a step; contiguous float32 9.0)'
        """
        said = {}
        for name in ("teacher", "student", "targets"):
            choice: Choice = getattr(self, name)
            said[name] = str(choice.chosen)
            if name == "targets":
                said[name] += f", {choice.chosen.batch_size} images at once"
            mine = choice.milliseconds.get(str(choice.chosen)) if timings else None
            if mine is not None:
                digits, of = (2, "an image") if name == "targets" else (1, "a step")
                rest = {which: ms for which, ms in choice.milliseconds.items() if which != str(choice.chosen)}
                others = ", ".join(f"{which} {ms:.{digits}f}" for which, ms in rest.items())
                said[name] += f" ({mine:.{digits}f} ms {of}; {others})"
        return said


def from_dict(plain: Any) -> Choices:
    """Read what :meth:`Choices.as_dict` gave.

    Raises:
        ValueError, TypeError, KeyError: it is something else.
    """
    choices = {name: choice_from(plain[name]) for name in ("teacher", "student", "targets")}
    return Choices(str(plain["device"]), **choices)


def choice_from(plain: Any) -> Choice:
    """Read one choice; errors as of :func:`from_dict`."""
    chosen = Arithmetic(**plain["chosen"])
    if chosen.layout not in get_args(Layout) or chosen.precision not in get_args(Precision):
        raise ValueError(f"found {chosen}, but a known layout and precision were expected")
    return Choice(chosen, dict(plain["milliseconds"]))

"""A teacher's logits for every view of every training image: computed once, refused when stale."""

from __future__ import annotations

import copy
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from subclass_kd import store
from subclass_kd.augment import Views
from subclass_kd.errors import UserError
from subclass_kd.feeding import Feed
from subclass_kd.sharding import in_step
from subclass_kd.team import ALONE, Team
from subclass_kd.training import as_input

if TYPE_CHECKING:
    from lightning_fabric import Fabric

MOST_DIFFERENCE = 0.02  # between probabilities in bfloat16 and in float32, for targets to be made in bfloat16
SECONDS_A_PART = 30.0  # of work that an interruption may cost


@dataclass(frozen=True)
class Origin:
    """Fingerprints of what targets were made from; a change of any makes them stale."""

    teacher: str
    data: str
    views: str


class Parts:
    """What is done of targets that take long: files in a folder beside the one to come, each of some images.

    Args:
        path: of the targets to come.
        mark: fingerprint of what decides them to the last digit; parts of another mark are not used.
        rank: of the process whose share of the images they are.
    """

    def __init__(self, path: Path, mark: str, rank: int = 0) -> None:
        share = f".{rank}" if rank else ""
        self._folder, self._mark = path.with_name(f".{path.stem}{share}.parts"), mark

    def read(self) -> list[Tensor]:
        """Read the parts (V, m, K) that join on from the first image."""
        parts: list[Tensor] = []
        while store.is_valid(path := self._path(parts), self._mark):
            parts.append(store.load(path)["logits"])
        return parts

    def write(self, before: list[Tensor], part: Tensor) -> None:
        """Keep a part (V, m, K) that joins on to those before it."""
        store.save(self._path(before), {"logits": part}, self._mark, {})

    def remove(self) -> None:
        """Remove them all, when the whole is written."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _path(self, before: list[Tensor]) -> Path:
        return self._folder / f"{sum(part.shape[1] for part in before)}.safetensors"


@torch.no_grad()
def compute(
    teacher: nn.Module | Sequence[nn.Module],
    feed: Feed,
    views: Views,
    fabric: Fabric,
    batch_size: int = 256,
    layout: torch.memory_format = torch.contiguous_format,
    parts: Parts | None = None,
    member_of: Tensor | None = None,
    team: Team = ALONE,
) -> Tensor:
    """Give the teacher's logits for each view of each training image, in one pass over the images.

    Args:
        teacher: gives logits (B, K) for (B, C, H, W) in [0, 1]; on the fabric's device. Or several such, which answer
            as ``member_of`` says.
        feed: of the n training images.
        views: V views; of views without end, the first alone.
        fabric: device and precision.
        batch_size: images at once; the same images are together whatever was done before.
        layout: in which images lie in memory.
        parts: keeps what is done every half minute, and gives what was kept before.
        member_of: (n,) int64, which of several teachers answers for each image.
        team: whose processes each answer for their share of the batches, which are those of one device.

    Returns:
        (V, n, K) float32 on the CPU, in the order of the feed.
    """
    teachers = [teacher] if isinstance(teacher, nn.Module) else list(teacher)
    if member_of is None:
        member_of = torch.zeros(len(feed), dtype=torch.int64)
    numbers = range(views.count or 1)
    draws = [views.draws(feed.rows, view) for view in numbers]  # (n, D) each, or None
    done = parts.read() if parts else []
    start = sum(part.shape[1] for part in done)
    shares = [(member_of == number).nonzero().flatten() for number in range(len(teachers))]  # positions of each one's
    batches = [torch.split(share, batch_size) for share in shares]
    # Of each teacher's batches, so that all processes ask one teacher at a time: each may have a share of its weights.
    mine = [[batch for batch in each[team.share(len(each))] if len(batch)] for each in batches]
    begins = accumulate((len(batch) for each in mine for batch in each), initial=0)
    fresh: list[Tensor] = []  # (V, B, K) each, on the device
    saved = time.monotonic()
    for own, each in zip(teachers, mine, strict=True):
        left = [batch for batch, begin in zip(each, begins, strict=False) if begin >= start]
        with in_step(own.eval(), len(left) * len(draws), as_input(feed.blank(), layout)):
            for batch, images in zip(left, feed.batches(left), strict=True):
                seen = (
                    images if drawn is None else views.render(images, fabric.to_device(drawn[batch])) for drawn in draws
                )  # (B, C, H, W) each
                fresh.append(torch.stack([own(as_input(view, layout)).float() for view in seen]))
                if parts and time.monotonic() - saved > SECONDS_A_PART:
                    part = torch.cat(fresh, dim=1).cpu()
                    parts.write(done, part)
                    done, fresh, saved = [*done, part], [], time.monotonic()
    made = [*done, *(logits.cpu() for logits in fresh)]
    logits = torch.cat(made, dim=1) if made else torch.empty(0)  # (V, m, K)
    if team.count == len(teachers) == 1:
        return logits
    at = torch.cat([torch.empty(0, dtype=torch.int64), *(batch for each in mine for batch in each)])
    return team.whole(logits, at, len(feed), (len(draws),))


@torch.no_grad()
def largest_difference(
    teacher: nn.Module,
    feed: Feed,
    exact: Fabric,
    coarse: Fabric,
    layout: torch.memory_format = torch.contiguous_format,
) -> float:
    """Give the largest difference between a teacher's probabilities in two precisions, on up to 256 images.

    Args:
        teacher: gives logits (B, K).
        feed: of n images; those that are looked at lie evenly among them.
        exact: the precision to compare with.
        coarse: the other.
        layout: in which images lie in memory.

    Returns:
        0 to 1.
    """
    some = feed.part(torch.linspace(0, len(feed) - 1, min(256, len(feed))).long())
    images = as_input(next(iter(some.batches([torch.arange(len(some))]))), layout)  # (B, C, H, W)
    modules = [fabric.setup_module(copy.deepcopy(teacher)).eval() for fabric in (exact, coarse)]
    probabilities = [module(images).float().softmax(-1) for module in modules]  # (B, K) each
    return float((probabilities[0] - probabilities[1]).abs().max())


def write(path: Path, logits: Tensor, origin: Origin, recipe: str, notes: dict[str, object] | None = None) -> None:
    """Store targets (V, n, K) with their origin, and notes on how they were computed."""
    store.save(path, {"logits": logits}, recipe, {**asdict(origin), **(notes or {})})


def read(path: Path, origin: Origin) -> Tensor:
    """Read targets (V, n, K), or refuse them if they were made from something else.

    Raises:
        UserError: teacher, data or views changed since; the message names which, and how to make them anew.
    """
    made_from = store.notes(path)
    changed = [part for part, mark in asdict(origin).items() if made_from.get(part) != mark]
    if changed:
        expected = f"targets made from the present {' and '.join(changed)}"
        remedy = f'Remove the file and run the study again: rm "{path}"'
        raise UserError(str(path), f"targets of another {' and '.join(changed)}", expected, remedy)
    logits: Tensor = store.load(path)["logits"]
    return logits

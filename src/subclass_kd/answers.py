"""What a trained teacher answers: its targets, stored or online, and the one network that its members make."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from subclass_kd import store, targets
from subclass_kd.bench import Bench, Outputs
from subclass_kd.committee import Committee
from subclass_kd.device import teacher_fabric
from subclass_kd.feeding import Feed
from subclass_kd.files import fingerprint
from subclass_kd.plan import Job, marks_of, teacher_paths
from subclass_kd.team import current

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Weights = dict[str, Tensor]


def outputs_of(teacher: str) -> Outputs:
    """Say what a teacher of this name predicts."""
    return "class" if teacher == "class" else "subclass"


def trained_teacher(bench: Bench, name: str) -> nn.Module:
    """Give a trained teacher on the CPU: its one network, or the mean of its members."""
    return _as_one(_networks(bench, name, _load(bench, name)))


def make_targets(bench: Bench, job: Job) -> None:
    """Store a teacher's logits for every view of every image that it teaches with."""
    weights = _load(bench, job.name)
    origin = _origin(bench, weights)
    answering, fabric, notes = _answering(bench, job.name, weights)
    del weights  # whole, which a process that holds a share need not keep
    arithmetic = bench.choices.targets.chosen
    team = current()
    share = [[team.rank, team.count, len(answering)]] if team.count > 1 else []
    decides = [job.recipe, asdict(origin), asdict(arithmetic), notes, *share]
    parts = targets.Parts(bench.out / job.path, fingerprint(*decides), team.rank)
    logits = targets.compute(
        answering,
        Feed(bench.pixels.images, bench.taught.rows, fabric),
        bench.views,
        fabric,
        arithmetic.batch_size,
        arithmetic.memory_format,
        parts,
        bench.part_of,
        team,
    )
    if team.leads:
        made_from = marks_of(bench.study, bench.out, job)
        targets.write(bench.out / job.path, logits, origin, job.recipe, notes | {"made_from": made_from})
    parts.remove()


def taught_by(bench: Bench, name: str, path: Path, collapse: bool) -> Tensor | Callable[[Tensor], Tensor]:
    """Give a teacher's stored targets (V, n, K), or what answers online; collapsed, with C columns."""
    weights, hierarchy = _load(bench, name), bench.samples.hierarchy
    if bench.views.count is not None:
        logits = targets.read(path, _origin(bench, weights))
        return hierarchy.class_log_probs(logits) if collapse else logits
    [teacher], _, _ = _answering(bench, name, weights)  # not cross-fitted: that a study of online views is refused

    @torch.no_grad()
    def answer(images: Tensor) -> Tensor:
        logits = teacher(images).float()
        return hierarchy.class_log_probs(logits) if collapse else logits

    return answer


def _load(bench: Bench, name: str) -> list[Weights]:
    """Read the weights of each of a teacher's networks."""
    return [store.load(bench.out / path) for path in teacher_paths(bench.study, name, bench.seed)]


def _networks(bench: Bench, name: str, weights: list[Weights]) -> list[nn.Module]:
    """Build a teacher's networks, trained."""
    model = bench.model(bench.study.teacher, "teacher", outputs_of(name))
    networks = [model, *(copy.deepcopy(model) for _ in weights[1:])]
    for network, own in zip(networks, weights, strict=True):
        network.load_state_dict(own)
    return networks


def _as_one(networks: list[nn.Module]) -> nn.Module:
    return networks[0] if len(networks) == 1 else Committee(networks)


def _origin(bench: Bench, weights: list[Weights]) -> targets.Origin:
    """Say what targets that a teacher of these weights makes now would come from."""
    each = [store.weights_fingerprint(own) for own in weights]
    teacher = each[0] if len(each) == 1 else fingerprint(*each)
    if bench.part_of is not None:
        teacher = fingerprint(teacher, bench.part_of.numpy().tobytes())
    return targets.Origin(teacher, bench.samples.fingerprint, fingerprint(bench.views.describe()))


def _answering(bench: Bench, name: str, weights: list[Weights]) -> tuple[list[nn.Module], Fabric, dict[str, Any]]:
    """Give what answers for a teacher, on its device: one network, or each member if cross-fitted.

    It computes in bfloat16 only if that is accurate enough; the notes say how accurate it is.
    """
    networks = _networks(bench, name, weights)
    if bench.part_of is None:
        networks = [_as_one(networks)]
    arithmetic = bench.choices.targets.chosen
    notes: dict[str, Any] = {"precision": "float32"}
    for network in networks:
        network.to(memory_format=arithmetic.memory_format)
    exact = teacher_fabric(bench.study)
    if arithmetic.precision == "float32":
        return [exact.setup_module(network).eval() for network in networks], exact, notes
    coarse = teacher_fabric(bench.study, "bfloat16")
    feed = Feed(bench.pixels.images, bench.taught.rows, exact)
    layout = arithmetic.memory_format
    difference = max(targets.largest_difference(network, feed, exact, coarse, layout) for network in networks)
    accurate = difference <= targets.MOST_DIFFERENCE
    notes = {"precision": "bfloat16" if accurate else "float32", "bfloat16_difference": difference}
    fabric = coarse if accurate else exact
    return [fabric.setup_module(network).eval() for network in networks], fabric, notes

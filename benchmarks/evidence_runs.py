"""Runs that more seeds may be added to, here or elsewhere, that share teachers, and whose arms may be compared."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.evidence_blocks import (
    Block,
    decided_by,
    log_odds_of,
    pack,
    pooled,
    read_blocks,
    recipe_of,
    without_paths,
    write_blocks,
)
from benchmarks.machine import describe_machine
from subclass_kd import store
from subclass_kd.comparison import compare, holm, paired_difference
from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.files import write_json
from subclass_kd.jackknife import auroc_left_out, describe_variance
from subclass_kd.results import class_log_probs, describe
from subclass_kd.study import run_study


@dataclass(frozen=True, eq=False)
class Finished:
    """A study with the seeds that it has by now: those of its run folder, and those kept from elsewhere."""

    study: Study
    out: Path
    blocks: list[Block]

    @cached_property
    def results(self) -> dict[str, Any]:
        """What results.json says, of the seeds of all blocks; paths are left out."""
        return pooled(self.blocks, self.labels, self.positive, self.groups)

    @cached_property
    def samples(self) -> list[Samples]:
        """The samples of each fold, or of the one split."""
        return [load_samples(each, verify=False) for _, each in _splits(self.study, self.out)]

    @property
    def positive(self) -> int:
        """The class that F1 speaks of."""
        return self.samples[0].positive

    @cached_property
    def labels(self) -> NDArray[np.int64]:
        """(N,) true classes of the test images, fold after fold."""
        return np.concatenate([samples.class_labels[samples.test] for samples in self.samples])

    @cached_property
    def folds(self) -> NDArray[np.int64]:
        """(N,) the fold that tests each of these images; 0 where there is one split."""
        return np.repeat(np.arange(len(self.samples)), [len(samples.test) for samples in self.samples])

    @cached_property
    def groups(self) -> NDArray[np.int64] | None:
        """(N,) patients of the test images, if any are known."""
        known = [samples.groups[samples.test] for samples in self.samples if samples.groups is not None]
        return np.concatenate(known) if known else None

    def log_odds(self, arm: str) -> NDArray[np.float64]:
        """Give log-odds (S, N) of the second class for each seed and test image."""
        return log_odds_of(self.blocks, arm)

    def decided(self, arm: str) -> NDArray[np.int64]:
        """Give the class (S, N) that each seed's student says of each test image."""
        return decided_by(self.blocks, arm)


def run(study: Study, out: Path, lenders: Sequence[Path] = (), kept: Path | None = None) -> Finished:
    """Run a study or what is left of it, and note its wall time beside the folder.

    Seeds that were made and that the study lacks stay: a run may be given more seeds, never fewer. A job's recipe names
    its own seed only, so nothing is trained again; results.json is made anew.

    Args:
        study: what to run.
        out: the run folder.
        lenders: runs whose networks and targets are offered; the run takes those that its own recipe would make.
        kept: a file that keeps what was made in this folder and in others: its seeds are not made again.

    Raises:
        ValueError: what is kept is of another recipe or of other images.
    """
    here = made_in(study, out)
    elsewhere = [block for block in read_blocks(kept, study) if not here.issuperset(block["seeds"])]
    taken = {seed for block in elsewhere for seed in block["seeds"]}
    own = study.model_copy(update={"seeds": sorted({*study.seeds, *here} - taken)})
    done = Finished(study.model_copy(update={"seeds": sorted({*own.seeds, *taken})}), out, elsewhere)
    mark = describe(done.samples)["fingerprint"]
    if other := [block["seeds"] for block in elsewhere if block["results"]["data"]["fingerprint"] != mark]:
        raise ValueError(f"{kept}: its seeds {other} are of other images or splits than those of --chest or --fashion.")
    if own.seeds:
        block = _made(own, out, lenders, done.samples)
        meanwhile = [each for each in read_blocks(kept, study) if not {*own.seeds}.issuperset(each["seeds"])]
        if twice := sorted({seed for each in meanwhile for seed in each["seeds"]}.intersection(own.seeds)):
            raise ValueError(f"{kept} got seeds {twice} while they were made in {out}. Give the command again.")
        blocks = sorted([*meanwhile, block], key=lambda each: each["seeds"])
        seeds = sorted(seed for each in blocks for seed in each["seeds"])
        done = Finished(study.model_copy(update={"seeds": seeds}), out, blocks)
    if kept:
        write_blocks(kept, done.blocks)
    return done


def made_in(study: Study, out: Path) -> set[int]:
    """Give the seeds of which a run folder has what every network says, in every fold."""
    found: list[set[int]] = []
    for folder, _ in _splits(study, out):
        for arm in study.arms:
            files = (folder / "predictions/students").glob(f"{arm}-seed*.safetensors")
            found.append({int(path.stem.rpartition("-seed")[2]) for path in files})
    return set.intersection(*found)


def known_seeds(study: Study, out: Path, kept: Path) -> set[int]:
    """Give the seeds that a study has by now, here or elsewhere."""
    return made_in(study, out).union(*(block["seeds"] for block in read_blocks(kept, study)))


def _made(study: Study, out: Path, lenders: Sequence[Path], samples: Sequence[Samples]) -> Block:
    """Run what is left of a study in its folder, and give the block of its seeds."""
    folders = [folder for folder, _ in _splits(study, out)]
    for folder, each in {out: study, **dict(_splits(study, out))}.items():
        _settle(each, folder)
    for lender in lenders:
        for folder in folders:
            lend(lender / folder.relative_to(out), folder)
    started = time.perf_counter()
    done = False
    try:
        results = run_study(study, out)
        done = True
    finally:
        _note(out, time.perf_counter() - started, study, done)
    return {
        "seeds": study.seeds,
        "recipe": recipe_of(study),
        "machine": describe_machine(),
        "sittings": sittings(out),
        "results": {**results, "study": without_paths(results["study"])},
        "log_odds": {
            arm: pack(
                np.stack(
                    [
                        np.concatenate(
                            [_log_odds(folder, arm, seed, of) for folder, of in zip(folders, samples, strict=True)]
                        )
                        for seed in study.seeds
                    ]
                )
            )
            for arm in study.arms
        },
    }


def _log_odds(folder: Path, arm: str, seed: int, samples: Samples) -> NDArray[np.float64]:
    """Read by how much (N,) a seed's student holds the second of two classes for likelier, in nats."""
    logits = store.load(folder / f"predictions/students/{arm}-seed{seed}.safetensors")["test"]
    first, second = class_log_probs(logits, samples).T
    difference: NDArray[np.float64] = second - first
    return difference


def _splits(study: Study, out: Path) -> list[tuple[Path, Study]]:
    """Give the folder and the study of each fold, or of the one split."""
    if study.data.folds is None or study.data.fold is not None:
        return [(out, study)]
    return [
        (out / f"fold-{fold}", study.model_copy(update={"data": study.data.model_copy(update={"fold": fold})}))
        for fold in range(study.data.folds)
    ]


def _settle(study: Study, folder: Path) -> None:
    """Write the study into its folder; if only seeds were added, its results are out of date."""
    path, now = folder / "study.json", study.model_dump(mode="json")
    before = json.loads(path.read_text("utf-8")) if path.exists() else None
    if before is not None and {**before, "seeds": 0, "workers": 0} != {**now, "seeds": 0, "workers": 0}:
        return  # another study: run_study refuses it and says why
    if before is None or before["seeds"] != now["seeds"]:
        (folder / "results.json").unlink(missing_ok=True)
        write_json(path, now)


def lend(lender: Path, folder: Path, kinds: Sequence[str] = ("teachers", "targets", "students")) -> None:
    """Link what a run trained where there is nothing yet; what does not fit the recipe is replaced, not changed."""
    for file in (path for kind in kinds for path in (lender / kind).rglob("*.safetensors")):
        target = folder / file.relative_to(lender)
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    checked = lender / "check.json"  # holds for the same images and splits only, whose fingerprint it has
    if checked.exists() and not (folder / "check.json").exists():
        write_json(folder / "check.json", json.loads(checked.read_text("utf-8")))


def _note(out: Path, seconds: float, study: Study, done: bool) -> None:
    path = out.parent / f"{out.name}.sittings.json"
    before = json.loads(path.read_text("utf-8")) if path.exists() else []
    if seconds > 5 or not before:  # a call that found everything there is no sitting
        sitting = {"seconds": round(seconds, 1), "workers": study.workers, "seeds": len(study.seeds), "done": done}
        write_json(path, [*before, sitting])


def sittings(out: Path) -> list[dict[str, Any]]:
    """Give the wall time of each sitting that a run was made in."""
    path = out.parent / f"{out.name}.sittings.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else []


def compare_arms(
    decided: dict[str, NDArray[np.int64]],
    labels: NDArray[np.int64],
    positive: int,
    pairs: Sequence[tuple[str, str]],
    groups: NDArray[np.int64] | None,
) -> dict[str, list[dict[str, Any]]]:
    """Compare pairs by F1 and by error rate, each with Holm's correction over all pairs.

    Args:
        decided: arm -> (S, N) classes.
        labels: (N,) true classes.
        positive: the class that F1 speaks of.
        pairs: (arm, reference).
        groups: (N,) patients, or None.

    Returns:
        "f1" and "error", a row a pair as :func:`subclass_kd.comparison.compare` has it. A negative difference of errors
        is a gain, and is called "better".
    """
    rows = compare(decided, labels, positive, pairs, groups)
    units = np.arange(len(labels)) if groups is None else groups
    left_out = {arm: errors_left_out(predicted != labels, units) for arm, predicted in decided.items()}  # (S, 1 + G)
    return {"f1": rows, "error": _judged("error", -1, left_out, rows, groups)}


def compare_auroc(
    log_odds: dict[str, NDArray[np.float64]], rows: Sequence[dict[str, Any]], of: Finished
) -> list[dict[str, Any]]:
    """Compare pairs by AUROC, which no threshold decides, as :func:`compare_arms` does by F1.

    Args:
        log_odds: arm -> (S, N), of the second class.
        rows: what compare_arms gives by F1: the pairs.
        of: a run that has these test images.
    """
    sign = 1 if of.positive == 1 else -1
    units = np.arange(len(of.labels)) if of.groups is None else of.groups
    truth = of.labels == of.positive
    left_out = {arm: auroc_left_out(sign * scores, truth, units, of.folds) for arm, scores in log_odds.items()}
    return _judged("auroc", 1, left_out, rows, of.groups)


def _judged(
    metric: str,
    sign: int,
    left_out: dict[str, NDArray[np.float64]],
    rows: Sequence[dict[str, Any]],
    groups: NDArray[np.int64] | None,
) -> list[dict[str, Any]]:
    """Give the rows of another metric, whose gain has a sign, from its values (S, 1 + G) of each arm."""
    gaps = [left_out[row["arm"]] - left_out[row["reference"]] for row in rows]
    tests = [paired_difference(gap[:, 0], gap[:, 1:], groups is not None) for gap in gaps]
    adjusted = holm([1.0 if test["p_value"] is None else test["p_value"] for test in tests])
    return [
        {**row, "metric": metric, **test, "p_holm": None if test["p_value"] is None else p}
        | {"verdict": "inconclusive" if p >= 0.05 else "better" if sign * test["difference"] > 0 else "worse"}
        | {"variance": describe_variance(gap[:, 0], gap[:, 1:])}
        for row, gap, test, p in zip(rows, gaps, tests, adjusted, strict=True)
    ]


def errors_left_out(wrong: NDArray[np.bool_], units: NDArray[np.int64]) -> NDArray[np.float64]:
    """Give the error rate of each seed, of all images and then with each of the G units left out: (S, 1 + G).

    >>> errors_left_out(np.array([[True, False, False, True]]), np.array([0, 0, 1, 1]))
    array([[0.5, 0.5, 0.5]])
    """
    numbers, counts = np.unique(units, return_inverse=True, return_counts=True)[1:]
    by_unit = np.stack([np.bincount(numbers, row, len(counts)) for row in wrong])  # (S, G)
    whole = by_unit.sum(1, keepdims=True)  # (S, 1)
    return np.concatenate([whole / len(units), (whole - by_unit) / (len(units) - counts)], axis=1)

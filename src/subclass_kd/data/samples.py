"""The samples of a study: pixels, subclass labels, splits and the hierarchy, checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study, Votes
from subclass_kd.curriculum import stages
from subclass_kd.data import fashion_mnist, folder, lidc, mhist, shards, tabular
from subclass_kd.data.augmentable import check_augment
from subclass_kd.data.cross_fit import check_cross_fit
from subclass_kd.data.findings import Findings
from subclass_kd.data.hierarchies import check_regrouped, found_hierarchy, resolve_hierarchy, resolve_positive
from subclass_kd.data.patients import PATIENT_ID, with_patients
from subclass_kd.data.pixels import load_pixels
from subclass_kd.data.rows import Rows, Samples
from subclass_kd.data.scan import Look
from subclass_kd.data.splits import make_splits
from subclass_kd.data.table import SampleTable, number
from subclass_kd.data.table import Votes as VoteCounts
from subclass_kd.data.unlabelled import check_unlabelled, with_unlabelled
from subclass_kd.data.vote_columns import check_range
from subclass_kd.data.votes import agreement
from subclass_kd.data.votes import resolve as resolve_votes
from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint

READERS: dict[str, Callable[[Study, Findings], SampleTable]] = {
    "fashion-mnist": fashion_mnist.read,
    "lidc-votes": lidc.read,
    "folder": folder.read,
    "table": tabular.read,
    "mhist": mhist.read,
    "webdataset": shards.read,
}
# Which classes are hard to tell apart, and so worth a study, was chosen on training images: docs/demo.md.
FASHION_HIERARCHY = {
    "upper": ["T-shirt/top", "Pullover", "Coat", "Shirt", "Bag"],
    "lower": ["Trouser", "Dress", "Sandal", "Sneaker", "Ankle boot"],
}
DEFAULT_HIERARCHIES = {"fashion-mnist": FASHION_HIERARCHY}
# The negative class first, for kinds whose votes are about classes of known names.
VOTE_CLASSES = {"lidc-votes": lidc.CLASSES, "mhist": mhist.CLASSES}


def load_samples(
    study: Study,
    on_progress: Callable[[int, int], None] | None = None,
    findings: Findings | None = None,
    verify: bool = True,
    looks: list[Look] | None = None,
    test: bool = True,
) -> Samples:
    """Read a study's data, name its subclasses, split it, and decode its pixels.

    Every arm and every seed of every run of a study sees the same split.

    Args:
        study: what to read.
        on_progress: hears how many of how many images are decoded.
        findings: takes warnings; errors are raised.
        verify: hold stored pixels against their digests; not where another process of the run has just done so.
        looks: filled with what :mod:`subclass_kd.data.check` needs to know of each image, if files are decoded now.
        test: whether the test split's images are read; without them it has none.

    Raises:
        UserError: data are missing or damaged, do not fit the hierarchy, or are too few; the first of all findings.

    >>> samples = load_samples(Study())
    >>> samples.images.shape, len(samples.train), len(samples.validation), len(samples.test)
    ((6500, 1, 28, 28), 2400, 600, 3500)
    """
    findings = Findings() if findings is None else findings
    rows = load_rows(study, findings)
    rows = rows if test else rows.without_test()
    images, index = load_pixels(rows.table, study.data, on_progress, findings, verify, looks)
    check_augment(study.augment, images.shape[1:])
    votes, weights = rows.table.votes, rows.table.weights
    optional = [rows.groups, rows.stage, weights, *([votes.positive, votes.annotators] if votes else [])]
    mark = fingerprint(
        rows.table.names, index.fingerprint, rows.subclass_labels.tobytes(),
        rows.hierarchy.to_dict(), rows.positive, rows.train.tobytes(), rows.validation.tobytes(), rows.test.tobytes(),
        *("none" if column is None else column.tobytes() for column in optional),
    )  # fmt: skip
    known = {field.name: getattr(rows, field.name) for field in fields(rows)}
    return Samples(**known, images=images, index=index, fingerprint=mark)


def load_rows(study: Study, findings: Findings) -> Rows:
    """Do as :func:`resolve_rows`, and raise the first error found.

    Raises:
        UserError: anything is wrong with the rows.
    """
    try:
        rows = resolve_rows(study, findings)
    except UserError:
        findings.raise_first()  # what is wrong with rows comes before what follows from it
        raise
    findings.raise_first()
    return rows


def resolve_rows(study: Study, findings: Findings) -> Rows:
    """Read the samples table and settle everything but pixels: labels, hierarchy, splits, stages.

    Args:
        study: what to read.
        findings: takes what is wrong; rows with an error are left out.

    Raises:
        UserError: what is wrong leaves nothing to go on with.
    """
    check_unlabelled(study)
    table = with_patients(READERS[study.data.kind](study, findings), findings)
    if not len(table):
        findings.raise_first()
        raise UserError(table.where, "no image", "images")
    everything = len(table)
    if table.votes is not None:
        if study.votes is not None:
            check_range(table.votes, study.votes, table.where, findings)
        table, found = _apply_votes(table, table.votes, study)
    elif "soft-votes" in study.arms:
        remedy = "Remove it from the arms, or say where the votes stand: votes."
        raise UserError('key "arms"', '"soft-votes", and no votes', "annotators' votes for this arm", remedy)
    elif study.hierarchy is not None:
        found = study.hierarchy
    else:
        found = DEFAULT_HIERARCHIES.get(study.data.kind) or found_hierarchy(table)
    subclasses = table.subclasses or []
    strata, names = _strata(table, subclasses, study.data.kind)
    hierarchy = resolve_hierarchy(study.hierarchy or found, names, table.where)
    if study.hierarchy is not None:
        check_regrouped(study.hierarchy, table)
    numbers = {name: number for number, name in enumerate(hierarchy.subclasses)}
    named = table.names if table.group_source == PATIENT_ID else None
    splits = make_splits(study.data, strata, table.splits, table.groups, table.where, findings, named)
    try:
        positive = resolve_positive(study.positive, hierarchy, findings)
    except UserError as error:
        findings.add(error, "positive")
        positive = hierarchy.num_classes - 1
    rows = Rows(
        table=table,
        subclass_labels=np.array([numbers[name] for name in subclasses], dtype=np.int64),
        train=splits.train,
        validation=splits.validation,
        test=splits.test,
        hierarchy=hierarchy,
        positive=positive,
        groups=_number_groups(table.groups),
        ties=everything - len(table),
        unlabelled=splits.rest if study.distillation.unlabelled else None,
    )
    _check_enough(rows, findings)
    _check_weights(rows, findings)
    _check_used(study, table.splits, findings)
    try:
        check_cross_fit(study, rows)
    except UserError as error:
        findings.add(error, "cross_fit")
    if study.curriculum.active:
        try:
            rows = replace(rows, stage=_stage(rows, study))
        except UserError as error:
            findings.add(error, "curriculum")
    return with_unlabelled(rows, study, findings)


def _apply_votes(table: SampleTable, votes: VoteCounts, study: Study) -> tuple[SampleTable, dict[str, list[str]]]:
    """Let votes decide class and subclass, and drop the rows that a tie leaves without."""
    if study.hierarchy is not None:
        remedy = "Remove it; votes.subclasses says which subclasses there are."
        raise UserError('key "hierarchy"', "classes, beside votes that decide them", "one of the two", remedy)
    rule = study.votes or Votes()
    decided = resolve_votes(votes, rule, VOTE_CLASSES.get(study.data.kind, (rule.classes[0], rule.classes[1])))
    decided_table = replace(table, subclasses=decided.subclasses)
    return decided_table.take(np.flatnonzero(decided.kept)), decided.hierarchy


def _strata(table: SampleTable, subclasses: list[str], kind: str) -> tuple[NDArray[np.int64], list[str]]:
    """Give (N,) what splits are stratified by, and the subclasses' names.

    Votes where there are any, the owner's subclasses otherwise: regrouping subclasses must not move an image.
    """
    if table.votes is not None:
        counts = np.stack([table.votes.positive, table.votes.annotators], axis=1)
        return np.unique(counts, axis=0, return_inverse=True)[1].reshape(-1), sorted(set(subclasses))
    if kind == "fashion-mnist":  # its owner numbers the subclasses
        order = {name: number for number, name in enumerate(fashion_mnist.NAMES)}
        return np.array([order[name] for name in subclasses], dtype=np.int64), list(order)
    return number(subclasses)


def _number_groups(groups: list[str] | None) -> NDArray[np.int64] | None:
    """Number the groups; each image without one is a group of its own."""
    if groups is None or not any(groups):
        return None
    return number([group or f"\0{row}" for row, group in enumerate(groups)])[0]


def _check_enough(rows: Rows, findings: Findings) -> None:
    """Demand every class in every split, and two training images of every subclass."""
    hierarchy, parents = rows.hierarchy, np.asarray(rows.hierarchy.parent_indices)
    for split, members in (("training", rows.train), ("validation", rows.validation), ("test", rows.test)):
        counts = np.bincount(rows.subclass_labels[members], minlength=hierarchy.num_subclasses)
        by_class = np.bincount(parents, counts, minlength=hierarchy.num_classes)
        for missing in np.flatnonzero(by_class == 0):
            found = f'no {split} image of class "{hierarchy.classes[missing]}"'
            remedy = "A study needs every class in training, validation and test; give more images."
            findings.error("class missing from a split", rows.table.where, found, "images of every class", remedy)
        for subclass in np.flatnonzero(counts < 2) if split == "training" else ():
            if by_class[parents[subclass]]:
                found = f'{counts[subclass]} training image(s) of subclass "{hierarchy.subclasses[subclass]}"'
                remedy = "Give more images, or merge this subclass with another."
                findings.error("subclass too small", rows.table.where, found, "at least 2", remedy)


def _check_weights(rows: Rows, findings: Findings) -> None:
    """Demand that every class counts in training."""
    if rows.table.weights is None:
        return
    sums = np.bincount(rows.class_labels[rows.train], rows.table.weights[rows.train], rows.hierarchy.num_classes)
    for number_ in np.flatnonzero(sums == 0):
        found = f'only weights of 0 in the training images of class "{rows.hierarchy.classes[number_]}"'
        findings.error("weight", rows.table.where, found, "weights above 0 in every class")


def _check_used(study: Study, splits: list[str] | None, findings: Findings) -> None:
    """Warn of keys that change nothing here, beside others that are given."""
    given = set(splits or ()) if study.data.folds is None else set()
    idle = {
        "data.test": study.data.folds is not None or "test" in given,
        "data.validation": "validation" in given,
    }
    for key, without_effect in idle.items():
        if without_effect and key.removeprefix("data.") in study.data.model_fields_set:
            found = "a share, and a split or folds that decide"
            findings.warning("key without effect", f'key "{key}"', found, "one of the two", "Remove the key.")
    if study.curriculum.model_fields_set and not study.curriculum.active:
        found, expected = "a section that nobody follows", "teacher: true or student: true"
        findings.warning("key without effect", 'key "curriculum"', found, expected)


def _stage(rows: Rows, study: Study) -> NDArray[np.int64]:
    """Give (N,) the stage of a curriculum in which each training image enters; -1 for the others."""
    table, by = rows.table, study.curriculum.by
    votes, column = table.votes, table.difficulty
    difficulty = column if by == "difficulty" else None if votes is None else 1 - agreement(votes)
    if difficulty is None:
        missing = "votes" if by == "agreement" else 'column "difficulty"'
        remedy = "Turn the curriculum off, or give the other: agreement (votes) or difficulty (a column)."
        raise UserError('key "curriculum.by"', f'"{by}", and no {missing}', "what orders the images", remedy)
    stage = np.full(len(table), -1, dtype=np.int64)
    stage[rows.train] = stages(difficulty[rows.train], study.curriculum.stages)
    first = set(rows.class_labels[stage == 0].tolist())
    for number_, name in enumerate(rows.hierarchy.classes):
        if number_ not in first:
            found = f'{study.curriculum.stages}, and no image of class "{name}" in the first'
            remedy = "Use fewer stages, or no curriculum."
            raise UserError('key "curriculum.stages"', found, "every class in the first stage", remedy)
    return stage

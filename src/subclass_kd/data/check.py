"""What is wrong with a study's data, rows and pixels, in one pass: ``skd check``."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data.augmentable import check_augment
from subclass_kd.data.findings import Findings
from subclass_kd.data.pixel_checks import check_pixels, count_sizes
from subclass_kd.data.rows import SPLITS, Rows
from subclass_kd.data.samples import resolve_rows
from subclass_kd.data.scan import Look, Scan, scan
from subclass_kd.errors import UserError

SMALLEST_SHARE = 0.05  # of the training images, for a class or a subclass
FEWEST_TRAINING = 20
FEWEST_VALIDATION = 20  # of a class: fewer, and chance chooses the epoch and the threshold
FEWEST_TEST = 5  # of a subclass: fewer, and its accuracy is a matter of luck
FEWEST_ANNOTATORS = 3
LARGEST_GROUP = 0.2  # share of all images
Bools = NDArray[np.bool_]


def check_study(study: Study, on_progress: Callable[[int, int], None] | None = None) -> dict[str, Any]:
    """Find everything that is wrong with a study's data.

    Args:
        study: whose data.
        on_progress: called with (done, all) images that are decoded.

    Returns:
        Plain values for JSON: "errors" and "warnings" in numbers, "counts" by kind, "findings", of each kind the first
        few, and "data", as of :func:`summary`; None where errors leave nothing to describe.
    """
    findings, data = Findings(), None
    try:
        rows = resolve_rows(study, findings)
    except UserError as error:
        # The error may be the first finding, raised again.
        if not any((kept.where, kept.found) == (error.where, error.found) for kept in findings.kept):
            findings.add(error, "study")
    else:
        found = scan(rows.table, study.data, on_progress)
        data = _check_scanned(rows, found, study, findings)
        if study.data.folds is not None and study.data.fold is None:
            _check_other_folds(study, found, findings)
    return findings.as_dict() | {"data": data}


def _check_other_folds(study: Study, found: Scan, findings: Findings) -> None:
    """Note the errors of the folds after the first, each once: warnings are about the same images."""
    for fold in range(1, study.data.folds or 0):
        each = study.model_copy(update={"data": study.data.model_copy(update={"fold": fold})})
        own = Findings()
        try:
            _check_scanned(resolve_rows(each, own), found, each, own)
        except UserError as error:
            own.add(error, "study")
        known = {(finding.where, finding.found) for finding in findings.kept}
        for finding in own.kept:
            if finding.severity == "error" and (finding.where, finding.found) not in known:
                findings.error(finding.kind, finding.where, finding.found, finding.expected, finding.remedy)


def check_samples(
    rows: Rows,
    study: Study,
    findings: Findings,
    on_progress: Callable[[int, int], None] | None = None,
    looks: Sequence[Look] = (),
) -> dict[str, Any]:
    """Find what is wrong with rows that are settled, and with their pixels; give "data" of :func:`check_study`.

    ``looks``, of all images, spare decoding them again.
    """
    return _check_scanned(
        rows, Scan(list(looks)) if looks else scan(rows.table, study.data, on_progress), study, findings
    )


def _check_scanned(rows: Rows, found: Scan, study: Study, findings: Findings) -> dict[str, Any]:
    check_rows(rows, findings)
    check_pixels(rows, found, study.data, findings)
    _check_augment(found, study, findings)
    return summary(rows, found)


def _check_augment(found: Scan, study: Study, findings: Findings) -> None:
    looks = [look for look in found.looks if isinstance(look, Look)]
    if looks:
        size, channels = study.data.size, study.data.channels or max(look.channels for look in looks)
        try:
            check_augment(study.augment, (channels, size or looks[0].height, size or looks[0].width))
        except UserError as error:
            findings.add(error, "augmentation")


def check_rows(rows: Rows, findings: Findings) -> None:
    """Warn of what the rows' numbers make doubtful: imbalance, tests of a few images, a group that is everything.

    Args:
        rows: whose labels, splits and groups are counted.
        findings: takes warnings.
    """
    hierarchy, where = rows.hierarchy, rows.table.where
    parents = np.asarray(hierarchy.parent_indices)
    labels = rows.subclass_labels
    alone = np.bincount(parents)[parents] == 1  # (K,): the only subclass of its class
    class_counts = np.bincount(rows.class_labels[rows.train], minlength=hierarchy.num_classes)
    counts = np.bincount(labels[rows.train], minlength=hierarchy.num_subclasses)
    _warn_of_small("class", hierarchy.classes, class_counts, class_counts > 0, where, findings)
    _warn_of_small("subclass", hierarchy.subclasses, counts, ~alone, where, findings)
    few_validated = few_validation(rows)
    if few_validated is not None:
        found, remedy = few_validated
        expected = f"at least {FEWEST_VALIDATION} of each class: they choose every epoch and the threshold"
        findings.warning("few validation images", where, found, expected, remedy)
    tested = np.bincount(labels[rows.test], minlength=hierarchy.num_subclasses)
    for number in np.flatnonzero(tested < FEWEST_TEST) if len(rows.test) else ():  # there is none in a search
        found = f'{tested[number]} test image(s) of subclass "{hierarchy.subclasses[number]}"'
        remedy = "Its accuracy will say little; add test images or merge it with another."
        findings.warning("few test images", where, found, f"at least {FEWEST_TEST}", remedy)
    if alone.all():
        found = f"one subclass in each of the {hierarchy.num_classes} classes"
        remedy = "Without more, skd is the same as kd: give subclasses in folders, a column or data.pattern."
        findings.warning("no subclasses", 'key "hierarchy"', found, "a class of two subclasses or more", remedy)
    alone_images = 0 if rows.table.groups is None else rows.table.groups[: rows.named].count("")
    if rows.groups is not None and alone_images:
        found = f"{alone_images:,} of {rows.named:,} images without a group"
        remedy = "Each is split as a patient of its own; if two are of one patient, say so in the group."
        findings.warning("images without a group", where, found, "a group (patient) for every image", remedy)
    if rows.table.votes is not None and (few := int((rows.table.votes.annotators < FEWEST_ANNOTATORS).sum())):
        found = f"{few:,} images with fewer than {FEWEST_ANNOTATORS} annotators"
        remedy = "One or two have no majority, and one always agrees; leave these images out."
        findings.warning("few annotators", where, found, f"at least {FEWEST_ANNOTATORS} for each image", remedy)
    if rows.groups is not None and rows.table.groups is not None:
        sizes = np.bincount(rows.groups)
        largest, share = int(sizes.argmax()), sizes.max() / len(rows.groups)
        if share > LARGEST_GROUP:
            name = rows.table.groups[int(np.argmax(rows.groups == largest))]
            found = f'{sizes.max():,} images, {100 * share:.0f} %, in group "{name}"'
            remedy = "It is in one split as a whole; check that it is one patient or slide."
            findings.warning("large group", where, found, f"at most {100 * LARGEST_GROUP:.0f} % in a group", remedy)


def few_validation(rows: Rows) -> tuple[str, str] | None:
    """Say of which classes there are too few validation images, and what mends it; None if there are enough."""
    counts = np.bincount(rows.class_labels[rows.validation], minlength=rows.hierarchy.num_classes).tolist()
    few = {name: count for name, count in zip(rows.hierarchy.classes, counts, strict=True) if count}
    few = {name: count for name, count in few.items() if count < FEWEST_VALIDATION}
    if not few:
        return None
    found = " and ".join(f'{count} validation images of class "{name}"' for name, count in few.items())
    splits = rows.table.splits
    if splits is not None and {splits[row] for row in rows.validation.tolist()} == {"validation"}:
        return found, "Merge the validation split into train, and set data.validation."
    return found, "Set a larger data.validation, or add images."


def _warn_of_small(
    level: str, names: tuple[str, ...], counts: NDArray[np.int64], asked: Bools, where: str, findings: Findings
) -> None:
    total = max(1, int(counts.sum()))
    smallest = min(SMALLEST_SHARE, 0.5 / len(names))  # of 20 equal subclasses none is small
    for number in np.flatnonzero(asked & ((counts < FEWEST_TRAINING) | (counts < smallest * total))):
        found = f'{counts[number]:,} training images of {level} "{names[number]}", {100 * counts[number] / total:.1f} %'
        expected = f"at least {FEWEST_TRAINING}, and {100 * smallest:.1f} % of {total:,}"
        findings.warning(f"small {level}", where, found, expected, "Add images, or merge it with another.")


def summary(rows: Rows, found: Scan) -> dict[str, Any]:
    """Describe the data: what is there, how it is split, and what is there twice.

    Args:
        rows: N of them.
        found: what a scan of ``rows.table`` gave.

    Returns:
        Plain values for JSON: those of :meth:`subclass_kd.data.samples.Rows.describe`, and "images", "unreadable",
        "sizes" and "channels" with their counts, "shared_groups", how many groups are in two splits (None where no
        groups are known), with the same as a "sentence", "copies" (groups of equal images, and how many images are
        surplus) and "near_duplicates" (pairs).
    """
    shared = _shared_groups(rows)
    return rows.describe() | {
        "images": len(rows.table),
        "unreadable": sum(isinstance(look, UserError) for look in found.looks),
        "sizes": [{"width": w, "height": h, "images": count} for (w, h), count in count_sizes(found).most_common(10)],
        "channels": dict(sorted(Counter(str(look.channels) for look in found.looks if isinstance(look, Look)).items())),
        "shared_groups": shared,
        "sentence": _about_groups(rows, shared),
        "copies": {"groups": len(found.copies), "surplus": sum(len(group) - 1 for group in found.copies)},
        "near_duplicates": len(found.near),
    }


def _shared_groups(rows: Rows) -> int | None:
    if rows.groups is None:
        return None
    sides = [np.unique(rows.groups[getattr(rows, split)]) for split in SPLITS]
    return int((np.unique(np.concatenate(sides), return_counts=True)[1] > 1).sum())


def _about_groups(rows: Rows, shared: int | None) -> str:
    if rows.groups is None or shared is None:
        return "No groups (patients) are known: images of one patient may be in two splits."
    count = len(np.unique(rows.groups[: rows.named]))
    if shared:
        return f"{shared:,} of {count:,} groups (patients) are in two splits."
    return f"No group (patient) is in two splits: {count:,} groups."

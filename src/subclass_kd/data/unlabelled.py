"""A folder of images that nobody has labelled, beside those of a study: what only a teacher speaks of."""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np

from subclass_kd.config import Study
from subclass_kd.data.findings import Findings
from subclass_kd.data.folder import walk
from subclass_kd.data.members import Root, is_url
from subclass_kd.data.rows import Rows
from subclass_kd.errors import UserError

EXPECTED = "a folder of images, without labels, apart from those of the study"


def check_unlabelled(study: Study) -> None:
    """Refuse ``data.unlabelled`` where it cannot be what it should.

    Raises:
        UserError: the data come decoded or have votes, there is no such folder, or it lies in ``data.root``.
    """
    folder, data = study.data.unlabelled, study.data
    if folder is None:
        return
    where = 'key "data.unlabelled"'
    if data.kind not in ("folder", "table", "webdataset"):
        raise UserError(where, f"a folder, and data.kind: {data.kind}", "no such key there", "Remove it.")
    if study.votes is not None:
        raise UserError(where, "a folder, beside votes that decide every label", "one of the two", "Remove one.")
    if not os.path.isdir(folder):
        raise UserError(where, f'no folder "{folder}"', EXPECTED, "Correct the path.")
    inside = isinstance(data.root, Path) and folder.resolve().is_relative_to(data.root.resolve())
    if data.kind == "folder" and inside:
        raise UserError(where, f'"{folder}", inside data.root, whose folders are classes', EXPECTED, "Move it.")


def with_unlabelled(rows: Rows, study: Study, findings: Findings) -> Rows:
    """Add the images of ``data.unlabelled``, the last rows, to those of which only a teacher speaks.

    Args:
        rows: N of them, settled.
        study: ``data.unlabelled`` and ``distillation.unlabelled`` are read.
        findings: takes an error where there is none to learn from, and a warning of a key without effect.

    Returns:
        N + u rows, whose last u have no label: their numbers in ``subclass_labels`` mean nothing.
    """
    folder = study.data.unlabelled
    if not study.distillation.unlabelled:
        if folder is not None:
            found = "a folder, and distillation.unlabelled: false"
            findings.warning("key without effect", 'key "data.unlabelled"', found, "distillation.unlabelled: true")
        return rows
    names = [] if folder is None else _names(folder, rows.table.root, findings)
    rest = np.empty(0, np.int64) if rows.unlabelled is None else rows.unlabelled
    count, extra = len(rows.table), len(names)
    if not extra + len(rest):
        expected = "a folder data.unlabelled, or a data.train_images that leaves training images over"
        findings.error("no unlabelled image", 'key "distillation.unlabelled"', "true, and no such image", expected)
        return rows
    groups = rows.groups
    if groups is not None:
        groups = np.concatenate([groups, groups.max() + 1 + np.arange(extra)])
    stage = rows.stage
    if stage is not None:
        stage = np.concatenate([stage, np.full(extra, -1)])
    return replace(
        rows,
        table=rows.table.extended(names),
        subclass_labels=np.concatenate([rows.subclass_labels, np.zeros(extra, np.int64)]),
        groups=groups,
        stage=stage,
        unlabelled=np.concatenate([rest, np.arange(count, count + extra)]),
        nameless=extra,
    )


def _names(folder: Path, root: Root | None, findings: Findings) -> list[str]:
    """Give the paths of all images in a folder and below it, from the root of the others."""
    # Real paths: "..", where the root is a link, leads out of what the link leads to.
    start = os.path.realpath(folder)
    if not is_url(root):
        with contextlib.suppress(ValueError):  # another drive of Windows
            start = os.path.relpath(start, os.path.realpath(root or Path()))
    return [Path(start, name).as_posix() for name in walk(folder, findings)]

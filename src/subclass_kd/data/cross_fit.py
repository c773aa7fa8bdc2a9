"""Parts of the training images for cross-fitting: each member of a teacher learns from all parts but its own."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data.rows import Rows
from subclass_kd.data.splits import grouped_parts
from subclass_kd.errors import UserError


def cross_fit_parts(rows: Rows, members: int) -> NDArray[np.int64]:
    """Cut the training images into parts of like size, stratified by subclass, with groups whole.

    A generator of fixed seed cuts them: every seed and every teacher of a study has the same parts. Dao, Kamath,
    Syrgkanis, Mackey 2021, Knowledge Distillation as Semiparametric Inference, https://arxiv.org/abs/2104.09732

    Args:
        rows: ``train``, ``subclass_labels`` and ``groups`` are read.
        members: how many parts.

    Returns:
        (n,) int64, the part of each training image, 0 to ``members`` - 1, in the order of ``rows.train``.
    """
    groups = np.arange(len(rows.train)) if rows.groups is None else rows.groups[rows.train]
    random = np.random.Generator(np.random.Philox(1))  # 0 made the split
    return grouped_parts(rows.subclass_labels[rows.train], groups, [1 / members] * members, random)


def check_cross_fit(study: Study, rows: Rows) -> None:
    """Refuse cross-fitting where a part would be empty, or a subclass unknown to a member.

    Raises:
        UserError: there are fewer groups, or images, than members, or one part has all of a subclass.
    """
    members = study.teacher.members
    if not study.teacher.cross_fit:
        return
    what, count = ("images", len(rows.train))
    if rows.groups is not None:
        what, count = "groups", len(np.unique(rows.groups[rows.train]))
    if count < members:
        found, expected = f"{members}, beside cross_fit", f"at most {count}, as many as there are training {what}"
        raise UserError('key "teacher.members"', found, expected)
    parts, labels = cross_fit_parts(rows, members), rows.subclass_labels[rows.train]
    for subclass in np.unique(labels):
        if len(np.unique(parts[labels == subclass])) == 1:
            name = rows.hierarchy.subclasses[subclass]
            found = f'true, and all training images of subclass "{name}" in one of {members} parts'
            expected = "images in two parts or more, since each member learns from the others' parts"
            remedy = "Give images of more groups, merge this subclass with another, or set it to false."
            raise UserError('key "teacher.cross_fit"', found, expected, remedy)

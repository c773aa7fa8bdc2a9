"""MHIST as its owners ship it: ``images/`` and ``annotations.csv``, the votes of seven pathologists on each image.

Wei et al. 2021, A Petri Dish for Histopathology Image Analysis, https://arxiv.org/abs/2101.12355. The images come from
their owners only, under a Dataset Research Use Agreement.
"""

from __future__ import annotations

import numpy as np

from subclass_kd.config import Study, Votes
from subclass_kd.data.cells import read_header
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import check_root, quoted
from subclass_kd.data.table import SampleTable, refuse_keys
from subclass_kd.data.tabular import read_table
from subclass_kd.errors import UserError

CLASSES = ("HP", "SSA")  # hyperplastic polyp, sessile serrated adenoma
ANNOTATORS = 7
NAME, LABEL, SPLIT = "Image Name", "Majority Vote Label", "Partition"
COUNT = "Number of Annotators who Selected SSA (Out of 7)"


def read(study: Study, findings: Findings) -> SampleTable:
    """Read MHIST's table; classes and subclasses are left to the votes.

    Args:
        study: ``data.root``, the folder with ``images/`` and ``annotations.csv``.
        findings: takes what is wrong with rows, which are left out.

    Raises:
        UserError: the folder or a part of it is missing, a column of the table is, or the study says what the data say.
    """
    refuse_keys(study, "table", "columns", "pattern", "counting")
    root = check_root(study.data.root)
    path = root / "annotations.csv"
    for part, is_there in (("images", (root / "images").is_dir()), ("annotations.csv", path.is_file())):
        if not is_there:
            remedy = "Set data.root to the folder that holds both, as the owners of MHIST ship them."
            raise UserError(str(root), f"no {part}", "a folder images and a file annotations.csv", remedy)
    header = read_header(path)
    missing = [name for name in (NAME, LABEL, COUNT, SPLIT) if name not in header]
    if missing:
        found = f"no column {' or '.join(quoted(name) for name in missing)}"
        expected = ", ".join(quoted(name) for name in (NAME, LABEL, COUNT, SPLIT))
        raise UserError(f"{path}, row 1", found, f"MHIST's columns {expected}", "Take the file as its owners ship it.")
    votes = Votes(column=COUNT, annotators=ANNOTATORS, classes=list(CLASSES))
    table = read_table(path, root, {"path": NAME, "class": LABEL, "split": SPLIT}, votes, findings, folder="images")
    official = np.array([split != "validation" for split in table.splits or ()], dtype=bool)
    for row in np.flatnonzero(~official).tolist():
        where = f"{table.place(row)}, column {quoted(SPLIT)}"
        findings.error("split", where, "a validation split", "train or test, the official split")
    return table.take(np.flatnonzero(official))

"""Patients that the headers of DICOM files name, where nothing else tells groups.

The identifier itself stays in memory. A digest of it could be guessed, as hospitals count their patients, so that they
are numbered: no file and no message has more than "patient-0001".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec

import numpy as np

from subclass_kd.ahead import in_order
from subclass_kd.cores import count_cores
from subclass_kd.data.cell_rules import is_missing
from subclass_kd.data.findings import Findings
from subclass_kd.data.images import DICOM_EXTENSIONS, EXTENSIONS, read_patient
from subclass_kd.data.members import Member
from subclass_kd.data.shard_index import Mark, stamp
from subclass_kd.data.table import SampleTable
from subclass_kd.errors import UserError

PATIENT_ID = "PatientID in the DICOM headers"
# What tools that take names away leave in their place, in lower case, letters and digits only.
_ANONYMOUS = {"", "anon", "anonymous", "anonymized", "anonymised", "deidentified", "removed", "unknown"}
_AHEAD = 256  # files that threads may read beyond the one that is waited for
_HEAD = 1 << 16  # bytes of a member of a shard that are read first: the patient stands near the beginning


def with_patients(table: SampleTable, findings: Findings) -> SampleTable:
    """Take for groups the patients that DICOM headers name, where the table has no groups.

    They are called "patient-0001" and so on, in the order of their first files, sorted by name. A file that names none,
    or is no DICOM file, is of no group. Where no two patients are told apart there are no groups.

    Args:
        table: as its reader gave it.
        findings: takes an error for each DICOM file that cannot be read, which is left out, and a warning where
            headers tell no patients.

    Raises:
        UserError: there are DICOM files and no pydicom.
    """
    if table.groups is not None or table.images is not None:
        return table
    rows = sorted(_may_be_dicom(table.names), key=lambda row: table.names[row])
    patients: dict[int, str] = {}  # row -> the patient of a DICOM file, "" where it names none
    numbers: dict[str, int] = {}
    good = np.ones(len(table), dtype=bool)
    for row, found in zip(rows, _read_all(table, rows), strict=True):
        if isinstance(found, UserError):
            if find_spec("pydicom") is None:
                raise found
            where = found.where if table.rows is None else f"{table.place(row)}, {found.where}"
            findings.error("unreadable image", where, found.found, found.expected, found.remedy)
            good[row] = False
        elif found is not None:
            nobody = is_missing(found) or re.sub(r"[\W_]", "", found.lower()) in _ANONYMOUS
            patients[row] = "" if nobody else found
            if patients[row]:
                numbers.setdefault(patients[row], len(numbers) + 1)
    if len(numbers) > 1:
        named = [patients.get(row) for row in range(len(table))]
        groups = [f"patient-{numbers[patient]:04}" if patient else "" for patient in named]
        table = replace(table, groups=groups, group_source=PATIENT_ID)
    elif len(patients) > 1:
        which = "one and the same PatientID" if numbers else "no PatientID, or one without a name,"
        remedy = "Images of one patient may be in two splits: tell groups by data.pattern or in a column."
        found_here = f"{which} in {len(patients):,} DICOM files"
        findings.warning("no patients in DICOM", table.where, found_here, "a PatientID for each patient", remedy)
    return table if good.all() else table.take(np.flatnonzero(good))


def _may_be_dicom(names: list[str]) -> list[int]:
    """Give the rows whose files may be DICOM by their suffix: it is that of DICOM, or of no other image."""
    others = EXTENSIONS - DICOM_EXTENSIONS
    return [row for row, name in enumerate(names) if posixpath.splitext(name)[1].lower() not in others]


def _read_all(table: SampleTable, rows: list[int]) -> Iterator[str | UserError | None]:
    """Read the patient of each of some rows, in their order; each file is opened once as long as it stays the same."""
    paths = [table.path(row) for row in rows]
    files = [path.shard if isinstance(path, Member) else str(path) for path in paths]
    marks = {file: stamp(file) for file in dict.fromkeys(files)}

    def read(number: int) -> str | UserError | None:
        path = paths[number]
        try:
            return _read(path if isinstance(path, Member) else files[number], marks[files[number]])
        except UserError as error:
            return error

    with ThreadPoolExecutor(count_cores()) as pool:
        yield from in_order(pool, read, len(rows), _AHEAD)


@lru_cache(maxsize=1 << 18)
def _read(path: Member | str, mark: Mark | None) -> str | None:
    """Do as :func:`read_patient`; of folds, and of what `skd init` looks at twice, each file is opened once."""
    if isinstance(path, Member) and path.size > _HEAD:
        with suppress(UserError):
            if found := read_patient(replace(path, size=_HEAD)):
                return found
    return read_patient(path)

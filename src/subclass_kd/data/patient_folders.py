"""Folders that are patients, where folders of subclasses are looked for: what gives them away."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from statistics import median

from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import quoted
from subclass_kd.data.table import SPLIT_NAMES

MOST_SUBCLASSES = 10  # of a class; what has more names is rather counted than distinguished
FEWEST_IMAGES = 20  # of a subclass, for training alone; see what skd check calls a small one
NUMBERED = 0.9  # share of the names that have a digit, as those of patients do
# Followed by a number these tell a patient, or what stands for one, however few there are. Not pt: pT1 is a stage.
_PATIENT = re.compile(r"(?:patient|pat|person|subject|subj|case|slide)[\W_]*\d|sub-\d", re.IGNORECASE)


def patient_level(names: Iterable[str]) -> int | None:
    """Tell in which folders of the paths of images patients' names stand, behind those of the classes.

    Args:
        names: in POSIX form, from the root.

    Returns:
        The number of folders before it, the outermost of several; None where there is no such level.

    >>> patient_level(f"train/{name}/P{k:02}/{k}.png" for name in ("a", "b") for k in range(12))
    2
    """
    parts = [name.split("/") for name in names]
    depth = max(Counter(map(len, parts)).items(), key=lambda item: (item[1], item[0]), default=(0, 0))[0] - 1
    parts = [part for part in parts if len(part) == depth + 1]
    at = int(depth > 0 and all(part[0].lower() in SPLIT_NAMES for part in parts))  # the level of classes
    for level in range(at + 1, depth):
        folders = _by_class([part[at] for part in parts], [part[level] for part in parts])
        if any(_named_so(own) or _numbered(own) for own in folders.values()):
            return level
    return None


def folder_pattern(level: int, key: str) -> str:
    """Give the pattern of paths that calls a folder "group" or "subclass".

    >>> folder_pattern(1, "group"), folder_pattern(2, "subclass")
    ('^[^/]+/(?P<group>[^/]+)/', '^(?:[^/]+/){2}(?P<subclass>[^/]+)/')
    """
    before = "[^/]+/" if level == 1 else f"(?:[^/]+/){{{level}}}"
    return f"^{before}(?P<{key}>[^/]+)/"


def check_subclass_folders(
    classes: Sequence[str], folders: Sequence[str], level: int, where: str, findings: Findings
) -> None:
    """Refuse folders of subclasses that look like those of patients: each patient would be in training and test.

    Args:
        classes: of N images.
        folders: those of their subclasses, "" where a pattern has told the subclass.
        level: of these folders.
        where: what messages call the data.
        findings: takes the error.
    """
    suspects = {
        name: own
        for name, own in _by_class(classes, folders).items()
        if _named_so(own) or _numbered(own) or (len(own) > MOST_SUBCLASSES and median(own.values()) < FEWEST_IMAGES)
    }
    if not suspects:
        return
    name, own = max(suspects.items(), key=lambda item: len(item[1]))
    found = f"{len(own):,} folders in class {quoted(name)}, such as {quoted(min(own))}"
    expected = (
        f"subclasses; these may be patients, by their {'names' if _named_so(own) or _numbered(own) else 'number'}"
    )
    remedy = (
        f"If each is a patient, set data.pattern: '{folder_pattern(level, 'group')}', and its images stay together; "
        f"if each is a subclass, set it to '{folder_pattern(level, 'subclass')}'."
    )
    findings.error("folders of patients", where, f"{found}, of {median(own.values()):g} images", expected, remedy)


def _by_class(classes: Sequence[str], folders: Sequence[str]) -> dict[str, Counter[str]]:
    """Count the images of each folder of each class."""
    found: dict[str, Counter[str]] = defaultdict(Counter)
    for name, folder in zip(classes, folders, strict=True):
        if folder:
            found[name][folder] += 1
    return found


def _named_so(folders: Iterable[str]) -> bool:
    names = [*folders]
    return len(names) > 1 and all(map(_PATIENT.match, names))


def _numbered(folders: Iterable[str]) -> bool:
    """Tell whether there are more than subclasses, and most names have a number."""
    names = [*folders]
    with_digit = sum(any(map(str.isdigit, name)) for name in names)
    return len(names) > MOST_SUBCLASSES and with_digit >= NUMBERED * len(names)

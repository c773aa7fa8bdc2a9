"""Paths of images: in one form, inside their root, and of files that are there."""

from __future__ import annotations

import os
import posixpath
import re
import stat
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.data.findings import Findings
from subclass_kd.errors import UserError

# Control characters, line separators, and what no UTF-8 file can hold (bytes of a name that are not UTF-8 come so).
UNPRINTABLE = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")
_ODD = re.compile(r"\\|^/|^[A-Za-z]:|//|(?:^|/)\.{1,2}(?:/|$)|/$")  # paths that may have a plainer form
_MARKS = ("\\", ":", "//", "/.", "\n.", "\n/", "/\n")  # one of them is in every text with such a path
_ACCENTS = re.compile("[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters
_LONGEST_SHOWN = 120

Problem = tuple[str, str, str, str]  # kind, found, expected, remedy


def shown(text: str) -> str:
    r"""Write text for a message: control characters as escapes, cut where it is long.

    >>> print(shown("two\nlines"))
    two\nlines
    """
    text = text if len(text) <= _LONGEST_SHOWN else f"{text[: _LONGEST_SHOWN - 3]}..."
    return UNPRINTABLE.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def quoted(text: str) -> str:
    """Write a value for a message in quotes.

    >>> print(quoted(" benign"))
    " benign"
    """
    return f'"{shown(text)}"'


def alike(text: str) -> str:
    """Give what texts share that differ in case, accents or blanks only.

    >>> alike("Bénin  certain") == alike("benin certain")
    True
    """
    # Not all combining marks are accents: without theirs, Japanese or Hindi would be other words.
    plain = _ACCENTS.sub("", unicodedata.normalize("NFKD", text))
    return "".join(plain.split()).casefold()


def check_root(root: Path | str | None) -> Path:
    """Give the folder of the images.

    Raises:
        UserError: none is given, or there is no such folder, or it is a URL.
    """
    if isinstance(root, str):
        remedy = "Only shards are read from a store: data.kind: webdataset."
        raise UserError('key "data.root"', f"the URL {quoted(root)}", "the folder of the images", remedy)
    if root is None:
        raise UserError('key "data.root"', "nothing", "the folder of the images", 'Give it: "data: {root: FOLDER}".')
    if not os.path.isdir(root):  # unlike Path.is_dir, it raises no error of permission
        found = f"{quoted(str(root))}, a file" if os.path.exists(root) else f"no folder {quoted(str(root))}"
        raise UserError('key "data.root"', found, "the folder of the images", "Correct the path.")
    return root


def relative_names(root: Path, names: list[str]) -> list[str]:
    r"""Bring paths, as a table has them, to POSIX form relative to ``root`` where they have one.

    Backslashes separate folders, as on Windows, unless a file of that very name is there. An absolute path inside
    ``root`` becomes relative; ``./a`` and ``b/../a`` become ``a``. What leads outside stays outside.

    >>> relative_names(Path("/data"), ["a.png", "./train//a.png", r"train\a.png", "/data/a.png", "../a.png"])
    ['a.png', 'train/a.png', 'train/a.png', 'a.png', '../a.png']
    """
    starts = [start.rstrip("/") + "/" for start in (_posix(os.path.abspath(root)), _posix(os.path.realpath(root)))]

    def relative(name: str) -> str:
        if "\\" in name and not os.path.lexists(os.path.join(root, name)):
            name = name.replace("\\", "/")
        name = posixpath.normpath(name)
        return next((name[len(start) :] for start in starts if name.startswith(start)), name)

    text = "\n".join(["", *names, ""])
    if not any(mark in text for mark in _MARKS):
        return names  # of a million plain paths no one needs a closer look
    return [relative(name) if _ODD.search(name) else name for name in names]


def check_paths(
    root: Path, names: list[str], place: Callable[[int], str], findings: Findings, what: str = "an image file"
) -> NDArray[np.bool_]:
    """Tell which paths are files that can be read: there, not empty, and inside ``root`` after following links.

    No file is opened, and each folder is resolved once.

    Args:
        root: the folder; it may be a link itself.
        names: N paths relative to it, in POSIX form.
        place: says where a row stands, for messages.
        findings: takes an error for each path that is no such file.
        what: messages expect.

    Returns:
        (N,) bool.
    """
    real_root = os.path.realpath(root)
    folders: dict[str, str | None] = {}  # "train/sick/" -> where it really is; None outside the root
    neighbours: dict[str, dict[str, str]] = {}
    good = np.ones(len(names), dtype=bool)
    for row, name in enumerate(names):
        head = name[: name.rfind("/") + 1]
        if head not in folders:
            folders[head] = _inside(os.path.join(real_root, head), real_root)
        folder, base = folders[head], name[len(head) :]
        if folder is not None and name.isprintable() and _is_plain_file(folder + os.sep + base):
            continue
        good[row] = False
        # Of a million missing files all but the first are counted only.
        absent = folder is not None and base and name.isprintable() and not os.path.lexists(folder + os.sep + base)
        if absent and findings.count_again("missing file"):
            continue
        problem = _problem(name, base, folder, real_root, what)
        if problem is not None:
            kind, found, expected, remedy = problem
            if kind == "missing file":
                expected, remedy = f"{what} in {root}", _near(folder or "", head, base, neighbours)
            findings.error(kind, place(row), found, expected, remedy)
        else:
            good[row] = True
    return good


def _is_plain_file(path: str) -> bool:
    """Tell with one look whether it is a file, no link, not empty, that everyone may read: most are."""
    try:
        status = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(status.st_mode) and status.st_size > 0 and status.st_mode & 0o444 == 0o444


def _problem(name: str, base: str, folder: str | None, real_root: str, what: str) -> Problem | None:
    """Say what is wrong with one path, or nothing."""
    if UNPRINTABLE.search(name):
        return "characters in path", quoted(name), "a path in UTF-8 without control characters", "Rename the file."
    if base in ("", ".", ".."):
        folder, base = _inside(os.path.join(real_root, name), real_root), "."
    if folder is None:
        remedy = 'Set key "data.root" to a folder that holds all images.'
        return "path outside the root", quoted(name), "a file inside the root folder", remedy
    path = folder + os.sep + base
    try:
        status = os.lstat(path)
        if stat.S_ISLNK(status.st_mode):
            target = _inside(path, real_root)
            if target is None:
                found = f"{quoted(name)}, a link that leads outside"
                return "path outside the root", found, "a file inside the root folder", "Put the file itself there."
            status = os.stat(target)
    except (FileNotFoundError, NotADirectoryError):
        return "missing file", f"no file {quoted(name)}", what, ""
    except OSError as error:
        return "unreadable file", f"{quoted(name)} ({error.strerror})", "a file that can be read", ""
    if stat.S_ISDIR(status.st_mode):
        return "not a file", f"{quoted(name)}, a folder", what, ""
    if not stat.S_ISREG(status.st_mode):
        return "not a file", f"{quoted(name)}, a pipe or a device", what, ""
    if status.st_size == 0:
        return "empty file", f"{quoted(name)} of 0 bytes", what, "Fetch the file again."
    if not os.access(path, os.R_OK):
        return "unreadable file", f"{quoted(name)} without permission to read", "a file that can be read", ""
    return None


def _inside(path: str, real_root: str) -> str | None:
    """Give the real path behind links if it is the root or in it."""
    if UNPRINTABLE.search(path):
        return None
    real = os.path.realpath(path)
    return real if real == real_root or real.startswith(real_root.rstrip(os.sep) + os.sep) else None


def _near(folder: str, head: str, base: str, neighbours: dict[str, dict[str, str]]) -> str:
    """Offer a file of the same folder whose name differs in suffix, case or outer blanks only."""
    if folder not in neighbours:
        try:
            files = sorted(os.listdir(folder))
        except OSError:
            files = []
        neighbours[folder] = {_stem(file): file for file in reversed(files)}  # the first of equals stays
    near = neighbours[folder].get(_stem(base))
    if near:
        return f"Did you mean {quoted(head + near)}?"
    return "" if neighbours[folder] else 'Paths start at the folder of key "data.root".'


def _stem(file: str) -> str:
    return alike(posixpath.splitext(file.strip())[0])


def _posix(path: str) -> str:
    return path.replace(os.sep, "/")

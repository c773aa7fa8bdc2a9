"""Passwords in URLs of stores are refused: a URL is kept with the run, shown in messages and told to trackers."""

from __future__ import annotations

import re

from subclass_kd.errors import UserError

# A colon before the first slash that begins no port, nor fsspec's "::". One slash will do, as in a slip or a Path.
# GitHub's and Git's URLs have a repository there, and those of files nobody.
_PASSWORD = re.compile(r"(?<!github)(?<!git)(?<!file):/+[^/\[]*(?<!:):(?!:|\d*(?:/|$))")
FOUND = "a URL with a password in it (not repeated here)"
EXPECTED = "a URL without user:password@"
REMEDY = (
    "Give both to the store's own configuration: fsspec reads FSSPEC_SFTP_USERNAME and FSSPEC_SFTP_PASSWORD "
    "(for SFTP) from the environment, or its files in ~/.config/fsspec."
)


def holds_password(url: str) -> bool:
    """Tell a URL with a password from others.

    >>> [holds_password(f"sftp://{place}/images") for place in ("me:secret@host", "me@host:22", "[::1]:22", "host")]
    [True, False, False, False]
    """
    return _PASSWORD.search(url) is not None


def refuse_password(where: str, url: str) -> None:
    """Refuse a URL that holds a password, without repeating it.

    Raises:
        UserError: it does.
    """
    if holds_password(url):
        raise UserError(where, FOUND, EXPECTED, REMEDY)

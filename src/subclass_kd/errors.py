"""The one exception that speaks to the user."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

MORE_FILES = "Let a process have more files open: ulimit -n 4096. Then run again."


class UserError(Exception):
    """The user's input is wrong: where, what was found, what was expected, and how to mend it.

    The command line prints it as one message without a traceback and exits with code 2.

    Args:
        where: the file, row, column or key, such as ``study.yaml, key "student.epochs"``.
        found: what stands there.
        expected: what may stand there.
        remedy: what to do, as a sentence; empty where ``expected`` says it all.

    >>> print(UserError('study.yaml, key "seeds"', "0", "at least 1", "Leave it out for 5 seeds."))
    study.yaml, key "seeds": found 0; expected at least 1. Leave it out for 5 seeds.
    """

    def __init__(self, where: str, found: str, expected: str, remedy: str = "") -> None:
        super().__init__(where, found, expected, remedy)  # all four in args: it crosses process borders
        self.where, self.found, self.expected, self.remedy = where, found, expected, remedy

    def __str__(self) -> str:
        return _one_line(f"{self.where}: {self.what}")

    @property
    def what(self) -> str:
        """All but the place, as one line."""
        return _one_line(f"found {self.found}; expected {self.expected}. {self.remedy}")


def _one_line(text: str) -> str:
    return " ".join(line.strip() for line in text.splitlines()).strip()  # a library's message may have several


def nearest(word: str, choices: Iterable[str]) -> str:
    """Offer the choice that looks most like a mistyped word, as a sentence, or nothing.

    >>> nearest("modle", ["model", "epochs"])
    'Did you mean "model"?'
    >>> nearest("zzz", ["model", "epochs"])
    ''
    """
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f'Did you mean "{close[0]}"?' if close else ""

"""What is wrong with some data: all of it, counted by kind, so that a user mends everything in one go."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from subclass_kd.errors import UserError

KEPT = 1000  # findings of one kind that are kept; the rest are counted: a bad column has as many as rows

Severity = Literal["error", "warning"]


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong, in the words of :class:`subclass_kd.errors.UserError`."""

    severity: Severity
    kind: str
    where: str
    found: str
    expected: str
    remedy: str = ""


class Findings:
    """A list of findings that counts every one and keeps the first few of each kind.

    Errors stop a run, warnings do not.

    >>> findings = Findings()
    >>> for row in range(2, 2002):
    ...     findings.error("votes", f"votes.csv, row {row}", '"many"', "a whole number")
    >>> findings.errors, len(findings.kept)
    (2000, 1000)
    >>> findings.raise_first()
    Traceback (most recent call last):
    subclass_kd.errors.UserError: votes.csv, row 2: found "many"; expected a whole number. 1999 more errors: ...
    """

    def __init__(self) -> None:
        self.kept: list[Finding] = []
        self.counts: dict[tuple[Severity, str], int] = {}  # (severity, kind) -> how many

    @property
    def errors(self) -> int:
        """How many errors there are."""
        return sum(count for (severity, _), count in self.counts.items() if severity == "error")

    @property
    def warnings(self) -> int:
        """How many warnings there are."""
        return sum(count for (severity, _), count in self.counts.items() if severity == "warning")

    def error(self, kind: str, where: str, found: str, expected: str, remedy: str = "") -> None:
        """Note what stops a run."""
        self._add(Finding("error", kind, where, found, expected, remedy))

    def warning(self, kind: str, where: str, found: str, expected: str, remedy: str = "") -> None:
        """Note what a user should know, and may live with."""
        self._add(Finding("warning", kind, where, found, expected, remedy))

    def count_again(self, kind: str) -> bool:
        """Count one more error of a kind of which enough are kept, so that nobody need put it into words.

        Returns:
            False, and nothing is counted, while findings of this kind are still kept.
        """
        key: tuple[Severity, str] = ("error", kind)
        if self.counts.get(key, 0) < KEPT:
            return False
        self.counts[key] += 1
        return True

    def add(self, error: UserError, kind: str) -> None:
        """Note an error that ended a step."""
        self.error(kind, error.where, error.found, error.expected, error.remedy)

    def raise_first(self) -> None:
        """Raise the first error as a UserError that counts the others; do nothing if there is none."""
        first = next((finding for finding in self.kept if finding.severity == "error"), None)
        if first is not None:
            others = self.errors - 1
            more = f"{others} more error{'s' * (others > 1)}: `skd check` lists them." if others else ""
            raise UserError(first.where, first.found, first.expected, f"{first.remedy} {more}".strip())

    def as_dict(self) -> dict[str, Any]:
        """Give plain values for JSON: totals, counts by kind, and the kept findings."""
        return {
            "errors": self.errors,
            "warnings": self.warnings,
            "counts": [
                {"severity": severity, "kind": kind, "count": count} for (severity, kind), count in self.counts.items()
            ],
            "findings": [asdict(finding) for finding in self.kept],
        }

    def _add(self, finding: Finding) -> None:
        key = (finding.severity, finding.kind)
        self.counts[key] = self.counts.get(key, 0) + 1
        if self.counts[key] <= KEPT:
            self.kept.append(finding)

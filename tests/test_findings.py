"""Findings count everything and keep the first few of each kind."""

import pytest

from subclass_kd.data.findings import KEPT, Findings
from subclass_kd.errors import UserError


def test_errors_and_warnings_are_counted_apart_and_by_kind():
    findings = Findings()
    for number in range(KEPT + 30):
        findings.error("empty", f"row {number}", "nothing", "a label")
        findings.warning("odd", f"row {number}", "1", "2")
    findings.error("missing", "row 7", "no file", "a file", "Fetch it.")
    assert (findings.errors, findings.warnings) == (KEPT + 31, KEPT + 30)
    content = findings.as_dict()
    assert content["counts"] == [
        {"severity": "error", "kind": "empty", "count": KEPT + 30},
        {"severity": "warning", "kind": "odd", "count": KEPT + 30},
        {"severity": "error", "kind": "missing", "count": 1},
    ]
    assert [row["where"] for row in content["findings"] if row["kind"] == "empty"] == [f"row {n}" for n in range(KEPT)]


def test_the_first_error_is_raised_with_the_number_of_the_others_and_warnings_stop_nothing():
    findings = Findings()
    findings.warning("odd", "row 1", "1", "2")
    findings.raise_first()
    findings.error("missing", "row 7", "no file", "a file", "Fetch it.")
    with pytest.raises(UserError, match=r"^row 7: found no file; expected a file. Fetch it.$"):
        findings.raise_first()
    findings.error("empty", "row 8", "nothing", "a label")
    with pytest.raises(UserError, match=r"Fetch it. 1 more error: `skd check` lists them.$"):
        findings.raise_first()


def test_what_is_not_put_into_words_is_counted_all_the_same():
    findings = Findings()
    for number in range(KEPT):
        assert not findings.count_again("missing")
        findings.error("missing", f"row {number}", "no file", "a file")
    assert findings.count_again("missing")
    assert (findings.errors, len(findings.kept)) == (KEPT + 1, KEPT)

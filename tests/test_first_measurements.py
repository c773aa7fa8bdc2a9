"""The first measurements, once more: their studies are those that are told, their section says what the file has."""

import importlib
import json
from argparse import Namespace
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent
JSON = ROOT / "docs/evidence/first-measurements.json"


@pytest.fixture
def first(monkeypatch):
    """Give the module."""
    monkeypatch.syspath_prepend(str(ROOT))
    return importlib.import_module("benchmarks.first_measurements")


def test_the_studies_are_as_first_told(first, tmp_path):
    options = Namespace(seeds=10, workers=1, set=[], runs=tmp_path, chest="chest")
    studies = {name: first.study(name, options) for name in first.MEASUREMENTS}
    assert [study.distillation.temperature for study in studies.values()] == [1, 4, 1, 1]
    assert {study.distillation.alpha for study in studies.values()} == {0.9}
    assert [study.student.options["width"] for study in studies.values()] == [4, 4, 2, 8]
    assert {study.student.epochs for name, study in studies.items() if "X-rays" in name} == {30}
    for study in studies.values():
        assert study.data.folds is None
        assert len(study.seeds) == first.SEEDS
        assert study.arms == list(first.ARMS)


def test_the_section_says_what_the_file_has(first):
    report = json.loads(JSON.read_text("utf-8"))
    text = "\n".join(first.section(JSON))
    assert list(report["rows"]) == list(first.MEASUREMENTS)
    for row in report["rows"].values():
        per_seed = {arm: np.array(values) for arm, values in row["per_seed"].items()}
        assert all(len(values) == row["seeds"] for values in per_seed.values())
        for each in row["differences"]:
            gap = per_seed[each["arm"]] - per_seed[each["reference"]]
            assert each["difference"] == pytest.approx(gap.mean(), abs=1e-9)
            assert f"{100 * gap.mean():+.2f} ({100 * each['ci95'][0]:+.2f}" in text
        gap = per_seed["skd"] - per_seed["scratch"]
        half = first.by_chance(row, "skd", "scratch")
        assert half == pytest.approx(3.18244630528 * gap.std(ddof=1) / 2)
        assert f" {100 * half:.1f} |" in text
    cool, warm = (np.array(row["per_seed"]["skd"]) for row in list(report["rows"].values())[:2])
    assert report["temperatures"]["difference"] == pytest.approx((cool - warm).mean(), abs=1e-9)
    assert {row["parameters"] for name, row in report["rows"].items() if "X-rays" in name} == {1566}


def test_a_missing_file_is_told(first, tmp_path):
    assert first.section(tmp_path / "none.json")[1].startswith("Not yet run: `python -m benchmarks.first_measurements")

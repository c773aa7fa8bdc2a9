"""Cores: those that this process may use, and in a container no more than it has the time of."""

import os

import pytest

from subclass_kd import cores


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """Stand in for a machine of eight cores without a container."""
    monkeypatch.setattr(cores, "CONTROL", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)


def test_without_a_quota_all_cores_count():
    assert cores.count_cores() == 8


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("10000 100000", 1),
        ("900000 100000", 8),
        ("max 100000", 8),
        ("100000 0", 8),
        ("", 8),
    ],
)
def test_a_quota_counts_rounded_up(tmp_path, quota, count):
    (tmp_path / "cpu.max").write_text(f"{quota}\n")
    assert cores.count_cores() == count


@pytest.mark.parametrize(("quota", "count"), [("250000", 3), ("-1", 8)])
def test_a_quota_of_the_first_version_counts_too(tmp_path, quota, count):
    (tmp_path / "cpu").mkdir()
    (tmp_path / "cpu/cpu.cfs_quota_us").write_text(f"{quota}\n")
    (tmp_path / "cpu/cpu.cfs_period_us").write_text("100000\n")
    assert cores.count_cores() == count

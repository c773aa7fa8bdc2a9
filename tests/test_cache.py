"""Where what can be made again is kept."""

from pathlib import Path

import platformdirs
import pytest
from typer.testing import CliRunner

from subclass_kd.cache import cache_folder
from subclass_kd.cli import app


@pytest.fixture(autouse=True)
def restored(monkeypatch):
    monkeypatch.setenv("SUBCLASS_KD_CACHE", "before")


def test_the_cache_folder_is_the_environment_s_or_the_system_s(monkeypatch):
    monkeypatch.setenv("SUBCLASS_KD_CACHE", "~/kept")
    assert cache_folder() == Path.home() / "kept"
    monkeypatch.setenv("SUBCLASS_KD_CACHE", "")
    assert cache_folder() == platformdirs.user_cache_path("subclass-kd")
    monkeypatch.delenv("SUBCLASS_KD_CACHE")
    assert cache_folder() == platformdirs.user_cache_path("subclass-kd")


@pytest.mark.parametrize("command", ["run", "check", "init"])
def test_the_option_is_heard_by_every_command(command, tmp_path, monkeypatch):
    """Each then refuses what is not there."""
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, [command, "none.yaml", "--cache", "here"])
    assert result.exit_code == 1
    assert "none.yaml" in str(result.exception)
    assert cache_folder() == tmp_path / "here"


def test_the_demo_hears_it_too(tmp_path):
    result = CliRunner().invoke(app, ["demo", "--cache", str(tmp_path), "--set", "nonsense=1"])
    assert "nonsense" in str(result.exception)
    assert cache_folder() == tmp_path


def test_without_the_option_the_environment_stays(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    CliRunner().invoke(app, ["run", "none.yaml"])
    assert cache_folder() == Path("before")

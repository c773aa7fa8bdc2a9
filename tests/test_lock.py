"""The lock: one run at a time in a folder, and nothing that is left over keeps anybody out."""

import errno
import json
import os
import signal
import socket
import subprocess
import sys

import pytest

from subclass_kd import lock as room
from subclass_kd.errors import UserError
from subclass_kd.lock import LOCK, FolderLock
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent


def cannot(*_):
    raise OSError(95, "Operation not supported")


HOLD = """
import sys, time
from pathlib import Path
from subclass_kd.lock import FolderLock
with FolderLock(Path(sys.argv[1])) as lock:
    lock.take()
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(popen, tmp_path):
    """Another process that has the folder."""
    process = popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    return process


def test_a_folder_is_locked_until_the_block_ends(tmp_path):
    out = tmp_path / "run"
    with FolderLock(out) as lock:
        assert not out.exists()
        lock.take()
        lock.take()
        with pytest.raises(UserError) as caught, FolderLock(out) as other:
            other.take()
        assert f"a run that goes on (process {os.getpid()} on {socket.gethostname()}, since 20" in str(caught.value)
        assert (out / LOCK).exists()
    assert not (out / LOCK).exists()
    with FolderLock(out) as lock:
        lock.take()


def test_a_process_that_was_killed_locks_nothing(tmp_path, holder):
    with pytest.raises(UserError, match=rf"process {holder.pid} on"), FolderLock(tmp_path) as lock:
        lock.take()
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    assert (tmp_path / LOCK).exists()
    with FolderLock(tmp_path) as lock:
        lock.take()
        assert json.loads((tmp_path / LOCK).read_text())["process"] == os.getpid()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_another_host_is_believed_where_the_system_cannot_lock_and_only_there(tmp_path, monkeypatch):
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026-01-01 00:00:00"}))
    with FolderLock(tmp_path) as lock:  # a container that was started again has another name
        lock.take()
    (tmp_path / LOCK).write_text(json.dumps({"host": "elsewhere", "process": 1, "since": "2026-01-01 00:00:00"}))
    monkeypatch.setattr("fcntl.flock", cannot)
    with pytest.raises(UserError) as caught, FolderLock(tmp_path) as lock:
        lock.take()
    assert "process 1 on elsewhere" in str(caught.value)
    assert f'if it is over there, remove "{tmp_path / LOCK}"' in str(caught.value)
    assert (tmp_path / LOCK).exists()


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")
def test_a_container_that_was_started_again_is_not_kept_out_by_the_process_of_its_own_number(tmp_path, monkeypatch):
    monkeypatch.setattr("fcntl.flock", cannot)
    with FolderLock(tmp_path) as lock:
        lock.take()
        with pytest.raises(UserError, match="a run that goes on"), FolderLock(tmp_path) as other:
            other.take()
        then = json.loads((tmp_path / LOCK).read_text())
    boot, tick = then["began"].split()
    for began in (f"{boot} {int(tick) - 1}", f"another {tick}"):
        (tmp_path / LOCK).write_text(json.dumps({**then, "began": began}))
        with FolderLock(tmp_path) as lock:
            lock.take()
    del then["began"]  # as an older version wrote it
    (tmp_path / LOCK).write_text(json.dumps(then))
    with pytest.raises(UserError, match="a run that goes on"), FolderLock(tmp_path) as lock:
        lock.take()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_who_waits_for_a_lock_that_may_be_a_dead_machines_says_so_once(tmp_path, monkeypatch, capsys):
    from subclass_kd.tune import trial

    monkeypatch.setattr(trial, "QUIET", 0)
    looks = []

    def sleep(_):
        looks.append(1)
        if len(looks) == 3:
            (tmp_path / LOCK).unlink()

    monkeypatch.setattr(trial.time, "sleep", sleep)
    monkeypatch.setattr("fcntl.flock", cannot)
    content = {"host": "elsewhere", "process": 1, "since": "2026-01-01 00:00:00"}
    (tmp_path / LOCK).write_text(json.dumps(content))
    with FolderLock(tmp_path) as lock:
        trial.wait_for(lock)
    assert capsys.readouterr().err == (
        f"skd: waiting: {tmp_path}: found a run that goes on (process 1 on elsewhere, since 2026-01-01 00:00:00); "
        "expected a folder that no other run has. Wait for it, or give another --out; if it is over there, "
        f'remove "{tmp_path / LOCK}".\n'
    )


@pytest.mark.parametrize("content", ["", "{", "[1]"])
def test_a_damaged_lock_locks_nothing(tmp_path, content):
    (tmp_path / LOCK).write_text(content)
    with FolderLock(tmp_path) as lock:
        lock.take()


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_without_locks_of_the_system_a_living_process_is_believed(tmp_path, holder, monkeypatch):
    monkeypatch.setattr("fcntl.flock", cannot)
    with pytest.raises(UserError, match="a run that goes on"), FolderLock(tmp_path) as lock:
        lock.take()
    holder.kill()
    holder.wait()
    with FolderLock(tmp_path) as lock:
        lock.take()


def test_a_lock_that_was_removed_meanwhile_over_nfs_is_made_anew(tmp_path, monkeypatch):
    """Whose run ended between our opening the file and locking it: NFS version 3 knows it no more."""
    looks, look = [], os.fstat

    def stale_at_first(number):
        looks.append(number)
        if len(looks) == 1:
            (tmp_path / LOCK).unlink()
            raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))
        return look(number)

    with FolderLock(tmp_path) as lock:
        with monkeypatch.context() as patched:
            patched.setattr(room.os, "fstat", stale_at_first)
            lock.take()
        assert len(looks) == 2
        with pytest.raises(UserError, match="a run that goes on"), FolderLock(tmp_path) as other:
            other.take()


def test_a_second_run_is_refused_and_loses_nothing(tmp_path):
    study = make_study({"data": {"train_images": 200}, "arms": ["scratch"], "seeds": 1, "workers": 1, "device": "cpu",
                        "student": {"options": {"width": 4}, "epochs": 1}})  # fmt: skip
    refused = []

    class Second(Silent):
        def begin(self, jobs, finished, workers, arithmetic):
            with pytest.raises(UserError) as caught:
                run_study(study, tmp_path / "run")
            refused.append(str(caught.value))

    results = run_study(study, tmp_path / "run", Second())
    assert len(refused) == 1
    assert "a run that goes on" in refused[0]
    assert not (tmp_path / "run" / LOCK).exists()
    assert run_study(study, tmp_path / "run") == results


def test_a_lock_alone_makes_no_folder_full(tmp_path):
    (tmp_path / LOCK).write_text("")
    study = make_study({"arms": ["scratch"], "seeds": 1, "student": {"model": "small:convnet"}})
    from subclass_kd.run_folder import check_folder

    check_folder(study, tmp_path)
    assert room.LOCK == ".lock"

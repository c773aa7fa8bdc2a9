"""Files appear whole or not at all; fingerprints change with what they mark, and with nothing else."""

import hashlib
import json
import os
import socket
import stat
import subprocess
import sys

import pytest

from subclass_kd.errors import UserError
from subclass_kd.files import fingerprint, remove_left, require_json, whole, write_json


def test_a_block_that_ends_well_leaves_the_new_file_alone(tmp_path):
    path = tmp_path / "deep" / "folder" / "file"
    for content in ("first", "second"):
        with whole(path) as temporary:
            assert temporary.parent == path.parent  # the same file system, so that the rename is one step
            temporary.write_text(content)
        assert path.read_text() == content
        assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_a_block_that_fails_leaves_the_old_file_and_no_other(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def stop_half_way():
        with whole(path) as temporary:
            temporary.write_text("half of the n")
            raise error

    with pytest.raises(error):
        stop_half_way()
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_until_the_block_ends_the_old_file_is_what_a_reader_sees(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    with whole(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"


def test_two_processes_of_one_number_each_write_a_whole_file(tmp_path):
    """As in containers that share a folder and the host's name."""
    path = tmp_path / "file"
    with whole(path) as first, first.open("wb") as file:
        file.write(b"1" * 100_000)
        with whole(path) as second:
            second.write_bytes(b"2" * 50_000)
        assert path.read_bytes() == b"2" * 50_000
        file.write(b"1" * 100_000)
    assert path.read_bytes() == b"1" * 200_000
    assert list(tmp_path.iterdir()) == [path]


HOST = socket.gethostname()


@pytest.fixture
def ended():
    """Give the number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(60)
    return process.pid


def replaced(temporary):
    """Write as safetensors does: a file of its own in place of the first."""
    temporary.unlink()
    temporary.write_text("new")


@pytest.mark.parametrize("write", [lambda temporary: temporary.write_text("new"), replaced])
def test_what_a_living_process_writes_stays_whatever_its_number_means_here(tmp_path, monkeypatch, ended, write):
    """In a container of this host, it may be a number that nobody has outside, or this process's own."""
    for number in (ended, os.getpid()):
        with monkeypatch.context() as patched:
            patched.setattr("os.getpid", lambda number=number: number)
            writing = whole(tmp_path / "file")
            temporary = writing.__enter__()
        write(temporary)
        remove_left(tmp_path)
        assert temporary.read_text() == "new"
        writing.__exit__(None, None, None)
        assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("locked", [True, False])
def test_what_a_killed_process_of_this_host_left_is_removed_and_nothing_else(tmp_path, ended, locked):
    """Also where this process has its number, as in a container that was started again."""
    removed = [f".a.npy.{HOST}-{ended}-0123abcd.part", f".b.c.{HOST}-{os.getpid()}-0123abcd.part"]
    kept = [
        f".a.npy.other-{ended}-0123abcd.part",
        f".a.npy.not-{HOST}-{ended}-0123abcd.part",
        f".a.npy.{HOST}-{ended}x-0123abcd.part",
        f".{HOST}-{ended}-0123abcd.part",
        f"a.npy.{HOST}-{ended}-0123abcd.part",
        "a.npy",
    ]
    locks = [name.replace(".part", ".lock.part") for name in removed] if locked else []
    for name in removed + kept + locks:
        (tmp_path / name).touch()
    remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_left(tmp_path / "not there")


@pytest.mark.skipif(sys.platform == "win32", reason="flock is POSIX's")
def test_where_the_file_system_cannot_lock_a_living_number_is_believed(tmp_path, ended, monkeypatch):
    def cannot(*_):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", cannot)
    for number in (ended, os.getpid(), 1):
        for suffix in (".part", ".lock.part"):
            (tmp_path / f".a.npy.{HOST}-{number}-0123abcd{suffix}").touch()
    remove_left(tmp_path)
    there = sorted(path.name for path in tmp_path.iterdir() if not path.name.endswith(".lock.part"))
    assert there == sorted(f".a.npy.{HOST}-{number}-0123abcd.part" for number in (os.getpid(), 1))
    with whole(tmp_path / "file") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "file").read_text() == "new"


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_are_those_that_the_users_umask_leaves(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        with whole(tmp_path / "file") as temporary:  # as safetensors does: a file of its own in place of the first
            temporary.unlink()
            os.close(os.open(temporary, os.O_CREAT | os.O_WRONLY, 0o600))
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == mode


def test_json_is_readable_by_any_reader_and_a_nan_leaves_nothing(tmp_path):
    path = tmp_path / "results.json"
    write_json(path, {"name": "Müller", "value": [1.5, None]})
    assert path.read_text("utf-8") == '{\n  "name": "Müller",\n  "value": [\n    1.5,\n    null\n  ]\n}\n'
    with pytest.raises(ValueError, match="JSON"):
        write_json(path, {"value": float("nan")})
    assert json.loads(path.read_text("utf-8"))["name"] == "Müller"
    assert list(tmp_path.iterdir()) == [path]


def test_a_fingerprint_is_the_same_in_every_process_and_sixteen_digits():
    # SHA-256 of each part's length in 8 bytes, little-endian, and its JSON.
    by_hand = hashlib.sha256(b"\x03" + bytes(7) + b'"a"' + b"\x01" + bytes(7) + b"1").hexdigest()[:16]
    assert fingerprint("a", 1) == by_hand == "c44f3e533cb2a8d5"
    assert fingerprint({"b": 1, "a": 2}) == fingerprint({"a": 2, "b": 1})


def test_a_fingerprint_keeps_its_parts_apart_and_in_order():
    marks = [fingerprint("ab", "c"), fingerprint("a", "bc"), fingerprint("abc"), fingerprint("c", "ab"), fingerprint()]
    assert len(set(marks)) == 5
    assert fingerprint(b"ab", b"c") != fingerprint(b"a", b"bc")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "run: found no a.json; expected a run. Make it."),
        ("{", "a.json: found a file that cannot be read (Expecting property name"),
        ("[1]", "a.json: found no keys and values; expected a whole file. Mend it."),
        ("[" * 100_000, "a.json: found a file that cannot be read (maximum recursion depth"),
        (b"\xff", "a.json: found a file that cannot be read ('utf-8' codec can't decode"),
    ],
)
def test_json_that_is_needed_is_read_or_refused(content, message, tmp_path):
    (path := tmp_path / "run/a.json").parent.mkdir()
    if content is not None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError) as caught:
        require_json(path, "a run", "Make it.", "Mend it.")
    assert message in str(caught.value)
    path.write_text('{"a": 1}')
    assert require_json(path, "a run", "Make it.", "Mend it.") == {"a": 1}

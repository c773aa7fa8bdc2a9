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


@pytest.mark.skipif(sys.platform == "win32", reason="cannot ask for a process")
def test_what_a_dead_process_of_this_host_left_is_removed_and_nothing_else(tmp_path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(60)
    host = socket.gethostname()
    removed = [f".a.npy.{host}-{ended.pid}.part", f".b.c.{host}-{ended.pid}.part"]
    kept = [
        f".a.npy.{host}-{os.getpid()}.part",
        f".a.npy.{host}-1.part",
        f".a.npy.other-{ended.pid}.part",
        f".a.npy.not-{host}-{ended.pid}.part",
        f".a.npy.{host}-{ended.pid}x.part",
        f".{host}-{ended.pid}.part",
        f"a.npy.{host}-{ended.pid}.part",
        "a.npy",
    ]
    for name in removed + kept:
        (tmp_path / name).touch()
    remove_left(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == set(kept)
    remove_left(tmp_path / "not there")


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

"""Paths of images: which are files that can be read, and which are refused."""

import os
import socket
from pathlib import Path

import pytest

from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import check_paths, check_root, relative_names
from subclass_kd.errors import UserError


def check(root, *names):
    findings = Findings()
    good = check_paths(root, list(names), lambda row: f"row {row}", findings)
    assert good.shape == (len(names),)
    return good.tolist(), findings.kept


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "root"
    for name in ("a.png", "train/b.png", "train/C.JPG"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    (folder / "empty.png").touch()
    (tmp_path / "outside.png").write_bytes(b"x")
    (tmp_path / "root2").mkdir()
    (tmp_path / "root2/a.png").write_bytes(b"x")
    return folder


def test_files_are_there_also_where_the_root_is_a_link(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    for folder in (root, tmp_path / "link"):
        assert check(folder, "a.png", "train/b.png", "train/../a.png", str(root / "a.png")) == ([True] * 4, [])


@pytest.mark.parametrize(
    ("name", "kind", "found", "remedy"),
    [
        ("x.png", "missing file", 'no file "x.png"', ""),
        ("a.jpeg", "missing file", 'no file "a.jpeg"', 'Did you mean "a.png"?'),
        ("train/B.png", "missing file", 'no file "train/B.png"', 'Did you mean "train/b.png"?'),
        (" a.png", "missing file", 'no file " a.png"', 'Did you mean "a.png"?'),
        ("test/b.png", "missing file", 'no file "test/b.png"', 'Paths start at the folder of key "data.root".'),
        ("a.png/b.png", "missing file", 'no file "a.png/b.png"', ""),
        ("empty.png", "empty file", '"empty.png" of 0 bytes', "Fetch the file again."),
        ("train", "not a file", '"train", a folder', ""),
        ("train/", "not a file", '"train/", a folder', ""),
        (".", "not a file", '".", a folder', ""),
        ("../outside.png", "path outside the root", '"../outside.png"', 'Set key "data.root"'),
        ("..", "path outside the root", '".."', ""),
        ("train/../../outside.png", "path outside the root", '"train/../../outside.png"', ""),
        ("../root2/a.png", "path outside the root", '"../root2/a.png"', ""),
        ("../nowhere/x.png", "path outside the root", '"../nowhere/x.png"', ""),
        ("/etc/passwd", "path outside the root", '"/etc/passwd"', ""),
        ("/passwd", "path outside the root", '"/passwd"', ""),
        ("a\0.png", "characters in path", r'"a\x00.png"', "Rename the file."),
        ("train\n/b.png", "characters in path", r'"train\n/b.png"', "Rename the file."),
        ("b\udcff.png", "characters in path", r'"b\udcff.png"', "Rename the file."),
        ("x" * 300 + ".png", "unreadable file", "File name too long", ""),
    ],
)
def test_what_is_no_file_in_the_root_is_refused(root, name, kind, found, remedy):
    good, (finding,) = check(root, "a.png", name)
    assert good == [True, False]
    assert (finding.severity, finding.kind, finding.where) == ("error", kind, "row 1")
    assert found in finding.found
    assert finding.remedy.startswith(remedy)


def test_a_link_may_lead_to_a_file_inside_the_root_only(root):
    links = {
        "in.png": root / "a.png",
        "out.png": root.parent / "outside.png",
        "broken.png": root / "nowhere.png",
        "loop.png": root / "loop.png",
        "void.png": root / "empty.png",
        "folder.png": root / "train",
        "far": root.parent / "root2",
        "near": root / "train",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    good, kept = check(root, *list(links)[:6], "far/a.png", "near/b.png")
    assert good == [True, False, False, False, False, False, False, True]
    assert [finding.kind for finding in kept] == [
        "path outside the root", "missing file", "unreadable file", "empty file", "not a file", "path outside the root",
    ]  # fmt: skip
    assert kept[0].found == '"out.png", a link that leads outside'


def test_a_pipe_a_socket_and_a_device_are_not_opened(root):
    os.mkfifo(root / "pipe.png")
    with socket.socket(socket.AF_UNIX) as unix:
        unix.bind(os.path.relpath(root / "s.png"))  # the name of a socket must be short
        good, kept = check(root, "pipe.png", "s.png")
    assert good == [False, False]
    assert [finding.found for finding in kept] == [
        '"pipe.png", a pipe or a device', '"s.png", a pipe or a device',
    ]  # fmt: skip


def test_a_file_without_permission_is_refused(root, monkeypatch):
    (root / "a.png").chmod(0)
    (root / "train/b.png").chmod(0o600)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & 0o400))  # root may read anything
    good, (finding,) = check(root, "a.png", "train/b.png")
    assert good == [False, True]
    assert finding.kind == "unreadable file"


def test_paths_of_windows_and_absolute_ones_become_posix_and_relative(root, tmp_path):
    (root / "odd\\name.png").write_bytes(b"x")
    (tmp_path / "link").symlink_to(root)
    given = [
        "train\\b.png", "odd\\name.png", "./a.png", "train//b.png", "train/./b.png", "train/../a.png",
        str(root / "a.png"), "../outside.png", "..\\outside.png", "C:\\data\\a.png", ".hidden/a.png", "a.png",
    ]  # fmt: skip
    assert relative_names(root, given) == [
        "train/b.png", "odd\\name.png", "a.png", "train/b.png", "train/b.png", "a.png", "a.png",
        "../outside.png", "../outside.png", "C:/data/a.png", ".hidden/a.png", "a.png",
    ]  # fmt: skip
    assert relative_names(tmp_path / "link", [str(root / "a.png"), str(tmp_path / "link/a.png")]) == ["a.png", "a.png"]
    assert relative_names(root, ["a.png", "train/b.png"]) == ["a.png", "train/b.png"]


@pytest.mark.parametrize(
    ("root", "found"), [(None, "nothing"), (Path("nowhere"), 'no folder "nowhere"'), (Path(__file__), "a file")]
)
def test_a_root_that_is_no_folder_is_refused(root, found):
    with pytest.raises(UserError) as caught:
        check_root(root)
    assert caught.value.where == 'key "data.root"'
    assert found in caught.value.found

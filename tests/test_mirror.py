"""A file in a store is the old one or the whole new one, also where the store is a file system."""

import ftplib
from pathlib import Path

import pytest

from subclass_kd import mirror
from subclass_kd.errors import UserError

local = pytest.importorskip("fsspec.implementations.local").LocalFileSystem


@pytest.fixture
def checkpoint(tmp_path):
    """Give a folder in a store and a file to put there."""
    file = tmp_path / "here/.a.checkpoint"
    file.parent.mkdir()
    file.write_text("step 7")
    return mirror.RemoteFolder(f"file://{tmp_path}/store"), file


def stored(tmp_path):
    return {path.name: path.read_text() for path in (tmp_path / "store").rglob("*") if path.is_file()}


def test_a_machine_that_dies_while_it_puts_a_checkpoint_leaves_the_one_before(checkpoint, tmp_path, monkeypatch):
    (remote, file), path = checkpoint, "students/.a.checkpoint"
    remote.put(file, path)
    assert stored(tmp_path) == {".a.checkpoint": "step 7"}
    file.write_text("step 14")

    def dies(self, source, target, **_):
        Path(target).write_text(Path(source).read_text()[:4])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(local, "put_file", dies)
        with pytest.raises(KeyboardInterrupt):
            remote.put(file, path)
    assert stored(tmp_path) == {".a.checkpoint": "step 7", "..a.checkpoint.part": "step"}
    with mirror.mirrored(remote.url) as copy:
        assert not copy.folder.exists()  # hidden files are no part of a run
    # What begins again has the one before, and nothing of either is left when it ends.
    with mirror.kept_in_store(remote, tmp_path / "there", path):
        assert (tmp_path / "there" / path).read_text() == "step 7"
    assert stored(tmp_path) == {}


@pytest.mark.parametrize("refuses", [True, False], ids=["as SMB", "as WebHDFS"])
def test_a_store_whose_rename_replaces_nothing_has_the_new_file_too(checkpoint, tmp_path, monkeypatch, refuses):
    remote, file = checkpoint

    def move(self, source, target):
        if not Path(target).exists():
            Path(source).rename(target)
        elif refuses:
            raise FileExistsError(target)

    monkeypatch.setattr(local, "mv", move)
    for text in ("step 7", "step 14"):
        file.write_text(text)
        remote.put(file, ".a.checkpoint")
        assert stored(tmp_path) == {".a.checkpoint": text}
    monkeypatch.setattr(local, "mv", lambda *_: None)  # nor does it rename at all
    file.write_text("step 21")
    remote.put(file, ".a.checkpoint")
    assert stored(tmp_path) == {".a.checkpoint": "step 21"}


@pytest.mark.parametrize("error", [ftplib.error_perm("550 No such file"), OSError("STATUS_OBJECT_NAME_NOT_FOUND")])
def test_a_store_with_an_error_of_its_own_for_no_file_loses_no_finished_job(checkpoint, tmp_path, monkeypatch, error):
    """As FTP and SMB: a job shorter than a look at its checkpoint has put none, and nothing is left of one."""
    (remote, file), path, refuses = checkpoint, ".a.checkpoint", []

    def remove(self, target):
        if refuses or not Path(target).exists():
            raise error
        Path(target).unlink()

    monkeypatch.setattr(local, "rm_file", remove)
    with mirror.kept_in_store(remote, tmp_path / "there", path):
        pass
    remote.put(file, path)
    refuses.append(True)
    with pytest.raises(UserError, match=f"{path}: found {type(error).__name__}: "):
        remote.remove(path)
    refuses.clear()
    remote.remove(path)
    assert stored(tmp_path) == {}

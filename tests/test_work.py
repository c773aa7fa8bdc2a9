"""What a job meets that is not its own fault is told as the user's to mend."""

import errno
import os

import pytest

from subclass_kd import work
from subclass_kd.errors import UserError
from subclass_kd.plan import Job


@pytest.mark.parametrize(
    ("number", "what"),
    [
        (errno.ENOSPC, "a disk to read from and write to. Mend that and run again."),
        (
            errno.EMFILE,
            "a limit that leaves room for what the run opens. "
            "Let a process have more files open: ulimit -n 4096. Then run again.",
        ),
    ],
)
def test_an_error_of_the_system_has_its_own_remedy(tmp_path, monkeypatch, number, what):
    def fail(*_):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(work, "_make", fail)
    monkeypatch.setattr(work, "Bench", lambda *_: None)
    job = Job("students", "kd", 0, (), "recipe")
    with pytest.raises(UserError) as caught:
        work.make(None, None, tmp_path, [job], None, lambda *_: None)
    assert str(caught.value) == f"{tmp_path / job.path}: found {os.strerror(number)}; expected {what}"

"""A disk that is full while tensors are written: one message, nothing left beside the file, and the run goes on."""

import json
import os
import signal
import sys

import pytest

from subclass_kd import store
from subclass_kd.study import _tidy

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="limits are those of POSIX")

LIMIT = 60_000  # bytes that a file may have: more than any of the run's but the weights of its teacher
LIMITED = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({LIMIT}, {LIMIT}))\n"  # Python ignores SIGXFSZ
RUN = "import sys; from subclass_kd import cli; cli.main(sys.argv[1:])"
STUDY = {
    "teacher": {"options": {"width": 8}, "epochs": 1},
    "student": {"options": {"width": 4}, "epochs": 1},
    "distillation": {"views": 1},
    "arms": ["kd"],
    "seeds": 1,
    "workers": 1,
    "device": "cpu",
}


def test_a_run_whose_disk_is_full_while_weights_are_written_says_so_and_goes_on(python, small_idx_folder, tmp_path):
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(json.dumps(STUDY | {"data": {"kind": "fashion-mnist", "root": str(small_idx_folder)}}))
    path = out / "teachers/class-seed0.safetensors"
    command = ("run", str(study), "--out", str(out))
    full = python("-c", LIMITED + RUN, *command, COLUMNS="1000")
    assert (out / "samples.csv").exists()  # it came as far as the training
    assert full.returncode == 2
    assert f"{path}: found File too large; expected a disk to read from and write to." in full.stderr
    assert "Traceback" not in full.stderr
    assert list((out / "teachers").iterdir()) == []
    after = python("-c", RUN, *command)
    assert after.returncode == 0, after.stderr
    assert path.stat().st_size > LIMIT
    assert max(other.stat().st_size for other in out.rglob("*.*") if other not in (path, out / "report.html")) < LIMIT


def test_what_a_process_leaves_that_is_killed_in_the_middle_of_a_tensor_is_tidied_up(python, tmp_path):
    script = """
import signal, sys, torch
from pathlib import Path
from subclass_kd import store
signal.signal(signal.SIGXFSZ, signal.SIG_DFL)  # which kills
store.save(Path(sys.argv[1]), {"a": torch.ones(100_000)}, "recipe", {})
"""
    folder = tmp_path / "teachers"
    killed = python("-c", LIMITED + script, str(folder / "a.safetensors"))
    assert killed.returncode == -signal.SIGXFSZ
    left = list(folder.iterdir())
    assert max(path.stat().st_size for path in left) == LIMIT  # it was in the middle
    assert not store.is_valid(folder / "a.safetensors", "recipe")
    _tidy(tmp_path)
    assert os.listdir(folder) == []


def test_an_export_whose_disk_is_full_while_weights_are_written_says_so_and_leaves_nothing(python, tmp_path):
    script = """
import sys, torch
from pathlib import Path
from types import SimpleNamespace
from subclass_kd import export, store
from subclass_kd.errors import UserError
from subclass_kd.study_file import make_study
LIMITED
store.load = lambda path: {"a": torch.ones(100_000)}
run = SimpleNamespace(folder=Path("run"), study=make_study({}))
best = SimpleNamespace(weights="students/skd-seed0.safetensors", arm="skd", seed=0)
try:
    with export._appearing(Path(sys.argv[1])) as folder:
        export._write_weights(folder / "model.safetensors", run, best)
except UserError as error:
    print(error)
"""
    done = python("-c", script.replace("LIMITED", LIMITED), str(tmp_path / "bundle"))
    expected = f"{tmp_path / 'bundle'}: found File too large; expected a folder that can be written. Give another -o.\n"
    assert (done.stdout, done.stderr) == (expected, "")
    assert os.listdir(tmp_path) == []

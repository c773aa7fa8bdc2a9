"""The command line as a user meets it: what it prints, where, and with which exit code."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

SKD = [sys.executable, "-m", "subclass_kd.cli"]


@pytest.fixture
def study_file(small_idx_folder, tmp_path):
    """A study of two arms that takes seconds."""
    content = {
        "data": {"kind": "fashion-mnist", "root": str(small_idx_folder)},
        "teacher": {"options": {"width": 4}, "epochs": 1},
        "student": {"options": {"width": 4}, "epochs": 2},
        "distillation": {"views": 2},
        "arms": ["scratch", "skd"],
        "seeds": 2,
        "workers": 1,
    }
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


def test_run_prints_the_answer_first_then_tables_and_where_the_files_are(skd, study_file, tmp_path):
    command = [*SKD, "run", study_file]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    lines = [line for line in done.stdout.splitlines() if line.strip()]
    assert lines[0].startswith(("skd beats scratch by", "skd is worse than scratch", "Inconclusive: skd minus scratch"))
    for text in ("scratch", "skd", "teacher: subclass", "skd - scratch", "Label bits", "skd-runs/study/report.html"):
        assert text in done.stdout
    assert max(len(line) for line in done.stdout.splitlines() if not line.startswith("Files:")) <= 80
    # Progress goes to the other stream, a line for each training: one teacher and two students, twice.
    trainings = [line for line in done.stderr.splitlines() if ": epoch " in line]
    assert len(trainings) == 6
    assert "teacher subclass, seed 0: epoch 1 of 1, loss " in trainings[0]

    again = skd("run", study_file, "--json", cwd=tmp_path)
    assert again.returncode == 0
    assert again.stderr == ""  # nothing to make
    assert json.loads(again.stdout) == json.loads((tmp_path / "skd-runs/study/results.json").read_text())
    assert (tmp_path / "skd-runs/study/report.html").exists()


def test_run_takes_workers_out_and_changed_keys(skd, study_file, tmp_path):
    arguments = ["--out", "here", "--workers", "2", "--set", "seeds=[7]", "--set", "arms=[scratch]", "--json"]
    done = skd("run", study_file, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout)
    assert results["study"]["seeds"] == [7]
    assert results["comparisons"] == []
    assert (tmp_path / "here/students/scratch-seed7.safetensors").exists()
    assert not (tmp_path / "here/teachers").exists()


def test_demo_runs_on_what_the_package_holds(skd, tmp_path):
    arguments = ["--seeds", "1", "--set", "teacher.epochs=1", "--set", "student.epochs=1", "--set", "arms=[skd]"]
    done = skd("demo", *arguments, "--workers", "1", "--json", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    data = json.loads(done.stdout)["data"]
    assert len(data["subclasses"]) == 10
    assert sum(row["test"] for row in data["subclasses"]) == 3500


@pytest.mark.parametrize(("workers", "asked"), [(1, signal.SIGINT), (2, signal.SIGTERM)])
def test_an_interrupted_run_says_how_to_go_on_and_goes_on(skd, popen, study_file, tmp_path, workers, asked):
    command = [*SKD, "run", str(study_file), "--set", "student.epochs=15", "--workers", str(workers)]
    process = popen(
        command,
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs have it ignored
    )
    students = tmp_path / "skd-runs/study/students"
    deadline = time.monotonic() + 120
    while not (students.exists() and any(students.glob("*.safetensors"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(asked)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + asked, errors
    assert "Interrupted. What a run has finished is kept" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert not (tmp_path / "skd-runs/study/results.json").exists()
    done = skd("run", study_file, "--set", "student.epochs=15", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "kept from before" in done.stderr


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_workers_end_with_a_parent_that_was_killed(popen, study_file, tmp_path):
    command = [*SKD, "run", str(study_file), "--set", "student.epochs=2000", "--workers", "2"]
    process = popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    teachers = tmp_path / "skd-runs/study/teachers"
    deadline = time.monotonic() + 120
    while not (teachers.exists() and any(teachers.glob("*.safetensors"))):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    workers = [int(child) for child in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    assert len(workers) >= 2
    process.kill()
    process.wait()
    deadline = time.monotonic() + 30
    while any(Path(f"/proc/{worker}/cmdline").exists() for worker in workers):
        assert time.monotonic() < deadline, "workers outlive their parent"
        time.sleep(0.1)

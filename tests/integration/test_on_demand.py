"""A study whose images are decoded at each epoch: the results of the store, and no process left behind."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

SKD = [sys.executable, "-m", "subclass_kd.cli"]
MARK = "SUBCLASS_KD_TEST_MARK"  # in the environment of every process that a run starts, and of no other


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """Give a folder of 2 classes of 2 subclasses, 24 colour images of 20 x 20 each."""
    folder = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for label, (name, subclass) in enumerate([("a", "p"), ("a", "q"), ("b", "r"), ("b", "s")]):
        (folder / name / subclass).mkdir(parents=True)
        for number in range(24):
            image = np.clip(60 * label + random.normal(40, 25, (20, 20, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(image).save(folder / name / subclass / f"{number}.png")
    return folder


def content(root, **changes):
    return {
        "data": {"kind": "folder", "root": str(root), "size": 16, "store_limit": 50.0},
        "teacher": {"model": "small:resnet", "options": {"width": 4}, "epochs": 2, "batch_size": 16},
        "student": {"model": "small:convnet", "options": {"width": 4}, "epochs": 2, "batch_size": 16},
        "distillation": {"views": 2},
        "arms": ["scratch", "skd"],
        "seeds": 2,
        "workers": 1,
        "device": "cpu",
        **changes,
    }


def without_timings(content):
    if isinstance(content, dict):
        return {key: without_timings(value) for key, value in content.items() if not key.endswith("seconds")}
    return [without_timings(item) for item in content] if isinstance(content, list) else content


@pytest.fixture(scope="module")
def stored(root, tmp_path_factory):
    """Give the folder and the results of the study with a store."""
    out = tmp_path_factory.mktemp("runs") / "stored"
    return out, run_study(make_study(content(root)), out)


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_those_of_the_store_but_for_timings(root, stored, tmp_path, workers):
    study = content(root, workers=workers)
    study["data"]["store_limit"] = 0.0
    decoded = run_study(make_study(study), tmp_path / "decoded")
    assert json.dumps(without_timings(decoded)) == json.dumps(without_timings(stored[1]))


def test_a_run_goes_on_with_another_limit(root, stored):
    study = content(root)
    study["data"]["store_limit"] = 0.0
    out, results = stored
    assert json.dumps(run_study(make_study(study), out)) == json.dumps(results)


# Processes


def left():
    """Give the processes that were started with the mark."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}=1".encode() in (process / "environ").read_bytes() and (process / "cmdline").read_bytes():
                found.append(int(process.name))
        except OSError:
            continue
    return [number for number in found if number != os.getpid()]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize(("workers", "strike"), [(1, "SIGINT"), (2, "SIGINT"), (2, "SIGKILL")])
def test_no_process_is_left_however_a_run_ends(popen, root, tmp_path, workers, strike):
    study = content(root, workers=workers)
    study["data"]["store_limit"], study["student"]["epochs"] = 0.0, 2000
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(study))
    process = popen(
        [*SKD, "run", "study.yaml"],
        cwd=tmp_path,
        env={**os.environ, MARK: "1"},
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,  # Ctrl-C goes to every process of the group
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    teachers = tmp_path / "skd-runs/study/teachers"
    deadline = time.monotonic() + 120
    while not (teachers.exists() and any(teachers.glob("*.safetensors"))):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert len(left()) > 2 * workers
    if strike == "SIGINT":
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 130, errors
        assert "Traceback" not in errors
    else:
        process.kill()
        process.communicate(timeout=30)
    deadline = time.monotonic() + 30
    while running := left():
        assert time.monotonic() < deadline, running
        time.sleep(0.1)

"""A search whose processes are killed goes on where it was, by equal trials, and never opens a test image."""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from PIL import Image

from subclass_kd import store
from subclass_kd.data.fashion_mnist import NAMES, read_idx
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.study_file import load_study
from subclass_kd.tune.search import tune

SEARCH = """
import sys
from pathlib import Path
from subclass_kd.study_file import load_study
from subclass_kd.tune.search import tune
tune(load_study(Path(sys.argv[1])), Path(sys.argv[2]), grace=3)
"""
STUDY = """
data: {{kind: folder, root: "{root}"}}
hierarchy: {{upper: [Pullover, Coat], lower: [Dress, Bag]}}
teacher: {{options: {{width: 4}}, epochs: 2}}
student: {{options: {{width: 4}}, epochs: 8}}
distillation: {{views: 2}}
arms: [scratch, skd]
seeds: 1
workers: 2
device: cpu
tune: {{trials: 3}}
"""
USED = ["Pullover", "Coat", "Dress", "Bag"]


@pytest.fixture(scope="module")
def study_file(small_idx_folder, tmp_path_factory):
    """A study of a folder whose test images are not images."""
    folder = tmp_path_factory.mktemp("tune")
    images = read_idx(small_idx_folder / "train-images-idx3-ubyte", dimensions=3)
    labels = read_idx(small_idx_folder / "train-labels-idx1-ubyte", dimensions=1)
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        if (name := NAMES[label]) in USED:
            for split in ("train", "test"):
                path = folder / "data" / split / name / f"{number}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                if split == "train":
                    Image.fromarray(image).save(path)
                else:
                    path.write_bytes(b"nobody may read this")
    path = folder / "study.yaml"
    path.write_text(STUDY.format(root=folder / "data"))
    with pytest.raises(UserError, match="159 more errors"):
        load_samples(load_study(path))
    return path


def began(out, process):
    """Wait until a trial trains its student."""
    until = time.monotonic() + 100
    while not list(out.glob("trials/*/students/.*.lock")):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.005)


def test_a_killed_search_goes_on_with_equal_trials_and_leaves_the_test_split_alone(popen, study_file, tmp_path):
    study, out = load_study(study_file), tmp_path / "search"
    killed = popen(
        [sys.executable, "-c", SEARCH, study_file, out], start_new_session=True, stderr=subprocess.PIPE, text=True
    )
    began(out, killed)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.wait()
    # Another one was killed just after it took a trial, before its first heartbeat: that trial is not waited for.
    url = f"sqlite:///{out}/tune.db"
    name = next(name for name in optuna.get_all_study_names(url) if name.endswith(" scratch"))
    orphan = optuna.load_study(study_name=name, storage=url).ask().number
    teacher = out / "teachers/subclass-seed0.safetensors"
    before = teacher.stat().st_mtime_ns if teacher.exists() else None
    told = []
    found = tune(study, out, on_trial=lambda arm, trial: told.append((arm, trial.number)), grace=3)
    assert [(arm, row["trials"]) for arm, row in found["arms"].items()] == [("scratch", 3), ("skd", 3)]
    assert len(told) == 6
    assert any(trial["went_on_from"] for row in found["arms"].values() for trial in row["all"])
    assert optuna.load_study(study_name=name, storage=url).get_trials()[orphan].state == TrialState.FAIL
    assert before is None or teacher.stat().st_mtime_ns == before
    assert not list(out.rglob("predictions"))
    assert [row["test"] for row in found["data"]["subclasses"]] == [0, 0, 0, 0]
    for arm, row in found["arms"].items():  # what a trial is worth is what its training recorded
        kept = [store.notes(path) for path in out.glob(f"trials/{arm}-*/students/*.safetensors")]
        values = [trial["validation_f1"] for trial in row["all"] if not trial["pruned"]]
        assert sorted(note["best"]["validation_f1"] for note in kept) == sorted(values)
    # Given again it trains nothing; one more trial of each arm is added to what is there.
    assert json.dumps(tune(study, out)) == json.dumps(found)
    more = tune(load_study(study_file, ["tune.trials=4", "workers=1"]), out)
    assert [row["trials"] for row in more["arms"].values()] == [4, 4]
    assert more["arms"]["skd"]["all"][:3] == found["arms"]["skd"]["all"][:3]
    assert len(list(out.glob("teachers/*"))) == 1
    with pytest.raises(UserError, match=r"student\.epochs: 8 before, 9 now"):
        tune(load_study(study_file, ["student.epochs=9"]), out)


def test_what_is_decoded_in_each_epoch_is_worth_what_a_store_is(study_file, tmp_path):
    changes = ["workers=1", "tune.trials=1", "arms=[scratch]", "student.epochs=1"]
    stored, decoded = (
        tune(load_study(study_file, [*changes, *more]), tmp_path / name)["arms"]["scratch"]["best"]
        for name, more in {"stored": [], "decoded": ["data.store_limit=0"]}.items()
    )
    assert decoded["validation_f1"] == stored["validation_f1"]
    assert decoded["settings"] == stored["settings"]


def test_one_process_searches_to_the_same_end_each_time(study_file, tmp_path):
    study = load_study(study_file, ["workers=1", "tune.trials=5", "arms=[scratch]", "student.epochs=4"])
    first, second = (tune(study, tmp_path / name)["arms"]["scratch"] for name in ("first", "second"))
    values = [[(trial["settings"], trial["validation_f1"]) for trial in each["all"]] for each in (first, second)]
    assert values[0] == values[1]
    assert len(np.unique([str(settings) for settings, _ in values[0]])) == 5

"""Ways to compute the same study: views online or stored, students as one or one by one, kept choices."""

import json
import os
from dataclasses import replace

import pytest
import torch

from subclass_kd import build, store
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

SMALL = {
    "teacher": {"options": {"width": 4}, "epochs": 2},
    "student": {"options": {"width": 4}, "epochs": 2},
    "distillation": {"views": 2},
    "seeds": 1,
    "workers": 1,
    "device": "cpu",
}


def run(folder, out, **changes):
    return run_study(make_study({**SMALL, "data": {"kind": "fashion-mnist", "root": str(folder)}, **changes}), out)


def logits(out, name):
    return store.load(out / f"predictions/{name}-seed0.safetensors")["test"]


def assert_same_students(first, second, arms):
    for name in (f"students/{arm}" for arm in arms):
        torch.testing.assert_close(logits(first, name), logits(second, name), rtol=1e-3, atol=1e-3)


def test_as_many_stored_views_as_epochs_are_views_online(small_idx_folder, tmp_path):
    """Two epochs see views 0 and 1 either way, and hear what the teacher says of them."""
    arms = ["kd", "kd-collapsed", "skd"]
    stored = run(small_idx_folder, tmp_path / "stored", arms=arms)
    online = run(small_idx_folder, tmp_path / "online", arms=arms, distillation={"views": "online"})
    assert logits(tmp_path / "stored", "teachers/class").equal(logits(tmp_path / "online", "teachers/class"))
    assert_same_students(tmp_path / "stored", tmp_path / "online", arms)
    # The image itself has targets either way, for the label bits.
    assert store.load(tmp_path / "online/targets/subclass-seed0.safetensors")["logits"].shape[0] == 1
    assert online["label_bits"] == stored["label_bits"]


def test_soft_votes_need_no_teacher_online_either(tmp_path):
    study = {**SMALL, "data": {"kind": "lidc-votes", "size": 16}, "arms": ["soft-votes"]}
    distillation = {"views": "online"}
    results = run_study(make_study({**study, "distillation": distillation}), tmp_path / "run")
    assert results["arms"]["soft-votes"]["f1"]["per_seed"][0] is not None
    assert not (tmp_path / "run/teachers").exists()


def test_students_as_one_are_the_students_one_by_one(small_idx_folder, tmp_path, monkeypatch):
    one_by_one = run(small_idx_folder, tmp_path / "alone")
    choose = build.choose

    def as_one(*arguments):
        choices = choose(*arguments)
        return replace(choices, student=replace(choices.student, chosen=replace(choices.student.chosen, members=3)))

    monkeypatch.setattr(build, "choose", as_one)
    as_one_results = run(small_idx_folder, tmp_path / "together")
    assert_same_students(tmp_path / "alone", tmp_path / "together", one_by_one["arms"])
    assert "3 students as one" in as_one_results["environment"]["arithmetic"]["student"]
    for name in one_by_one["arms"]:
        both = [results["arms"][name]["f1"]["mean"] for results in (one_by_one, as_one_results)]
        assert both[0] == pytest.approx(both[1], abs=0.02)


def test_a_run_keeps_what_it_chose_whatever_the_cache_says_later(small_idx_folder, tmp_path, monkeypatch):
    out = tmp_path / "run"
    run(small_idx_folder, out, arms=["scratch"])
    path = out / "arithmetic.json"
    kept = json.loads(path.read_text())
    kept["student"]["chosen"]["layout"] = "contiguous"
    path.write_text(json.dumps(kept))
    (out / "SHA256SUMS").unlink()  # as in a run that did not end, whose choices no checksum holds yet
    (out / "students/scratch-seed0.safetensors").unlink()
    results = run(small_idx_folder, out, arms=["scratch"])
    assert results["environment"]["arithmetic"]["student"] == "contiguous float32"
    assert json.loads(path.read_text()) == kept


def test_the_targets_batch_is_told_and_no_part_is_left(small_idx_folder, tmp_path):
    out = tmp_path / "run"
    results = run(small_idx_folder, out, arms=["skd"])
    assert "images at once" in results["environment"]["arithmetic"]["targets"]
    assert store.notes(out / "targets/subclass-seed0.safetensors")["precision"] == "float32"
    assert sorted(path.name for path in (out / "targets").iterdir()) == ["subclass-seed0.safetensors"]


def test_workers_have_the_environment_of_now(small_idx_folder, tmp_path, monkeypatch):
    """Processes are copies of one that may have begun under another environment."""
    run(small_idx_folder, tmp_path / "before", arms=["scratch"], seeds=2, workers=2)
    monkeypatch.setenv("SUBCLASS_KD_CACHE", str(tmp_path / "cache"))
    run(small_idx_folder, tmp_path / "after", arms=["scratch"], seeds=2, workers=2)
    assert os.listdir(tmp_path / "cache/arithmetic")


def test_seeds_are_begun_in_their_order(small_idx_folder, tmp_path):
    class Order(Silent):
        def __init__(self):
            self.begun = []

        def event(self, job, event, content):
            if event == "started" and job.kind in ("teachers", "students"):
                self.begun.append(job.seed)

    order = Order()
    study = make_study({**SMALL, "data": {"kind": "fashion-mnist", "root": str(small_idx_folder)}, "seeds": 2})
    run_study(study, tmp_path / "run", order)
    assert order.begun == sorted(order.begun)

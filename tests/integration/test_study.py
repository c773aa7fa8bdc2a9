"""Whole studies: repeatable, resumable, blind to the test split until the end, and silent where there is nothing."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from subclass_kd import __version__, measuring, run_folder, store
from subclass_kd.arithmetic import from_dict
from subclass_kd.arms import ARMS
from subclass_kd.bench import Bench
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError
from subclass_kd.plan import plan
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

SMALL = {
    "teacher": {"model": "small:resnet", "options": {"width": 4}, "epochs": 2},
    "student": {"model": "small:convnet", "options": {"width": 4}, "epochs": 3},
    "distillation": {"views": 2},
    "seeds": 2,
    "workers": 1,
}


def small_study(folder, **changes):
    return make_study({**SMALL, "data": {"kind": "fashion-mnist", "root": str(folder)}, **changes})


def without_timings(content):
    """Drop every key that says how long something took."""
    if isinstance(content, dict):
        return {key: without_timings(value) for key, value in content.items() if not key.endswith("seconds")}
    return [without_timings(item) for item in content] if isinstance(content, list) else content


def bench(study, samples, out, seed):
    """Give what does a finished run's jobs."""
    return Bench(study, samples, out, from_dict(json.loads((out / "arithmetic.json").read_text())), seed)


class Counting(Silent):
    """Progress that notes which jobs ran."""

    def __init__(self):
        self.made = []

    def event(self, job, event, content):
        if event == "finished":
            self.made.append(job.path)


@pytest.fixture(scope="module", autouse=True)
def one_arithmetic():
    """Keep a busy clock from giving one run another arithmetic, and with it other last digits, than the next."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(measuring, "GAIN", float("inf"))
        yield


@pytest.fixture(scope="module")
def finished(small_idx_folder, tmp_path_factory):
    """A finished run of the small study, six arms and two seeds; tests copy it before they change it."""
    out = tmp_path_factory.mktemp("runs") / "first"
    return small_study(small_idx_folder), out, run_study(small_study(small_idx_folder), out)


def test_two_workers_give_the_results_of_one_but_for_timings(finished, small_idx_folder, tmp_path):
    _, _, first = finished
    second = run_study(small_study(small_idx_folder, workers=2), tmp_path / "second")
    assert json.dumps(without_timings(second)) == json.dumps(without_timings(first))


def test_a_finished_run_makes_nothing_and_reads_its_results(finished):
    study, out, first = finished
    progress = Counting()
    assert run_study(study, out, progress) == first
    assert progress.made == []


def test_what_is_missing_or_damaged_is_made_again_to_the_byte(finished, tmp_path):
    study, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "students/skd-seed1.safetensors").unlink()
    damaged = copy / "students/kd-seed0.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:100])
    (copy / "results.json").unlink()
    progress = Counting()
    again = run_study(study, copy, progress)
    names = ["students/kd-seed0.safetensors", "students/skd-seed1.safetensors"]
    assert sorted(progress.made) == [*(f"predictions/{name}" for name in names), "results.json", *names]
    assert without_timings(again) == without_timings(first)
    for name in ("skd-seed1", "kd-seed0"):
        before, after = (store.load(folder / f"students/{name}.safetensors") for folder in (out, copy))
        assert all(before[key].equal(after[key]) for key in before)


def test_an_interrupted_run_goes_on_to_the_same_results(finished, tmp_path):
    study, _, first = finished

    class Stopping(Counting):
        def event(self, job, event, content):
            super().event(job, event, content)
            if len(self.made) == 14 and event == "epoch":
                raise KeyboardInterrupt

    out, stopped, resumed = tmp_path / "run", Stopping(), Counting()
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out, stopped)
    assert not (out / "results.json").exists()
    assert not list(out.rglob("*.part"))
    assert without_timings(run_study(study, out, resumed)) == without_timings(first)
    assert len(resumed.made) + 14 == len(plan(study, ""))


def test_another_study_in_the_same_folder_is_refused_with_the_differing_keys(finished, small_idx_folder):
    _, out, _ = finished
    other = small_study(small_idx_folder, distillation={"views": 2, "temperature": 3.0})
    with pytest.raises(UserError, match=r"distillation\.temperature: 1\.0 before, 3\.0 now"):
        run_study(other, out)


def test_seeds_are_added_to_a_run_and_what_was_there_is_kept(finished, small_idx_folder, tmp_path):
    _, _, first = finished
    arms = ["scratch", "skd"]
    alone = small_study(small_idx_folder, arms=arms, seeds=1)
    run_study(alone, tmp_path / "run")
    progress = Counting()
    more = run_study(small_study(small_idx_folder, arms=arms, seeds=2), tmp_path / "run", progress)
    for arm in arms:  # a seed is what it is, whatever stands beside it
        assert more["arms"][arm]["f1"]["per_seed"] == first["arms"][arm]["f1"]["per_seed"]
    assert not [made for made in progress.made if "seed0" in made]
    with pytest.raises(UserError, match="seeds: \\[0, 1\\] before, \\[0\\] now"):
        run_study(alone, tmp_path / "run")


def test_another_order_of_classes_is_another_study(finished, small_idx_folder):
    study, out, _ = finished
    classes = {"lower": ["Trouser", "Dress", "Sandal", "Sneaker", "Ankle boot"]}
    classes["upper"] = ["T-shirt/top", "Pullover", "Coat", "Shirt", "Bag"]
    with pytest.raises(UserError, match="a run of another study"):
        run_study(small_study(small_idx_folder, hierarchy=classes), out)
    assert study.hierarchy is None


def test_other_data_behind_the_same_path_are_refused(small_idx_folder, write_idx, tmp_path):
    folder = tmp_path / "data"
    shutil.copytree(small_idx_folder, folder)
    study = small_study(folder, arms=["scratch"], seeds=1)
    run_study(study, tmp_path / "run")
    before = (tmp_path / "run/results.json").read_bytes()
    write_idx(folder / "t10k-images-idx3-ubyte", np.zeros((200, 28, 28), np.uint8))
    with pytest.raises(UserError, match="a run made from other data"):
        run_study(study, tmp_path / "run")
    assert (tmp_path / "run/results.json").read_bytes() == before


def test_damaged_results_are_made_again_without_training(finished, tmp_path):
    study, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "results.json").write_text('{"schema": 1')
    progress = Counting()
    assert without_timings(run_study(study, copy, progress)) == without_timings(first)
    assert progress.made == ["results.json"]


def test_a_rate_at_which_training_diverges_is_refused(small_idx_folder, tmp_path):
    student = {"options": {"width": 4}, "epochs": 2, "learning_rate": 1e30}
    study = small_study(small_idx_folder, arms=["scratch"], seeds=1, student=student)
    with pytest.raises(UserError, match=r'"student\.learning_rate".*no longer finite in epoch 1'):
        run_study(study, tmp_path / "run")


def test_results_have_every_key_of_schema_1(finished):
    _, _, results = finished
    assert list(results) == [
        "schema", "study", "environment", "data", "teachers", "label_bits", "arms", "comparisons", "power", "diagnosis",
    ]  # fmt: skip
    assert results["schema"] == 1
    assert results["environment"]["trained_with"] == [f"torch {torch.__version__}, subclass-kd {__version__}"]
    assert list(results["arms"]) == [name for name in ARMS if name != "soft-votes"]
    assert list(results["teachers"]) == ["class", "subclass", "subclass-shuffled"]
    metrics = {
        "f1", "f1_macro", "auroc", "accuracy", "balanced_accuracy", "sensitivity", "specificity", "brier", "ece",
        "subclass_accuracy",
    }  # fmt: skip
    for name, row in (results["arms"] | results["teachers"]).items():
        assert metrics | {"parameters", "multiply_adds", "train_seconds"} <= set(row)
        for metric in metrics:
            assert set(row[metric]) == {"mean", "std", "ci95", "per_seed"}
            assert len(row[metric]["per_seed"]) == 2
        names_subclasses = name in ("subclass", "subclass-labels", "skd")
        assert (row["subclass_accuracy"]["mean"] is not None) == names_subclasses
    for split, images in (("train", 320), ("test", 200)):
        bits = results["label_bits"][split]
        assert {"symmetric", "mutual_information", "soft", "ceiling", "accuracy"} <= set(bits)
        assert bits["images"] == images
        assert bits["ceiling"] == pytest.approx(np.log2(5), abs=1e-9)
        assert 0 <= bits["mutual_information"] <= bits["ceiling"] + 1e-9
    assert len(results["comparisons"]) == 9
    for row in results["comparisons"]:
        assert {"arm", "reference", "metric", "difference", "ci95", "p_value", "verdict"} <= set(row)
    assert {row["train"] for row in results["data"]["subclasses"]} == {32}


def test_metrics_in_results_are_those_of_the_stored_predictions(finished):
    """F1 and subclass accuracy by hand from the logits on disk."""
    study, out, results = finished
    samples = load_samples(study)
    parents = np.asarray(samples.hierarchy.parent_indices)
    labels = samples.subclass_labels[samples.test]
    for seed in study.seeds:
        logits = store.load(out / f"predictions/students/skd-seed{seed}.safetensors")["test"].double().numpy()
        shares = np.exp(logits - logits.max(1, keepdims=True))
        by_class = np.stack([shares[:, parents == number].sum(1) for number in range(2)], 1)
        decided, truly = by_class.argmax(1) == samples.positive, parents[labels] == samples.positive
        f1 = 2 * (decided & truly).sum() / (decided.sum() + truly.sum())
        assert results["arms"]["skd"]["f1"]["per_seed"][seed] == pytest.approx(f1, abs=1e-12)
        accuracy = (logits.argmax(1) == labels).mean()
        assert results["arms"]["skd"]["subclass_accuracy"]["per_seed"][seed] == pytest.approx(accuracy)


def test_the_small_study_learns(finished):
    _, _, results = finished
    assert results["teachers"]["class"]["auroc"]["mean"] > 0.7
    assert results["arms"]["scratch"]["auroc"]["mean"] > 0.6


def test_the_test_split_chooses_nothing(finished, small_idx_folder, write_idx, tmp_path):
    """Other test images, same training images: the same trained students, to the byte."""
    study, out, _ = finished
    folder = tmp_path / "data"
    shutil.copytree(small_idx_folder, folder)
    samples = load_samples(study)
    noise = np.random.default_rng(0).integers(0, 256, (len(samples.test), 28, 28), dtype=np.uint8)
    write_idx(folder / "t10k-images-idx3-ubyte", noise)
    other = small_study(folder, arms=["scratch", "skd"], seeds=[0])
    run_study(other, tmp_path / "run")
    for name in ("scratch", "skd"):
        first, second = (store.load(run / f"students/{name}-seed0.safetensors") for run in (out, tmp_path / "run"))
        assert all(first[key].equal(second[key]) for key in first)


def test_arms_of_a_seed_start_from_the_same_body_whatever_their_head(finished):
    study, out, _ = finished
    samples = load_samples(study)
    first = bench(study, samples, out, seed=0)
    narrow, wide = (first.model(study.student, "student", outputs).state_dict() for outputs in ("class", "subclass"))
    differing = [name for name in narrow if narrow[name].shape != wide[name].shape]
    assert differing == ["body.head.weight", "body.head.bias"]
    assert all(narrow[name].equal(wide[name]) for name in narrow if name not in differing)
    other = bench(study, samples, out, seed=1).model(study.student, "student", "class").state_dict()
    assert not other["body.stem.0.weight"].equal(narrow["body.stem.0.weight"])


def test_shuffled_labels_keep_class_and_counts_and_spare_the_test_split(finished):
    study, out, _ = finished
    samples = load_samples(study)
    shuffled = bench(study, samples, out, seed=0).labels("subclass", shuffled=True).numpy()
    parents = np.asarray(samples.hierarchy.parent_indices)
    assert (parents[shuffled] == samples.class_labels).all()
    assert (shuffled[samples.test] == samples.subclass_labels[samples.test]).all()
    for rows in (samples.train, samples.validation):
        assert (np.bincount(shuffled[rows]) == np.bincount(samples.subclass_labels[rows])).all()
        # A subclass of a class of five keeps its label by chance one time in five; four standard deviations.
        kept = (shuffled[rows] == samples.subclass_labels[rows]).mean()
        assert abs(kept - 0.2) < 4 * (0.2 * 0.8 / len(rows)) ** 0.5


def test_targets_of_another_teacher_are_made_anew_with_all_that_learned_from_them(finished, tmp_path):
    study, out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    other = copy / "teachers/subclass-seed1.safetensors"
    mine = copy / "teachers/subclass-seed0.safetensors"
    header = store._header(mine)
    weights = store.load(other)
    store.save(mine, weights, header["recipe"], json.loads(header["notes"]))
    (copy / "students/skd-seed0.safetensors").unlink()
    (copy / "results.json").unlink()
    counting = Counting()
    run_study(study, copy, counting)
    assert [path for path in counting.made if not path.startswith("predictions")] == [
        "targets/subclass-seed0.safetensors", "students/kd-collapsed-seed0.safetensors",
        "students/skd-seed0.safetensors", "results.json",
    ]  # fmt: skip


def other_weights(path):
    """Write a network of other weights in a file's place, as another device or torch would have made it."""
    notes, weights = store.notes(path), store.load(path)
    recipe = store._header(path)["recipe"]
    store.save(path, {name: 1.05 * tensor + 0.01 for name, tensor in weights.items()}, recipe, notes)


def test_results_of_a_student_that_came_out_otherwise_do_not_outlive_a_stop(finished, tmp_path):
    """Killed after the student and before its predictions, a run must not take the old ones for this student's."""
    study, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "students/kd-seed1.safetensors").unlink()

    def stopped(study, samples, out, jobs, prepare, on_event, before):
        prepare(1, before)
        shutil.copy(copy.parent / "students.bak", copy / "students/kd-seed1.safetensors")
        raise KeyboardInterrupt

    shutil.copy(out / "students/kd-seed1.safetensors", tmp_path / "students.bak")
    other_weights(tmp_path / "students.bak")
    with pytest.raises(KeyboardInterrupt):
        run_study(study, copy, engine=stopped)
    assert not (copy / "results.json").exists()
    counting = Counting()
    second = run_study(study, copy, counting)
    assert counting.made == ["predictions/students/kd-seed1.safetensors", "results.json"]
    assert second["arms"]["kd"]["brier"]["per_seed"][0] == first["arms"]["kd"]["brier"]["per_seed"][0]
    assert second["arms"]["kd"]["brier"]["per_seed"][1] != first["arms"]["kd"]["brier"]["per_seed"][1]


def test_students_of_another_teacher_are_made_anew_and_those_of_the_same_are_kept(finished, tmp_path):
    study, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "teachers/class-seed0.safetensors").unlink()
    counting = Counting()
    second = run_study(study, copy, counting)  # it comes out the same: what it taught stays
    assert counting.made == [
        "teachers/class-seed0.safetensors", "predictions/teachers/class-seed0.safetensors", "results.json",
    ]  # fmt: skip
    assert json.dumps(without_timings(second)) == json.dumps(without_timings(first))
    other_weights(copy / "teachers/class-seed0.safetensors")
    counting = Counting()
    run_study(study, copy, counting)
    assert counting.made == [
        "targets/class-seed0.safetensors", "students/kd-seed0.safetensors",
        "predictions/teachers/class-seed0.safetensors", "predictions/students/kd-seed0.safetensors", "results.json",
    ]  # fmt: skip
    counting = Counting()
    run_study(study, copy, counting)
    assert counting.made == []


def test_a_teacher_that_comes_out_otherwise_teaches_its_students_again_in_one_run(finished, tmp_path, monkeypatch):
    study, out, _ = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    (copy / "teachers/class-seed0.safetensors").unlink()
    save, changed = store.save, []

    def save_otherwise(path, tensors, recipe, notes):
        if path.name == "class-seed0.safetensors" and path.parent.name == "teachers" and not changed:
            changed.append(path)
            tensors = {name: 1.05 * tensor + 0.01 for name, tensor in tensors.items()}
        save(path, tensors, recipe, notes)

    monkeypatch.setattr(store, "save", save_otherwise)
    counting = Counting()
    run_study(study, copy, counting)
    assert {path for path in counting.made if path.startswith(("targets", "students"))} == {
        "targets/class-seed0.safetensors", "students/kd-seed0.safetensors",
    }  # fmt: skip
    counting = Counting()
    assert run_study(study, copy, counting) == json.loads((copy / "results.json").read_text())
    assert counting.made == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_fault_in_a_job_is_told_and_what_was_finished_is_kept(finished, small_idx_folder, tmp_path, workers):
    _, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    for path in [*copy.glob("students/skd-*"), copy / "results.json"]:
        path.unlink()
    targets = copy / "targets/subclass-seed0.safetensors"
    notes = store.notes(targets) | {"teacher": "beef"}
    study = small_study(small_idx_folder, workers=workers)
    [job] = [
        job for job in plan(study, first["data"]["fingerprint"]) if job.path == "targets/subclass-seed0.safetensors"
    ]
    store.save(targets, store.load(targets), job.recipe, notes)
    with pytest.raises(UserError, match="targets of another teacher"):
        run_study(small_study(small_idx_folder, workers=workers), copy)
    targets.unlink()
    again = run_study(small_study(small_idx_folder, workers=workers), copy)
    assert without_timings(again) == without_timings(first)


def test_data_that_change_while_workers_run_are_refused(small_idx_folder, write_idx, tmp_path):
    """The main process has read the data; a worker that reads others must not go on with them."""
    folder = tmp_path / "data"
    shutil.copytree(small_idx_folder, folder)

    class Changing(Silent):
        def begin(self, jobs, finished, workers, arithmetic):
            write_idx(folder / "train-labels-idx1-ubyte", (np.arange(400) % 10)[::-1].astype(np.uint8))

    study = small_study(folder, arms=["scratch"], seeds=4, workers=2)
    with pytest.raises(UserError, match="data that changed while the run went on"):
        run_study(study, tmp_path / "run", Changing())


def one_bit_another(path):
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def somebody_elses(path):
    save_file({"x": torch.zeros(1)}, path)  # without metadata


@pytest.mark.parametrize("spoil", [one_bit_another, somebody_elses])
def test_a_damaged_file_is_named_and_made_again(finished, tmp_path, spoil):
    study, out, first = finished
    copy, told = tmp_path / "copy", []
    shutil.copytree(out, copy)
    name = "students/skd-seed0.safetensors"
    spoil(copy / name)
    spoiled = (copy / name).read_bytes()

    class Telling(Silent):
        def damaged(self, paths):
            told.extend(paths)

    assert without_timings(run_study(study, copy, Telling())) == without_timings(first)
    assert told == [name]
    assert (copy / name).read_bytes() != spoiled


@pytest.mark.parametrize("name", run_folder.PLAIN)
def test_a_damaged_plain_file_is_named_and_made_again(finished, tmp_path, name):
    """One figure of it is another: it still reads well."""
    study, out, first = finished
    copy, told = tmp_path / "copy", []
    shutil.copytree(out, copy)
    whole = (copy / name).read_text()
    at = whole.index('"epochs": ') + len('"epochs": ') if name == "study.json" else whole.rindex("1")
    changed = whole[:at] + str(9 - int(whole[at])) + whole[at + 1 :]
    (copy / name).write_text(changed)

    class Telling(Silent):
        def damaged(self, paths):
            told.extend(paths)

    if name == "study.json":  # it says whose folder this is
        with pytest.raises(UserError, match="another content than SHA256SUMS states"):
            run_study(study, copy, Telling())
        return
    assert without_timings(run_study(study, copy, Telling())) == without_timings(first)
    assert told == [name]
    if name not in ("results.json", "arithmetic.json"):  # these have times
        assert (copy / name).read_text() == whole
    assert run_folder.damaged_files(copy) == []
    assert run_study(study, copy, Telling())
    assert told == [name]


def test_results_of_other_data_are_no_results(finished, tmp_path):
    study, out, first = finished
    copy = tmp_path / "copy"
    shutil.copytree(out, copy)
    content = json.loads((copy / "results.json").read_text())
    content["data"]["fingerprint"] = "0123456789abcdef"
    (copy / "results.json").write_text(json.dumps(content))
    assert without_timings(run_study(study, copy)) == without_timings(first)


def test_labels_shuffled_at_random_give_no_arm_a_better_verdict(small_idx_folder, write_idx, tmp_path):
    """Nothing can be learned, so nothing may be found: images and labels have no bond in any split."""
    folder = tmp_path / "data"
    shutil.copytree(small_idx_folder, folder)
    random = np.random.default_rng(1)
    for prefix, count in (("train", 400), ("t10k", 200)):
        write_idx(folder / f"{prefix}-labels-idx1-ubyte", random.permutation(np.arange(count) % 10).astype(np.uint8))
    results = run_study(small_study(folder, seeds=3, workers=2), tmp_path / "run")
    assert [row["verdict"] for row in results["comparisons"]] == ["inconclusive"] * 9
    assert results["label_bits"]["test"]["mutual_information"] < 0.4


def test_a_script_without_a_main_guard_runs_its_study_once(small_idx_folder, tmp_path):
    """Workers that ran the user's script, to find what it defines, would start the study again, each."""
    script = tmp_path / "script.py"
    script.write_text(
        f"""
from pathlib import Path
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

print("here")
content = {SMALL | {"data": {"root": str(small_idx_folder)}, "arms": ["scratch"], "workers": 2}}
print(sorted(run_study(make_study(content), Path("run"))["arms"]))
"""
    )
    done = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.stdout == "here\n['scratch']\n", done.stderr

"""Folds of a study: every image is tested once a seed, and what is said is said of all."""

import json

import numpy as np
import pytest

from subclass_kd import store
from subclass_kd.comparison import compare
from subclass_kd.data.check import check_study
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import load_rows, load_samples
from subclass_kd.errors import UserError
from subclass_kd.results import class_log_probs
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study
from subclass_kd.watching import Silent

SMALL = {
    "data": {"train_images": 100, "folds": 3},
    "teacher": {"epochs": 1, "options": {"width": 4}},
    "student": {"epochs": 2, "options": {"width": 4}},
    "distillation": {"views": 1},
    "arms": ["scratch", "kd", "skd"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
}


class Telling(Silent):
    """Notes the folds and how many jobs there were to do."""

    def __init__(self):
        self.folds, self.jobs = [], []

    def fold(self, number, folds):
        self.folds.append((number, folds))

    def begin(self, jobs, finished, workers, arithmetic):
        self.jobs.append(len(jobs))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("folds") / "run"
    study = make_study(SMALL)
    return study, out, run_study(study, out)


def pooled(study, out, name):
    """Give each seed's decisions for all images by number, put together by hand."""
    decisions = np.full((2, 6500), -1)
    for fold in range(3):
        samples = load_samples(make_study(SMALL | {"data": {**SMALL["data"], "fold": fold}}))
        for row, seed in enumerate(study.seeds):
            logits = store.load(out / f"fold-{fold}/predictions/students/{name}-seed{seed}.safetensors")["test"]
            assert (decisions[row, samples.test] == -1).all()
            decisions[row, samples.test] = class_log_probs(logits, samples).argmax(-1)
    return decisions, samples


def test_every_image_is_tested_once_a_seed_and_f1_is_that_of_all(run):
    study, out, results = run
    decisions, samples = pooled(study, out, "skd")
    assert (decisions >= 0).all()
    truly, decided = samples.class_labels == samples.positive, decisions == samples.positive
    by_hand = [2 * (truly & row).sum() / (truly.sum() + row.sum()) for row in decided]
    assert results["arms"]["skd"]["f1"]["per_seed"] == pytest.approx(by_hand, abs=1e-12)
    assert results["arms"]["skd"]["test_images"] == 6500
    assert sum(row["test"] for row in results["data"]["subclasses"]) == 6500
    assert len(results["data"]["folds"]) == 3


def test_the_comparison_is_that_of_the_pooled_predictions(run):
    study, out, results = run
    samples = pooled(study, out, "kd")[1]
    decisions = {name: pooled(study, out, name)[0] for name in ("skd", "kd")}
    [row] = compare(decisions, samples.class_labels, samples.positive, [("skd", "kd")])
    found = next(each for each in results["comparisons"] if (each["arm"], each["reference"]) == ("skd", "kd"))
    assert found["test_images"] == 6500
    for key in ("difference", "ci95", "p_value"):
        assert found[key] == pytest.approx(row[key], abs=1e-12)


def test_label_bits_are_those_of_all_test_images_and_the_mean_over_training_folds(run):
    _, out, results = run
    each = [json.loads((out / f"fold-{fold}/results.json").read_text())["label_bits"] for fold in range(3)]
    by_hand = np.mean([bits["train"]["mutual_information"] for bits in each])
    assert results["label_bits"]["train"]["mutual_information"] == pytest.approx(by_hand, abs=1e-12)
    # Accuracy is a share of images, so that of all is the mean of the folds' weighted by their images.
    images = [bits["test"]["images"] for bits in each]
    accuracy = np.average([bits["test"]["accuracy"] for bits in each], weights=images)
    assert results["label_bits"]["test"]["accuracy"] == pytest.approx(accuracy, abs=1e-3)
    assert results["label_bits"]["test"]["images"] == sum(images) == 6500


def test_auroc_is_the_mean_over_folds(run):
    _, out, results = run
    each = [json.loads((out / f"fold-{fold}/results.json").read_text())["arms"]["kd"]["auroc"] for fold in range(3)]
    by_hand = np.mean([fold["per_seed"] for fold in each], axis=0)
    assert results["arms"]["kd"]["auroc"]["per_seed"] == pytest.approx(by_hand, abs=1e-12)


def test_an_interrupt_in_the_first_fold_loses_nothing(tmp_path):
    class Stopping(Telling):
        def event(self, job, event, content):
            if job.kind == "students" and event == "finished":
                raise KeyboardInterrupt

    small = {"arms": ["scratch"], "seeds": 1, "workers": 1, "data": {"train_images": 60, "folds": 2}}
    study, out, again = make_study(SMALL | small), tmp_path / "run", Telling()
    with pytest.raises(KeyboardInterrupt):
        run_study(study, out, Stopping())
    run_study(study, out, again)
    assert again.jobs == [2, 3]  # a prediction and the results; then a student as well


@pytest.mark.parametrize("first", ["all folds", "one fold"])
def test_a_fold_is_run_by_one_at_a_time_alone_or_among_all(tmp_path, first):
    small = {"arms": ["scratch"], "seeds": 1, "workers": 1, "data": {"train_images": 60, "folds": 2}}
    out, told = tmp_path / "run", []
    all_folds = make_study(SMALL | small), out
    one_fold = make_study(SMALL | small | {"data": {**small["data"], "fold": 0}}), out / "fold-0"
    mine, others = (all_folds, one_fold) if first == "all folds" else (one_fold, all_folds)

    class Disturbed(Telling):
        def event(self, job, event, content):
            if job.kind == "students" and event == "epoch" and not told:
                unfinished = out / "fold-0/students/.other.checkpoint"
                unfinished.parent.mkdir(exist_ok=True)
                unfinished.touch()
                with pytest.raises(UserError) as caught:
                    run_study(*others)
                told.append(str(caught.value))
                assert unfinished.exists()

    class Stopped(Telling):
        def event(self, job, event, content):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):  # so that it is all folds' folder
        run_study(*all_folds, Stopped())
    results = run_study(*mine, Disturbed())
    [message] = told
    assert message.startswith(f"{out / 'fold-0'}: found a run that goes on (process ")
    assert run_study(*mine) == results
    assert list(run_study(*others)["arms"]) == ["scratch"]
    assert not list(out.rglob(".lock"))


def test_a_fold_of_it_is_the_run_of_that_fold_alone(run, tmp_path):
    _, out, _ = run
    alone = run_study(make_study(SMALL | {"data": {**SMALL["data"], "fold": 1}}), tmp_path / "one")
    within = json.loads((out / "fold-1/results.json").read_text())
    for results in (alone, within):
        for row in (*results["arms"].values(), *results["teachers"].values()):
            row.pop("train_seconds")
    assert alone == within


def test_a_finished_run_trains_nothing_and_a_fold_that_is_lost_is_made_again(run):
    study, out, results = run
    again = Telling()
    assert run_study(study, out, again) == results
    assert again.jobs == []
    assert again.folds == [(0, 3), (1, 3), (2, 3)]
    (out / "fold-2/students/skd-seed1.safetensors").unlink()
    (out / "results.json").unlink()
    assert run_study(study, out, again)["comparisons"] == results["comparisons"]
    assert len(again.jobs) == 1


def test_a_fold_without_a_class_is_refused_before_the_first_trains(tmp_path):
    """Ten patients of one class each, four of them of class b: of five folds one has no test image of b."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for patient in range(10):
        folder = tmp_path / "images" / ("b" if patient < 4 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(4):
            pixels = rng.integers(0, 256, (16, 16), np.uint8)
            Image.fromarray(pixels).save(folder / f"p{patient}_{number}.png")
    study = make_study(
        {"data": {"kind": "folder", "root": str(tmp_path / "images"), "pattern": r"^(?P<group>p\d+)_", "folds": 5}}
    )
    with pytest.raises(UserError, match='no test image of class "b"'):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_copy_in_two_folds_is_refused_before_the_first_trains(tmp_path):
    from PIL import Image

    rng = np.random.default_rng(0)
    for number in range(40):
        folder = tmp_path / "images" / ("b" if number % 2 else "a")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (16, 16), np.uint8)).save(folder / f"{number:02}.png")
    study = make_study({"data": {"kind": "folder", "root": str(tmp_path / "images"), "folds": 5}})
    fold_of = np.empty(40, int)
    for fold in range(5):
        rows = load_rows(make_study({"data": study.data.model_dump() | {"fold": fold}}), Findings())
        fold_of[rows.test] = fold
        names = rows.table.names
    first, second = (next(row for row in range(40) if fold_of[row] == fold) for fold in (3, 4))
    copied = Image.open(tmp_path / "images" / names[first])
    copied.save(tmp_path / "images" / names[second])
    with pytest.raises(UserError, match="a test image that training has"):
        run_study(study, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    report = check_study(study)
    assert report["errors"] >= 1

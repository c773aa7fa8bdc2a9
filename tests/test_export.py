"""From a run to a bundle: calibrated on validation, held against PyTorch, whole or not at all."""

import hashlib
import json
import math
import os
import shutil
import stat
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import parity as parity_benchmark
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import f1_score, roc_curve

from subclass_kd import candidates, export, latency, store
from subclass_kd.bundle import Bundle, make_session
from subclass_kd.bundle_statement import state
from subclass_kd.calibration import calibrated, fit_temperature, log_loss, parse_rule, threshold_for
from subclass_kd.candidates import best_student, open_run
from subclass_kd.cli import app
from subclass_kd.config import Own
from subclass_kd.counts import Counts, auroc_interval, f1_share, mean_interval, share, wilson
from subclass_kd.deployed import Deployed, to_onnx
from subclass_kd.errors import UserError
from subclass_kd.export import export_student
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.model_card import as_text, model_card
from subclass_kd.networks import Normalised, SmallConvNet
from subclass_kd.parity import int8_advice, int8_lines, measure_parity
from subclass_kd.predict import find_images, predict_files
from subclass_kd.run_files import read_run
from subclass_kd.study import run_study
from subclass_kd.study_file import make_study

SMALL = {
    "teacher": {"options": {"width": 4}, "epochs": 1},
    "student": {"options": {"width": 4}, "epochs": 2, "size": 20},
    "distillation": {"views": 1},
    "arms": ["scratch", "skd"],
    "seeds": 2,
    "workers": 1,
    "device": "cpu",
}


@pytest.fixture(scope="module")
def run(small_idx_folder, tmp_path_factory):
    """A finished run of two seeds, whose student sees another size than its images have."""
    out = tmp_path_factory.mktemp("runs") / "run"
    run_study(make_study(SMALL | {"data": {"kind": "fashion-mnist", "root": str(small_idx_folder)}}), out)
    return open_run(out, *read_run(out, "skd"), lambda done, total: None)


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """The bundle of its skd student, with 8 bits, and what was said meanwhile."""
    out, said = tmp_path_factory.mktemp("bundles") / "b", []
    return out, export_student(run, "skd", out, int8=True, say=said.append), said


class Says(torch.nn.Module):
    """A network that says the same of any images."""

    def __init__(self, logits):
        super().__init__()
        self.logits = torch.from_numpy(logits).float()

    def forward(self, images):
        return self.logits


def test_the_fitted_temperature_is_the_one_that_made_the_labels():
    random = np.random.default_rng(0)
    true = random.normal(0, 2, (20_000, 3))
    probs = calibrated(true, 1.0)
    labels = (probs.cumsum(1) > random.random((len(probs), 1))).argmax(1)
    for temperature in (0.5, 1.0, 3.0):
        fitted = fit_temperature(true * temperature, labels)
        assert fitted == pytest.approx(temperature, rel=0.03)
        least = log_loss(true * temperature, labels, fitted)
        assert all(log_loss(true * temperature, labels, fitted * nearby) >= least for nearby in (0.999, 1.001))
    assert (calibrated(true, 7.0).argmax(1) == true.argmax(1)).all()


def test_a_temperature_of_answers_that_are_all_right_stays_in_its_bounds():
    assert fit_temperature(np.log([[0.6, 0.4], [0.4, 0.6]]), np.array([0, 1])) == 1  # not twenty times as sure
    assert fit_temperature(np.log([[0.6, 0.4], [0.4, 0.6]]), np.array([1, 0])) == pytest.approx(20, rel=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_thresholds_are_the_best_of_all(seed):
    """Youden against scikit-learn's ROC; F1 and given rates against every cut."""
    random = np.random.default_rng(seed)
    truth = random.random(60) < 0.4
    probs = np.clip(0.3 * truth + random.random(60) * 0.7, 0, 1).round(2)
    cuts = np.unique([0, *probs, *(probs + 0.005)])
    called = probs[:, None] >= cuts  # (N, T)
    specificity, sensitivity = (~called[~truth]).mean(0), called[truth].mean(0)
    threshold, reached = threshold_for("youden", probs, truth)
    false, true, _ = roc_curve(truth, probs)
    assert reached["sensitivity"] + reached["specificity"] - 1 == pytest.approx((true - false).max())
    assert (probs >= threshold)[truth].mean() == reached["sensitivity"]
    threshold, reached = threshold_for("f1", probs, truth)
    assert f1_score(truth, probs >= threshold) == pytest.approx(reached["f1"])
    assert reached["f1"] == pytest.approx(max(f1_score(truth, row) for row in called.T if row.any()))
    for wanted in (0.8, 0.95):
        _, reached = threshold_for(f"specificity={wanted}", probs, truth)
        assert reached["specificity"] >= wanted
        assert reached["sensitivity"] == sensitivity[specificity >= wanted].max()
        # Of thresholds that find as many, the one that raises the fewest false alarms
        assert reached["specificity"] == specificity[sensitivity == reached["sensitivity"]].max()
        _, reached = threshold_for(f"sensitivity={wanted}", probs, truth)
        assert reached["specificity"] == specificity[sensitivity >= wanted].max()
        assert reached["sensitivity"] == sensitivity[specificity == reached["specificity"]].max()
    for miss in (0.2, 1, 7.5):
        _, reached = threshold_for(f"cost={miss}", probs, truth)
        cost = miss * truth.sum() * (1 - sensitivity) + (~truth).sum() * (1 - specificity)
        found = miss * truth.sum() * (1 - reached["sensitivity"]) + (~truth).sum() * (1 - reached["specificity"])
        assert found == pytest.approx(cost.min())
    assert threshold_for("0.3", probs, truth)[0] == 0.3


@pytest.mark.parametrize(
    "rule", ["youdn", "f1=2", "specificity", "specificity=1.5", "cost=0", "cost=inf", "0", "1", "nan", "x=0.5", ""]
)
def test_rules_that_are_none_are_refused(rule):
    with pytest.raises(UserError, match="youden, f1, specificity=S"):
        parse_rule(rule)


def test_intervals_are_those_of_scipy_and_of_a_bootstrap_of_images():
    for successes, of in ((0, 5), (3, 7), (480, 500), (9, 9)):
        interval = stats.binomtest(successes, of).proportion_ci(method="wilson")
        assert share(np.arange(of) < successes)["ci95"] == pytest.approx(list(interval), abs=1e-12)
    truth, called = np.repeat([1, 0, 1, 0], [40, 10, 12, 60]) > 0, np.repeat([1, 1, 0, 0], [40, 10, 12, 60]) > 0
    found = f1_share(truth, called)
    assert found["value"] == pytest.approx(f1_score(truth, called))
    of_jaccard = stats.binomtest(40, 62).proportion_ci(method="wilson")
    assert found["ci95"] == pytest.approx([2 * end / (1 + end) for end in of_jaccard])
    random = np.random.default_rng(1)
    drawn = [random.integers(0, len(truth), len(truth)) for _ in range(2000)]
    twice = [2 * (truth[r] & called[r]).sum() / (truth[r].sum() + called[r].sum()) for r in drawn]
    assert found["ci95"] == pytest.approx(list(np.percentile(twice, [2.5, 97.5])), abs=0.015)
    assert f1_share(np.zeros(5, bool), np.zeros(5, bool)) == {"value": None, "ci95": None, "of": 5}
    assert Counts.of(truth, called) == Counts(tp=40, fp=10, fn=12, tn=60)


@pytest.mark.parametrize(
    ("n", "share_of_positives", "sensitivity", "specificity"),
    [(40, 0.3, 0.97, 0.99), (100, 0.1, 0.9, 0.99), (300, 0.5, 0.8, 0.9)],
)
def test_the_interval_of_f1_covers_also_where_few_are_wrong(n, share_of_positives, sensitivity, specificity):
    """A bootstrap over images gives one of no width where all are right: of 40 images in half of the samples."""
    random, draws = np.random.default_rng(0), 2000
    cells = np.array([share_of_positives * sensitivity, (1 - share_of_positives) * (1 - specificity)])
    cells = np.array([*cells, share_of_positives * (1 - sensitivity)])
    truth, inside = 2 * cells[0] / (2 * cells[0] + cells[1] + cells[2]), 0
    for tp, fp, fn, tn in random.multinomial(n, [*cells, 1 - cells.sum()], size=draws):
        is_positive = np.repeat([True, False, True, False], [tp, fp, fn, tn])
        low, high = f1_share(is_positive, np.repeat([True, True, False, False], [tp, fp, fn, tn]))["ci95"]
        inside += low <= truth <= high
    assert 0.935 <= inside / draws <= 0.985
    assert f1_share(np.arange(20) < 8, np.arange(20) < 8)["ci95"] == pytest.approx([0.806, 1.0], abs=1e-3)


def test_the_interval_of_an_auroc_covers_and_heeds_patients():
    random, area = np.random.default_rng(1), 0.9
    apart = math.sqrt(2) * stats.norm.ppf(area)
    for positives, negatives in ((15, 150), (60, 60)):
        truth = np.arange(positives + negatives) < positives
        ends = np.array([auroc_interval(random.normal(apart * truth), truth) for _ in range(400)])
        assert 0.91 <= ((ends[:, 0] <= area) & (area <= ends[:, 1])).mean() <= 0.99
    scores = random.normal(apart * truth)
    three = [np.repeat(each, 3) for each in (scores, truth, np.arange(120))]  # of each patient the same image thrice
    assert auroc_interval(*three) == pytest.approx(auroc_interval(scores, truth))
    narrow = auroc_interval(*three[:2])
    assert narrow[1] - narrow[0] < 0.65 * np.subtract(*auroc_interval(scores, truth)[::-1])
    assert auroc_interval(1.0 * truth, truth) == pytest.approx(wilson(60, 60, units=60))
    assert auroc_interval(scores, truth, groups=~truth) is None  # all positives are of one patient
    folds, moved = np.arange(120) % 2, truth + 0.0
    moved[folds == 1] -= 5.0  # each fold is in order, both together are not
    assert auroc_interval(moved, truth, None, folds) == pytest.approx(wilson(60, 60, units=60))
    assert auroc_interval(moved, truth)[1] < 0.9
    columns = np.stack([scores, -scores], 1)
    both = auroc_interval(columns, np.stack([truth, ~truth], 1))
    assert both == pytest.approx(auroc_interval(scores, truth))


def test_the_interval_of_a_mean_is_student_s():
    values = np.random.default_rng(2).random(30)
    expected = stats.t.interval(0.95, 29, values.mean(), stats.sem(values))
    assert mean_interval(values) == pytest.approx(expected)
    assert mean_interval(np.repeat(values, 4), np.repeat(np.arange(30), 4)) == pytest.approx(expected)
    assert mean_interval(values, np.zeros(30)) is None


def test_the_interval_of_f1_over_patients_is_the_jackknife_s():
    random = np.random.default_rng(0)
    truth, groups = random.random(90) < 0.5, np.arange(90) // 6
    called = truth ^ (random.random(15) < 0.2)[groups] ^ (random.random(90) < 0.1)
    found = f1_share(truth, called, groups)
    f1 = f1_score(truth, called)
    left = np.array([f1_score(truth[groups != g], called[groups != g]) for g in range(15)])
    n = f1 * (1 - f1) / (14 / 15 * ((left - left.mean()) ** 2).sum())
    z = stats.t(14).ppf(0.975)
    middle, half = f1 + z * z / (2 * n), z * np.sqrt(f1 * (1 - f1) / n + z * z / (4 * n * n))
    assert found["value"] == pytest.approx(f1)
    assert found["ci95"] == pytest.approx([(middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)])
    images = f1_share(truth, called)["ci95"]
    assert found["ci95"][1] - found["ci95"][0] > 1.3 * (images[1] - images[0])
    assert f1_share(truth, called, np.zeros(90))["ci95"] is None


@pytest.mark.parametrize("patients", [None, 10])
def test_the_card_says_whether_patients_or_images_are_sampled(run, patients):
    samples = run.samples
    if patients is not None:
        samples = replace(samples, groups=np.arange(len(samples.table)) % patients)
    stated = state(replace(run, samples=samples), best_student(run, "skd"), "youden")
    assert stated["test"]["groups"] == patients
    results = {"parity": {}, "results": {"arm": run.results["arms"]["skd"], "teachers": {}}}
    card = model_card(stated | results)
    alone = stated["test"]["subclasses"][0]["right"]
    if patients is None:
        assert "over images, each taken by itself (Wilson; AUROC: jackknife; Brier: Student)" in " ".join(card.split())
        assert "Patients or slides of the test images are not known." in card
        assert alone["ci95"] is not None
    else:
        assert "over 10 patients or slides, the images of one taken together (jackknife" in " ".join(card.split())
        assert "are not known. Where" not in card
        assert alone["ci95"] is None  # image n is of subclass n % 10, and of patient n % 10
        assert "(no interval: all of one patient or slide)" in card


def test_a_deployed_network_gives_the_probabilities_of_its_formula():
    hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 1, 1])
    logits = np.random.default_rng(0).normal(0, 3, (6, 5))
    pixels = torch.zeros(6, 5, 1, 1, dtype=torch.uint8)
    model = Deployed(Says(logits), hierarchy, temperature=1.7)
    classes, subclasses = (probs.numpy() for probs in model(pixels))
    of_subclass = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    of_class = np.stack([of_subclass[:, [0, 2]].sum(1), of_subclass[:, [1, 3, 4]].sum(1)], axis=1)
    scaled = of_class ** (1 / 1.7)
    scaled /= scaled.sum(1, keepdims=True)
    parent = np.array([0, 1, 0, 1, 1])
    assert classes == pytest.approx(scaled, abs=1e-6)
    assert subclasses == pytest.approx(scaled[:, parent] * of_subclass / of_class[:, parent], abs=1e-6)


def test_a_network_of_classes_has_one_output_and_resizes_in_the_graph(tmp_path):
    network = Normalised(SmallConvNet(3, in_chans=3), torch.full((3,), 0.4), torch.full((3,), 0.2), size=16)
    model = Deployed(network, SubclassHierarchy.identity(["a", "b", "c"]), 0.8).eval()
    to_onnx(model, (3, 24, 21), tmp_path / "m.onnx")
    session = make_session(tmp_path / "m.onnx", 1)
    assert [output.name for output in session.get_outputs()] == ["class_probabilities"]
    pixels = torch.randint(0, 256, (7, 3, 24, 21), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for count in (1, 7):
        with torch.no_grad():
            [exact] = model(pixels[:count])
        [given] = session.run(None, {"pixels": pixels[:count].numpy()})
        assert given == pytest.approx(exact.numpy(), abs=1e-5)


def test_the_bundle_is_the_student_of_the_highest_validation_f1(run, exported):
    out, stated, said = exported
    noted = {seed: store.notes(run.folder / f"students/skd-seed{seed}.safetensors")["best"] for seed in (0, 1)}
    best = max((0, 1), key=lambda seed: (noted[seed]["validation_f1"], -noted[seed]["validation_log_loss"]))
    assert stated["seed"] == best == best_student(run, "skd")[0].seed
    assert all(f"seed {seed} validation F1 {100 * noted[seed]['validation_f1']:.2f}" in said[0] for seed in (0, 1))
    weights = load_file(out / "model.safetensors")  # without the marks of a run
    trained = store.load(run.folder / f"students/skd-seed{best}.safetensors")
    assert weights.keys() == trained.keys()
    assert all(torch.equal(weights[name], trained[name]) for name in weights)


def test_the_bundle_answers_as_the_run_stored_it(run, exported):
    out, stated, _ = exported
    bundle, samples = Bundle(out, threads=1), run.samples
    answer = bundle.answer(np.ascontiguousarray(samples.images[samples.test]))
    logits = store.load(run.folder / f"predictions/students/skd-seed{stated['seed']}.safetensors")
    subclass_probs = logits["test"].double().softmax(-1).numpy()
    parent = np.array(samples.hierarchy.parent_indices)
    of_class = np.stack([subclass_probs[:, parent == c].sum(1) for c in range(2)], axis=1)
    expected = calibrated(np.log(of_class), stated["temperature"]["value"])
    assert answer.class_probs == pytest.approx(expected, abs=1e-4)
    assert answer.subclass_probs == pytest.approx(subclass_probs * (expected / of_class)[:, parent], abs=1e-4)
    right = answer.decisions == samples.class_labels[samples.test]
    assert stated["test"]["accuracy"]["value"] == pytest.approx(right.mean())
    counts = stated["test"]["counts"]
    positive = samples.class_labels[samples.test] == samples.positive
    assert (counts["tp"], counts["tn"]) == ((right & positive).sum(), (right & ~positive).sum())
    validation = logits["validation"].double().softmax(-1).numpy()
    of_validation = np.log(np.stack([validation[:, parent == c].sum(1) for c in range(2)], axis=1))
    labels = samples.class_labels[samples.validation]
    assert stated["temperature"]["value"] == pytest.approx(fit_temperature(of_validation, labels))
    probs = calibrated(of_validation, stated["temperature"]["value"])[:, samples.positive]
    assert bundle.threshold == pytest.approx(threshold_for("youden", probs, labels == samples.positive)[0])


def test_files_are_predicted_as_the_run_predicted_them(run, exported, tmp_path):
    out, stated, _ = exported
    rows, samples = run.samples.test[::7], run.samples
    for row in rows:
        Image.fromarray(samples.images[np.array([row])][0, 0]).save(tmp_path / f"{row:05}.png")
    answered = []
    bundle = Bundle(out, threads=1)
    assert predict_files(bundle, find_images([str(tmp_path)]), answered.extend) == (len(rows), 0)
    logits = store.load(run.folder / f"predictions/students/skd-seed{stated['seed']}.safetensors")["test"][::7]
    log_probs = samples.hierarchy.class_log_probs(logits.double()).numpy()
    expected = calibrated(log_probs, stated["temperature"]["value"])[:, samples.positive]
    positive = samples.hierarchy.classes[samples.positive]
    assert [row[f"class: {positive}"] for row in answered] == pytest.approx(expected.tolist(), abs=1e-4)
    threshold = stated["decision"]["threshold"]
    assert [row["decision"] == positive for row in answered] == (expected >= threshold).tolist()


def test_the_bundle_states_what_it_is(run, exported):
    out, stated, said = exported
    assert json.loads((out / "bundle.json").read_text("utf-8")) == stated
    names = ["MODEL_CARD.md", "model-int8.onnx", "model.onnx", "model.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == [names[0], "SHA256SUMS", "bundle.json", *names[1:]]
    sums = dict(reversed(line.split("  ")) for line in (out / "SHA256SUMS").read_text().splitlines())
    for name in (*names, "bundle.json"):
        assert sums[name] == hashlib.sha256((out / name).read_bytes()).hexdigest()
        if name != "bundle.json":
            assert stated["files"][name] == {"sha256": sums[name], "bytes": (out / name).stat().st_size}
    assert stated["parity"]["images"] == len(run.samples.test) == 200
    assert stated["parity"]["max_difference"] <= 1e-4
    assert stated["parity"]["decisions_changed"] == 0
    assert stated["data"]["fingerprint"] == run.samples.fingerprint
    assert stated["results"]["arm"] == run.results["arms"]["skd"]
    assert [row["network"] for row in stated["cost"]["networks"]] == ["student", "student, int8", "teacher: subclass"]
    for network in stated["cost"]["networks"]:
        assert {row["batch"] for row in network["latency"]} == {1, 32}
        assert all(0 < row["p50"] <= row["p95"] for row in network["latency"])
    assert str(Path(export.__file__).parents[2]).encode() not in (out / "model.onnx").read_bytes()
    assert "DICOM as a viewer first shows it: modality rescaling" in stated["preprocessing"]["said"]
    assert "MONOCHROME1 inverted; grey (ITU-R 601-2 luma)" in stated["preprocessing"]["said"]
    assert stated["versions"]["pydicom"] == version("pydicom")
    assert stated["versions"]["pillow"] == version("pillow")
    card = (out / "MODEL_CARD.md").read_text("utf-8")
    worst = min(stated["test"]["subclasses"], key=lambda row: row["right"]["value"])
    assert f"Worst: {worst['name']}, {100 * worst['right']['value']:.1f}" in card
    assert "not a medical device" in card
    assert f"{stated['decision']['threshold']:.4g}" in card
    assert any(line.startswith("ONNX agrees with PyTorch") for line in said)


def test_eight_bits_are_stated_with_what_they_change(run, exported):
    out, stated, said = exported
    int8, samples = stated["int8"], run.samples
    for split in ("validation", "test"):
        rows = getattr(samples, split)
        pixels = np.ascontiguousarray(samples.images[rows])
        truth = samples.class_labels[rows] == samples.positive
        called = [Bundle(out, int8=bits, threads=1).answer(pixels).decisions for bits in (False, True)]
        for name, decisions in zip(("float32", "int8"), called, strict=True):
            assert int8[split]["f1"][name] == pytest.approx(f1_score(truth, decisions == samples.positive))
        assert int8[split]["decisions_changed"] == (called[0] != called[1]).sum()
        assert int8[split]["images"] == len(rows)
    assert int8_lines(int8) == said[2:4]
    assert int8["advice"] == int8_advice(int8["validation"]) == said[3]
    card = (out / "MODEL_CARD.md").read_text("utf-8")
    assert f"**{int8['advice']}**" in card
    for split in ("validation", "test"):
        before, after = (f"{100 * int8[split]['f1'][name]:.1f}" for name in ("float32", "int8"))
        changed = int8[split]["decisions_changed"]
        assert f"| {split} | {int8[split]['images']} | {before} | {after} | {changed} |" in card


@pytest.mark.parametrize(
    ("validation", "test", "warns"),
    [((0.9, 0.8949), (0.9, 0.9), True), ((0.9, 0.8951), (0.9, 0.5), False), ((0.9, 0.95), (0.9, 0.9), False)],
)
def test_validation_images_alone_advise_on_8_bits(exported, validation, test, warns):
    rows = {
        split: exported[1]["int8"][split] | {"f1": {"float32": before, "int8": after}}
        for split, (before, after) in (("validation", validation), ("test", test))
    }
    advice = int8_advice(rows["validation"])
    assert ("WARNING" in advice) == ("MORE THAN 0.5 POINTS" in advice) == warns
    lines = int8_lines(exported[1]["int8"] | rows | {"advice": advice})
    assert f"F1 {100 * (validation[1] - validation[0]):+.2f} points on " in lines[0]
    assert f"F1 {100 * (test[1] - test[0]):+.2f} points on 200 test images" in lines[0]
    assert lines[1] == advice
    assert "NOT DEFINED" in int8_advice(rows["validation"] | {"f1": {"float32": None, "int8": None}})


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    """A student of one epoch on the images that come with the package: 500 of its test images are real ones."""
    out = tmp_path_factory.mktemp("runs") / "real"
    study = {
        "arms": ["scratch"],
        "seeds": 1,
        "workers": 1,
        "device": "cpu",
        "student": SMALL["student"] | {"epochs": 1},
    }
    run_study(make_study(study | {"data": {"train_images": 400}}), out)
    return open_run(out, *read_run(out, "scratch"), lambda done, total: None)


def test_onnx_is_pytorch_on_500_real_images(real, tmp_path):
    model = candidates.deployed_student(real, best_student(real, "scratch")[0], 1.3)
    to_onnx(model, real.shape, tmp_path / "m.onnx")
    parity = measure_parity(real, model, tmp_path / "m.onnx", 0.4)
    assert parity["images"] == 500 <= len(real.samples.test)
    assert parity["max_difference"] < 1e-5
    assert parity["decisions_changed"] == 0
    model.temperature = 1.4
    assert measure_parity(real, model, tmp_path / "m.onnx", 0.4)["max_difference"] > 1e-3


def test_the_benchmark_of_parity_tells_every_arm_of_a_run(run, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["parity", "--runs", str(run.folder), "--json", str(tmp_path / "parity.json")])
    parity_benchmark.main()
    rows = json.loads((tmp_path / "parity.json").read_text("utf-8"))["students"]
    assert [row["arm"] for row in rows] == ["scratch", "skd"]
    for row in rows:
        assert row["parity"]["images"] == 200
        assert row["parity"]["max_difference"] < 1e-4
        values = row["int8"]["validation"]["f1"]
        assert row["int8_change_of_f1"]["validation"] == values["int8"] - values["float32"]
    assert "no decision changed, 200 test images" in capsys.readouterr().out


def test_an_onnx_model_unlike_pytorch_is_refused_and_leaves_nothing(run, tmp_path, monkeypatch):
    def wrong(model, shape, path):
        to_onnx(Deployed(model.network, model.hierarchy, model.temperature * 1.01), shape, path)

    monkeypatch.setattr(export, "to_onnx", wrong)
    with pytest.raises(UserError, match="an ONNX model unlike PyTorch's"):
        export_student(run, "skd", tmp_path / "b", say=lambda line: None)
    assert list(tmp_path.iterdir()) == []


def failing(call, refuses, error):
    """Give a function in place of another, which fails where its arguments are of the teacher."""

    def instead(*arguments):
        if any(refuses(argument) for argument in arguments):
            raise error
        return call(*arguments)

    return instead


def is_teacher(argument):
    return isinstance(argument, Path) and argument.name == "teacher.onnx"


@pytest.mark.parametrize(
    ("where", "name", "reason"),
    [
        (export, "to_onnx", "teacher subclass: found a network that torch cannot export (no such operator); expected"),
        (
            latency,
            "measure",
            "teacher: subclass: found a network that onnxruntime cannot run (no such operator); expected",
        ),
    ],
)
def test_a_teacher_that_cannot_be_measured_is_missing_with_its_reason(run, where, name, reason, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    error = NotImplementedError("no such operator\nand more")
    monkeypatch.setattr(where, name, failing(getattr(where, name), is_teacher, error))
    said = []
    stated = export_student(run, "skd", tmp_path / "b", say=said.append)
    assert [row["network"] for row in stated["cost"]["networks"]] == ["student"]
    assert len(said) == 3
    assert said[2].startswith(f"Without the teacher's cost: {reason}")
    assert "\n" not in said[2]
    assert not (tmp_path / "b/teacher.onnx").exists()
    assert json.loads((tmp_path / "b/bundle.json").read_text("utf-8")) == stated


def test_a_teacher_s_lost_weights_are_named_and_a_fault_of_ours_stays_one(run, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    copy, said = tmp_path / "run", []
    shutil.copytree(run.folder, copy)
    shutil.rmtree(copy / "teachers")
    export_student(replace(run, folder=copy), "skd", tmp_path / "b", say=said.append)
    assert said[2].startswith(f"Without the teacher's cost: {copy / 'teachers'}")
    monkeypatch.setattr(export, "deployed_teacher", failing(None, lambda argument: True, KeyError("a fault of ours")))
    with pytest.raises(KeyError, match="a fault of ours"):
        export_student(run, "skd", tmp_path / "c", say=said.append)
    assert not (tmp_path / "c").exists()


def test_the_weights_state_what_their_own_arm_was_trained_with(run, tmp_path, monkeypatch):
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    shared = run.study.student.learning_rate
    study = run.study.model_copy(update={"per_arm": {"skd": Own(learning_rate=3 * shared)}})
    for arm, rate in (("skd", 3 * shared), ("scratch", shared)):
        export_student(replace(run, study=study), arm, tmp_path / arm, say=lambda line: None)
        with safe_open(tmp_path / arm / "model.safetensors", "pt") as file:
            network = json.loads(file.metadata()["network"])
        assert network["learning_rate"] == rate
        assert network["epochs"] == 2


def test_weights_that_did_not_make_the_predictions_are_refused(run, tmp_path):
    copy = tmp_path / "run"
    shutil.copytree(run.folder, copy)
    other = open_run(copy, *read_run(copy, "skd"), lambda done, total: None)
    best = best_student(other, "skd")[0]
    notes = store.notes(copy / best.weights)
    weights = store.load(copy / f"students/skd-seed{1 - best.seed}.safetensors")
    store.save(copy / best.weights, weights, "recipe", notes)
    with pytest.raises(UserError, match="off those that the run stored"):
        export_student(other, "skd", tmp_path / "b", say=lambda line: None)
    (copy / best.weights).unlink()
    with pytest.raises(UserError, match="a file that cannot be read"):
        export_student(other, "skd", tmp_path / "b", say=lambda line: None)
    assert not (tmp_path / "b").exists()


def test_runs_that_cannot_be_exported_are_refused(run, tmp_path):
    with pytest.raises(UserError, match=r"no study\.json; expected the folder of a finished run"):
        read_run(tmp_path, "skd")
    with pytest.raises(UserError, match=r'found "sdk"; expected one of scratch, skd\. Did you mean "skd"\?'):
        read_run(run.folder, "sdk")
    study, results = (json.loads((run.folder / name).read_text()) for name in ("study.json", "results.json"))
    study["data"]["folds"], study["data"]["fold"] = 3, None
    (tmp_path / "study.json").write_text(json.dumps(study))
    (tmp_path / "results.json").write_text(json.dumps(results))
    with pytest.raises(UserError, match=r"a run of 3 folds, .* Export one fold's student: skd export .*fold-0"):
        read_run(tmp_path, "skd")
    results["data"]["fingerprint"] = "0" * 16
    with pytest.raises(UserError, match="found other data than the run's"):
        open_run(run.folder, run.study, results, lambda done, total: None)
    (tmp_path / "there").mkdir()
    with pytest.raises(UserError, match="found something that is there; expected a new folder"):
        export_student(run, "skd", tmp_path / "there", say=lambda line: None)


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o755), (0o077, 0o700)])
def test_a_bundle_appears_beside_what_an_export_of_the_same_number_has_there(tmp_path, umask, mode):
    """As in a container that was started again, or two that share a folder; with the user's usual permissions."""
    other = tmp_path / f"deep/.b.{os.getpid()}.part"
    other.mkdir(parents=True)
    before = os.umask(umask)
    try:
        with export._appearing(tmp_path / "deep/b") as first:
            (first / "file").write_text("first")
            with export._appearing(tmp_path / "deep/c/b") as second:
                (second / "file").write_text("second")
    finally:
        os.umask(before)
    assert [(tmp_path / name / "file").read_text() for name in ("deep/b", "deep/c/b")] == ["first", "second"]
    assert stat.S_IMODE((tmp_path / "deep/b").stat().st_mode) == mode
    assert sorted(path.name for path in (tmp_path / "deep").iterdir()) == [other.name, "b", "c"]


def test_the_teacher_is_the_one_that_taught(run):
    name, teacher = candidates.deployed_teacher(run, best_student(run, "skd")[0])
    assert name == "subclass"
    seed = best_student(run, "skd")[0].seed
    stored = store.load(run.folder / f"predictions/teachers/subclass-seed{seed}.safetensors")["test"]
    with torch.no_grad():
        subclass_probs = teacher(torch.from_numpy(np.ascontiguousarray(run.samples.images[run.samples.test])))[1]
    assert subclass_probs.numpy() == pytest.approx(stored.softmax(-1).numpy(), abs=1e-5)


def test_the_command_exports_a_student_of_classes(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "SECONDS", 0.01)
    options = ["--arm", "scratch", "--threshold", "specificity=0.9", "--json"]
    app(["export", str(run.folder), "-o", str(tmp_path / "b"), *options], standalone_mode=False)
    stated = json.loads(capsys.readouterr().out)
    assert stated == json.loads((tmp_path / "b/bundle.json").read_text("utf-8"))
    assert stated["decision"]["validation"]["specificity"] >= 0.9
    assert stated["cost"]["networks"][1]["network"] == "teacher: subclass"
    answer = Bundle(tmp_path / "b").answer(np.ascontiguousarray(run.samples.images[run.samples.test[:3]]))
    assert answer.subclass_probs is None
    assert answer.class_probs.shape == (3, 2)


def test_a_wrong_export_is_refused_in_one_line_before_torch_is_loaded(run, tmp_path, python):
    (tmp_path / "there").mkdir()
    for arguments, message in (
        (["gone", "-o", "b"], "gone: found no study.json"),
        ([run.folder, "-o", "there"], "there: found something that is there"),
        ([run.folder, "-o", "b", "--arm", "kdd"], '--arm: found "kdd"; expected one of scratch, skd.'),
        ([run.folder, "-o", "b", "--threshold", "best"], '--threshold: found "best"; expected youden, f1'),
    ):
        code = (
            "import sys\ntry:\n import subclass_kd.cli as cli; cli.main(sys.argv[1:])\nfinally:\n print(*sys.modules)"
        )
        done = python("-c", code, "export", *map(str, arguments), cwd=tmp_path)
        assert done.returncode == 2, done.stderr
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert "torch" not in done.stdout.split()
    assert [path.name for path in tmp_path.iterdir()] == ["there"]


def test_names_in_a_model_card_are_text():
    assert as_text('"><img onerror=x>') == '"&gt;&lt;img onerror=x&gt;'
    assert as_text("a\n# b | [c](d) `e` *f*") == r"a \# b \| \[c\](d) \`e\` \*f\*"

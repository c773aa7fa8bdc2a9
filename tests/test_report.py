"""The report: its numbers by hand, and a page that shows names as names and asks for nothing."""

import base64
import importlib.util
import io
import itertools
import json
import math
import os
import re
import shutil
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from scipy.stats import binomtest
from scipy.stats import t as student_t
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from subclass_kd.calibration import calibrated, fit_temperature
from subclass_kd.counts import share_interval, wilson
from subclass_kd.errors import UserError
from subclass_kd.report import plots, refresh_report, write_report
from subclass_kd.report.content import content
from subclass_kd.report.folder import open_run
from subclass_kd.report.measures import (
    GRID,
    LEVEL_OF_BOTH,
    precision_recall,
    predictive_intervals,
    predictive_values,
    reliability,
    roc,
)
from subclass_kd.report.points import Choices
from subclass_kd.report.thumbnails import thumbnails
from subclass_kd.spreadsheet import csv_line

HOSTILE = [
    '<script>alert("x")</script>',
    '"><img src=x onerror=alert(1)>',
    "=HYPERLINK()",
    "{{ 7 * 7 }}",
    "'=a&amp;b;=1,\t+2",
]
CLASSES = ["</title>negative", '"><b>positive']
SUBCLASSES = dict(zip(HOSTILE, [CLASSES[0], CLASSES[1], CLASSES[1], CLASSES[0], CLASSES[1]], strict=True))
PARENT = np.array([CLASSES.index(name) for name in SUBCLASSES.values()])
SEEDS = [0, 7]
ARMS = {"scratch": 2, "kd": 2, "skd": 5}  # outputs
TEACHERS = {"class": 2, "subclass": 5}


def summary(values):
    mean = float(np.mean(values))
    return {"mean": mean, "std": 0.01, "ci95": [mean - 0.02, mean + 0.02], "per_seed": list(map(float, values))}


def one_part(folder, random, wrong, patients=0):
    """Write a part's samples and predictions; give its test labels and the logits of every network.

    With patients, test image n is of patient n % patients of this part.
    """
    folder.mkdir(parents=True)
    labels = {"train": np.arange(10) % 5, "validation": np.arange(40) % 5, "test": random.integers(5, size=80)}
    with (folder / "samples.csv").open("w", newline="", encoding="utf-8") as file:
        file.write(csv_line(["sample", "class", "subclass", "split", *(["group"] if patients else [])]))
        for split, numbers in labels.items():
            for place, k in enumerate(numbers):
                names = f"=cmd()<i>{split}{place}", list(SUBCLASSES.values())[k], HOSTILE[k]
                group = [f"{folder.name}-{split}-{place % patients}"] if patients else []
                file.write(csv_line([*names, split, *group]))
    logits = {}
    for role, networks in (("students", ARMS), ("teachers", TEACHERS)):
        for name, outputs in networks.items():
            for seed in SEEDS:
                tensors = {}
                for split in ("validation", "test"):
                    truth = labels[split] if outputs == 5 else PARENT[labels[split]]
                    tensors[split] = np.float32(
                        random.normal(0, wrong, (len(truth), outputs)) + 2 * np.eye(outputs)[truth]
                    )
                path = folder / f"predictions/{role}/{name}-seed{seed}.safetensors"
                path.parent.mkdir(parents=True, exist_ok=True)
                save_file(tensors, path)
                logits[name, seed] = tensors
                trained = folder / f"{role}/{name}-seed{seed}.safetensors"
                trained.parent.mkdir(parents=True, exist_ok=True)
                best = {"validation_f1": 0.8, "validation_log_loss": 0.4 if seed else 0.5}
                history = [{"epoch": e + 1, "loss": 1 / (e + 1), "validation_f1": 0.5 + e / 10} for e in range(3)]
                save_file({"w": np.zeros(1)}, trained, {"notes": json.dumps({"history": history, "best": best})})
    return labels, logits


def make_run(folder, folds=0, wrong=1.5, fingerprint="0123456789abcdef", patients=0):
    random = np.random.default_rng(3)
    places = [folder / f"fold-{fold}" for fold in range(folds)] or [folder]
    parts = [one_part(place, random, wrong, patients) for place in places]
    rows = [
        {
            "name": name,
            "class": of,
            "train": 2,
            "validation": 8,
            "test": int(sum((p[0]["test"] == k).sum() for p in parts)),
        }
        for k, (name, of) in enumerate(SUBCLASSES.items())
    ]
    data = {"classes": CLASSES, "positive": CLASSES[1], "subclasses": rows, "votes": None}
    data["groups"] = {"train": patients, "validation": patients, "test": patients * (folds or 1)} if patients else None
    data |= {"image_shape": [1, 8, 8], "fingerprint": fingerprint}
    metrics = ("f1", "auroc", "sensitivity", "specificity", "brier", "ece", "subclass_accuracy")
    row = {name: summary([0.811, 0.833]) for name in metrics} | {"parameters": 1234, "train_seconds": 1.0}
    pair = {"metric": "f1", "difference": 0.0123, "ci95": [-0.0045, 0.0291], "p_value": 0.2, "p_holm": 0.4}
    pair |= {"verdict": "inconclusive", "seeds": 2, "test_images": 80, "test_groups": None}
    bits = {"symmetric": 0.5, "mutual_information": 0.6, "soft": 0.9, "ceiling": 1.2, "accuracy": 0.7, "images": 10}
    results = {
        "schema": 1,
        "study": {"seeds": SEEDS, "data": {"kind": "folder", "root": "<b>/data"}},
        "environment": {"subclass_kd": "0.1.0", "torch": "2", "arithmetic": {"teacher": "float32"}},
        "data": data | ({"folds": [data] * folds} if folds else {}),
        "teachers": dict.fromkeys(TEACHERS, row),
        "label_bits": {"train": bits, "test": bits},
        "arms": dict.fromkeys(ARMS, row),
        "comparisons": [
            {"arm": "kd", "reference": "scratch", **pair, "ci95": None, "p_holm": None, "reason": "<u>One seed.</u>"},
            {"arm": "skd", "reference": "kd", **pair},
        ],
        "diagnosis": {
            "facts": {},
            "findings": [{"kind": "weak <teacher>", "found": "F.", "meaning": "M.", "try": "T."}],
        },
        "power": [{"needed": [], "reason": "<i>One seed.</i>"}],
    }
    (folder / "results.json").write_text(json.dumps(results), "utf-8")
    return parts


class Page(HTMLParser):
    """Reads a page, and notes what a browser would act on."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, text):
        super().__init__()
        self.open, self.tags, self.texts, self.ids = [], [], [], []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.ids += [value for key, value in attrs if key == "id"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append((tuple(self.open), data))


@pytest.fixture(scope="module", params=[0, 2], ids=["one split", "two folds"])
def made(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("run") / "a run"
    parts = make_run(folder, request.param)
    return folder, parts, write_report(folder).read_text("utf-8")


@pytest.mark.parametrize(("right", "n"), [(0, 5), (5, 5), (3, 7), (81, 263), (999, 1000)])
@pytest.mark.parametrize("level", [0.95, 0.99])
def test_wilson_is_scipys(right, n, level):
    expected = binomtest(right, n).proportion_ci(level, "wilson")
    assert wilson(right, n, level) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_predictive_values_are_bayes_and_their_intervals_cover():
    ppv, npv = predictive_values(0.8, 0.95, 0.02)
    assert ppv == pytest.approx(0.8 * 0.02 / (0.8 * 0.02 + 0.05 * 0.98))
    assert npv == pytest.approx(0.95 * 0.98 / (0.95 * 0.98 + 0.2 * 0.02))
    random = np.random.default_rng(1)
    drawn = zip(random.binomial(60, 0.8, 2000).tolist(), random.binomial(200, 0.95, 2000).tolist(), strict=True)
    inside = np.zeros(2)
    for found, cleared in drawn:
        both = wilson(found, 60, LEVEL_OF_BOTH), wilson(cleared, 200, LEVEL_OF_BOTH)
        ends = predictive_intervals(*both, 0.02)
        inside += [low <= value <= high for (low, high), value in zip(ends, (ppv, npv), strict=True)]
    assert (inside / 2000 >= 0.95).all()
    assert predictive_values(0.0, 1.0, 0.1) == (None, pytest.approx(0.9))


def test_curves_hold_the_areas():
    random = np.random.default_rng(2)
    truth = random.random(3000) < 0.3
    scores = 1 / (1 + np.exp(-random.normal(truth * 1.5, 1)))
    assert np.trapezoid(roc(scores, truth), GRID) == pytest.approx(roc_auc_score(truth, scores), abs=2e-3)
    line, area = precision_recall(scores, truth)
    assert area == average_precision_score(truth, scores)
    assert np.trapezoid(line, GRID) == pytest.approx(area, abs=0.01)
    few, _ = precision_recall(np.array([0.9, 0.8, 0.7]), np.array([True, False, True]))
    assert few[[0, 50, 51, 100]] == pytest.approx([1, 1, 2 / 3, 2 / 3])
    bins = reliability(scores, truth)
    assert sum(each.images for each in bins) == 3000
    assert sum(each.images * each.observed for each in bins) == pytest.approx(truth.sum())


def test_names_are_text_and_nothing_is_asked_for(made):
    _, _, text = made
    page = Page(text)
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "iframe", "link", "object", "b", "i", "u", "form"})
    for _, attributes in page.tags:
        assert not any(key.startswith("on") for key in attributes)
        for key in ("src", "href", "xlink:href", "action", "srcset"):
            assert attributes.get(key, "#").startswith(("#", "data:image/png;base64,"))
    assert "url(" not in text
    assert "@import" not in text
    shown = "".join(data for _, data in page.texts)
    others = ["<u>One seed.</u>", "=cmd()<i>test", "weak <teacher>", "<b>/data", "<i>One seed.</i>"]
    for name in [*HOSTILE, *CLASSES, *others]:
        assert name in shown
    assert "'=cmd()" not in shown
    assert len(text.encode()) < 3_000_000


def test_the_page_can_be_heard(made):
    page = Page(made[2])
    assert len(page.ids) == len(set(page.ids))
    assert ("html", {"lang": "en"}) in page.tags
    named = set(page.ids)
    for tag, attributes in page.tags:
        if tag == "svg":
            assert attributes["role"] == "img"
        if tag == "img":
            assert attributes["alt"]
        if tag == "th":
            assert attributes["scope"]
        for key in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(key, "main") in named
        if attributes.get("href"):
            assert attributes["href"][1:] in named
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_the_answer_comes_first_with_its_interval(made):
    shown = [data.strip() for where, data in Page(made[2]).texts if where[-1:] == ("p",) and data.strip()]
    assert (
        shown[0]
        == "Inconclusive: skd minus kd is +1.2 F1 points (95 % interval -0.4 to +2.9, 2 seeds, 80 test images)."
    )


def test_of_folds_curves_and_areas_are_the_mean_of_each_fold_s_own(made):
    folder, parts, _ = made
    shown = content(open_run(folder), Choices(), images=False)
    areas, precisions = [], []
    for seed in SEEDS:
        for labels, logits in parts:
            powers = np.exp(logits["skd", seed]["test"].astype(float))
            scores, truth = powers[:, PARENT == 1].sum(1) / powers.sum(1), PARENT[labels["test"]] == 1
            areas.append(roc_auc_score(truth, scores))
            precisions.append(average_precision_score(truth, scores))
    row = next(each for each in shown["areas"] if each["name"] == "skd")
    assert np.mean(row["ap"]) == pytest.approx(np.mean(precisions))
    low, high = row["best_ci95"]
    of_best = np.mean(areas[len(parts) :])  # of seed 7
    assert 0.5 < low < of_best < high < 1


def test_operating_points_by_hand(made):
    folder, parts, _ = made
    found = {row["rule"]: row for row in content(open_run(folder), Choices(), images=False)["operating"]}
    right, of = np.zeros(2), np.zeros(2)
    thresholds, temperatures = [], []
    for labels, logits in parts:  # seed 7 is best on validation
        of_class = {}
        for split, values in logits["skd", 7].items():
            powers = np.exp(values.astype(float))
            of_class[split] = np.log(
                np.stack([powers[:, c == PARENT].sum(1) for c in (0, 1)], 1) / powers.sum(1)[:, None]
            )
        temperatures.append(fit_temperature(of_class["validation"], PARENT[labels["validation"]]))
        probs = {split: calibrated(values, temperatures[-1])[:, 1] for split, values in of_class.items()}
        positive = PARENT[labels["validation"]] == 1
        scores = probs["validation"]
        between = np.convolve([0, *sorted(scores), 1], [0.5, 0.5], "valid")
        gains = [(scores[positive] > t).mean() - (scores[~positive] > t).mean() for t in between]
        thresholds.append(min(between[np.isclose(gains, max(gains))], key=lambda t: abs(t - 0.5)))
        truth, called = PARENT[labels["test"]] == 1, probs["test"] >= thresholds[-1]
        right += [(called & truth).sum(), (~called & ~truth).sum()]
        of += [truth.sum(), (~truth).sum()]
    assert found["youden"]["thresholds"] == pytest.approx(thresholds)
    assert found["youden"]["temperatures"] == pytest.approx(temperatures)
    assert abs(temperatures[0] - 1) > 0.05  # or nothing is told of it
    assert found["youden"]["sensitivity"] == right[0] / of[0]
    assert found["youden"]["specificity"] == right[1] / of[1]
    assert found["youden"]["sensitivity_ci95"] == pytest.approx(wilson(right[0], of[0]))
    at = found["youden"]["predictive"][0]
    assert at["ppv"] == pytest.approx(right[0] / (right[0] + of[1] - right[1]))
    assert [row["prevalence"] for row in found["cost"]["predictive"]][1:] == [0.01, 0.05, 0.2, 0.5]


def test_rules_and_prevalences_stand_as_they_were_given(made, tmp_path):
    folder, _, _ = made
    choices = Choices(specificity=0.995, miss_cost=2.5, prevalences=(0.0004, 0.00125))
    text = Page(write_report(folder, tmp_path / "page.html", choices).read_text("utf-8")).texts
    shown = " ".join(data.strip() for _, data in text)
    assert "specificity ≥ 99.5 % on validation" in shown
    assert "a miss costing 2.5 false alarms" in shown
    assert [data for where, data in text if where[-1:] == ("td",) and data in ("0.04", "0.125")] == [
        "0.04",
        "0.125",
    ] * 3
    lead = next(row for row in content(open_run(folder), choices, images=False)["operating"] if row["rule"] == "youden")
    assert f"chose by Youden's rule, finds {100 * lead['sensitivity']:.1f} %" in " ".join(shown.split())
    assert "Deciding by the highest probability, without a threshold, all students of skd together" in shown


def test_matrices_and_subclasses_by_hand(made):
    folder, parts, _ = made
    shown = content(open_run(folder), Choices(), images=False)
    truth = np.concatenate([labels["test"] for labels, _ in parts])
    logits = {seed: np.concatenate([each["skd", seed]["test"] for _, each in parts]).astype(float) for seed in SEEDS}
    expected = np.mean(
        [confusion_matrix(truth, each.argmax(1), labels=range(5), normalize="true") for each in logits.values()], axis=0
    )
    np.testing.assert_allclose(shown["subclass_confusion"]["shares"], expected, atol=1e-12)
    called = {
        seed: np.stack([np.exp(each)[:, c == PARENT].sum(1) for c in (0, 1)], axis=1).argmax(1)
        for seed, each in logits.items()
    }
    expected = np.mean([confusion_matrix(PARENT[truth], each, normalize="true") for each in called.values()], axis=0)
    np.testing.assert_allclose(shown["confusions"][0]["shares"], expected, atol=1e-12)
    by_name = {row["name"]: row for row in shown["per_subclass"]}
    for k, name in enumerate(HOSTILE):
        here = truth == k
        by_seed = [(each[here] == PARENT[k]).mean() for each in called.values()]
        assert by_name[name]["images"] == here.sum()
        assert by_name[name]["arms"][0]["mean"] == pytest.approx(np.mean(by_seed))
        assert by_name[name]["arms"][0]["ci95"] == pytest.approx(wilson(np.mean(by_seed) * here.sum(), here.sum()))
    assert shown["worst"]["arms"][0]["mean"] == min(row["arms"][0]["mean"] for row in shown["per_subclass"])
    probs = np.exp(np.concatenate([each["subclass", 0]["test"] for _, each in parts]).astype(float))
    again = np.exp(np.concatenate([each["subclass", 7]["test"] for _, each in parts]).astype(float))
    mean = (probs / probs.sum(1, keepdims=True) + again / again.sum(1, keepdims=True)) / 2
    np.testing.assert_allclose(shown["similarity"]["shares"][2], mean[truth == 2].mean(0), atol=1e-12)
    rows = shown["errors"]["rows"]
    assert [row["probability"] for row in rows] == sorted((row["probability"] for row in rows), reverse=True)
    assert shown["errors"]["wrong"] == (called[7] != PARENT[truth]).sum()
    assert all(called[7][row["number"]] != PARENT[truth[row["number"]]] for row in rows)


@pytest.mark.parametrize("folds", [0, 2])
def test_where_patients_are_known_they_are_what_is_sampled(folds, tmp_path):
    """Leave one patient out after the other, here by a loop over them."""
    patients = 8
    parts = make_run(run := tmp_path / "run", folds, patients=patients)
    shown = content(open_run(run), Choices(), images=False)
    labels = np.concatenate([each["test"] for each, _ in parts])
    of = np.concatenate([np.arange(80) % patients + patients * fold for fold in range(len(parts))])
    probs = []
    for seed in SEEDS:
        powers = np.exp(np.concatenate([each["skd", seed]["test"] for _, each in parts]).astype(float))
        probs.append(np.stack([powers[:, c == PARENT].sum(1) for c in (0, 1)], axis=1).argmax(1))

    def by_hand(right, groups):
        each = np.unique(groups)
        p = right.mean()
        left = np.array([right[groups != group].mean() for group in each])
        variance = (len(each) - 1) / len(each) * ((left - left.mean()) ** 2).sum()
        n = min(p * (1 - p) / variance, len(right)) if variance > 0 else len(each)
        z = student_t(len(each) - 1).ppf(0.975)
        middle, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
        return pytest.approx(((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n)), abs=1e-9)

    positive = PARENT[labels] == 1
    highest = shown["operating"][0]
    assert highest["sensitivity_ci95"] == by_hand(probs[1][positive] == 1, of[positive])  # seed 7 is the best
    assert highest["specificity_ci95"] == by_hand(probs[1][~positive] == 0, of[~positive])
    row = next(row for row in shown["per_subclass"] if row["name"] == HOSTILE[2])
    right = np.mean([each[labels == 2] == 1 for each in probs], axis=0)
    assert row["arms"][0]["ci95"] == by_hand(right, of[labels == 2])
    assert shown["calibration"][0]["bins"][0].ci95 is not None
    page = write_report(run).read_text("utf-8")
    assert page.count("over patients or groups, all images of one together") == 2
    assert "These intervals take all images of a patient or group together." in page
    assert "Wilson's 95 % interval" not in page


def test_an_image_without_a_patient_is_one_by_itself(tmp_path):
    make_run(run := tmp_path / "run", patients=8)
    lines = (run / "samples.csv").read_text("utf-8").replace("run-test-3", "")
    (run / "samples.csv").write_text(lines, "utf-8")
    assert len(np.unique(open_run(run).groups("test"))) == 7 + 10
    assert len(np.unique(open_run(run).groups("validation"))) == 8


def test_intervals_over_patients_cover_where_those_over_images_do_not():
    """Patients of ten images who are alike: beta-binomial, 90 % right, correlation 0.3."""
    random = np.random.default_rng(0)
    groups = np.repeat(np.arange(20), 10)
    inside = np.zeros(2)
    for _ in range(400):
        right = random.random(200) < random.beta(0.9 * 7 / 3, 0.1 * 7 / 3, 20)[groups]
        for k, ends in enumerate((share_interval(right, groups), share_interval(right))):
            inside[k] += ends[0] <= 0.9 <= ends[1]
    assert inside[0] / 400 > 0.91
    assert inside[1] / 400 < 0.75
    assert share_interval(np.ones(10), np.zeros(10)) is None
    alike = share_interval(np.ones(60), np.repeat(np.arange(6), 10))
    z = student_t(5).ppf(0.975)
    assert alike == pytest.approx((6 / (6 + z * z), 1))  # six patients, not sixty images


def test_without_images_no_name_of_a_sample_is_told(made, tmp_path):
    page = write_report(made[0], tmp_path / "page.html", images=False).read_text("utf-8")
    assert "cmd()" in made[2]
    assert "cmd()" not in page


@pytest.mark.parametrize("epochs", [1, 200, 201, 5_000, 20_000])
def test_pictures_of_trainings_do_not_grow_with_the_epochs(epochs):
    """A line of 200 epochs at most, with the first and the last; one epoch's value far off is in the band."""
    values = np.random.default_rng(0).random((2, epochs))
    values[:, 0], values[:, -1] = 0.25, 0.75
    values[1, epochs // 3] = 100.0
    drawn = plots.training("key", "title", "loss", {f"arm {number}": values for number in range(6)})
    assert len(drawn) < 60_000
    lines = re.findall(r'<polyline points="([^"]*)" class="line s\d">', drawn)[:6]
    bands = re.findall(r'<polygon points="([^"]*)" class="band s\d">', drawn)
    assert len(lines) == len(bands) == 6
    spread = values.max() - values.min()
    low, high = values.min() - 0.04 * spread, values.max() + 0.04 * spread
    for line, band in zip(lines, bands, strict=True):
        points, around = (np.array([pair.split(",") for pair in each.split()], float) for each in (line, band))
        assert len(points) == min(epochs, 200)
        assert len(around) == 2 * len(points)
        middle = values.mean(0)
        for (x, y), at in ((points[0], 0), (points[-1], epochs - 1)):
            assert x == pytest.approx(54 + 274 * at / max(epochs - 1, 1), abs=0.06)
            assert y == pytest.approx(10 + 200 * (high - middle[at]) / (high - low), abs=0.06)
        assert around[:, 1].min() == pytest.approx(10 + 200 * (high - 100) / (high - low), abs=0.06)
        highest = around[around[:, 1].argmin(), 0]
        assert highest == pytest.approx(54 + 274 * (epochs // 3) / max(epochs - 1, 1), abs=274 / 200)
        assert around[:, 1].max() == pytest.approx(10 + 200 * (high - values.min()) / (high - low), abs=0.06)


def test_a_report_of_the_folder_one_is_in_names_it(tmp_path, monkeypatch):
    make_run(tmp_path / "my run")
    monkeypatch.chdir(tmp_path / "my run")
    for folder in (Path(), Path("../my run")):
        page = write_report(folder).read_text("utf-8")
        assert "<code>skd run study.yaml --out &#39;my run&#39;</code>" in page


def test_a_plain_study_has_a_report(tmp_path):
    """One arm, one seed, no teacher, no comparison."""
    make_run(tmp_path / "run")
    path = tmp_path / "run/results.json"
    results = json.loads(path.read_text("utf-8"))
    results |= {"comparisons": [], "teachers": {}, "label_bits": None, "arms": {"scratch": results["arms"]["scratch"]}}
    results["study"]["seeds"] = [0]
    results["arms"]["scratch"]["f1"] |= {"std": None, "ci95": None}
    del results["diagnosis"]
    path.write_text(json.dumps(results), "utf-8")
    shown = "".join(data for _, data in Page(write_report(tmp_path / "run").read_text("utf-8")).texts)
    assert "No pair of arms to compare: scratch." in shown
    assert "Label bits" not in shown


def test_three_classes(tmp_path, monkeypatch):
    classes, of = ["a", "b", "c"], ["a", "b", "c", "a", "b"]
    for name, value in (
        ("CLASSES", classes),
        ("SUBCLASSES", dict(zip(HOSTILE, of, strict=True))),
        ("PARENT", np.array([classes.index(each) for each in of])),
        ("ARMS", {"scratch": 3, "kd": 3, "skd": 5}),
        ("TEACHERS", {"class": 3, "subclass": 5}),
    ):
        monkeypatch.setitem(globals(), name, value)
    [(labels, _)] = make_run(tmp_path / "run")
    shown = content(open_run(tmp_path / "run"), Choices(), images=False)
    assert shown["confusions"][0]["shares"].sum(1) == pytest.approx(np.ones(3))
    counts = shown["operating"][0]["counts"]
    assert (counts.positives, counts.negatives) == (
        (PARENT[labels["test"]] == 1).sum(),
        (PARENT[labels["test"]] != 1).sum(),
    )
    text = " ".join(write_report(tmp_path / "run").read_text("utf-8").split())
    assert "mean of all 3 classes" in text
    lead = shown["operating"][0]  # a bundle of three classes decides so
    assert f"deciding by its highest probability, finds {100 * lead['sensitivity']:.1f} % of the test images" in text
    assert "a bundle of 3 classes decides by the highest probability" in text
    assert "200 % is the worst" in text


def test_a_report_is_made_anew_only_after_new_results(tmp_path):
    make_run(run := tmp_path / "run")
    first = refresh_report(run).stat().st_mtime_ns
    assert refresh_report(run).stat().st_mtime_ns == first
    os.utime(run / "results.json", ns=(first + 1, first + 1))
    assert refresh_report(run).stat().st_mtime_ns > first


def test_images_that_were_left_out_stay_out_until_they_are_asked_for(tmp_path):
    make_run(run := tmp_path / "run")
    assert "cmd()" in refresh_report(run).read_text("utf-8")
    assert not (run / "report.json").exists()
    write_report(run, tmp_path / "elsewhere.html", images=False)
    assert not (run / "report.json").exists()
    write_report(run, images=False, choices=Choices(prevalences=(0.03,)))
    kept = {"images": False, "specificity": 0.9, "miss_cost": 5.0, "prevalences": [0.03]}
    assert json.loads((run / "report.json").read_text("utf-8")) == kept
    for _ in range(2):
        later = (run / "report.html").stat().st_mtime_ns + 1
        os.utime(run / "results.json", ns=(later, later))
        page = refresh_report(run).read_text("utf-8")
        assert "cmd()" not in page
        assert "left out by --no-images" in page
        assert "<td>3</td>" in page
    (run / "report.html").unlink()
    assert "cmd()" not in refresh_report(run).read_text("utf-8")
    assert "cmd()" in write_report(run, images=True).read_text("utf-8")
    assert "cmd()" in write_report(run).read_text("utf-8")
    for damage in ("{", "[]", "{}", '{"images": 1, "prevalences": []}', '{"images": true, "prevalences": [2]}'):
        (run / "report.json").write_text(damage)
        with pytest.raises(UserError):
            write_report(run)


@pytest.mark.skipif(shutil.which("chromium") is None, reason="no Chromium")
def test_a_browser_logs_nothing_and_asks_for_nothing(tmp_path):
    path = Path(__file__).parent.parent / "scripts/screenshots.py"
    spec = importlib.util.spec_from_file_location("screenshots", path)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    make_run(tmp_path / "run")
    assert script.chromium("chromium", write_report(tmp_path / "run"), "--dump-dom") == []
    (tmp_path / "bad.html").write_text("<title>bad</title><p>bad<img src='http://example.invalid/x.png'>")
    found = script.chromium("chromium", tmp_path / "bad.html", "--dump-dom")
    assert found == ["asked for http://example.invalid/x.png"]


def test_thumbnails_are_the_images(tmp_path):
    from PIL import Image

    from subclass_kd.data.samples import load_samples
    from subclass_kd.study_file import make_study

    study = make_study({"data": {"train_images": 100}})
    samples = load_samples(study)
    (tmp_path / "study.json").write_text(json.dumps(study.model_dump(mode="json")), "utf-8")
    found = thumbnails([tmp_path], [samples.fingerprint], [3, 40])
    for number, uri in found.items():
        with Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1]))) as image:
            pixels = np.asarray(image)
        np.testing.assert_array_equal(pixels[::3, ::3], samples.images[samples.test[number]][0])
    assert list(found) == [3, 40]
    with pytest.raises(UserError, match="other data now"):
        thumbnails([tmp_path], ["0" * 16], [3])


def test_what_is_wrong_is_told(tmp_path):
    with pytest.raises(UserError, match=r"found no results.json; expected the folder of a finished run"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text("{")
    with pytest.raises(UserError, match=r"results.json: found a file that cannot be read"):
        write_report(tmp_path)
    (tmp_path / "results.json").write_text('{"schema": 2}')
    with pytest.raises(UserError, match="schema 1"):
        write_report(tmp_path)
    run = tmp_path / "run"
    make_run(run)
    predictions = run / "predictions/students/skd-seed0.safetensors"
    save_file({"validation": np.zeros((40, 5)), "test": np.zeros((79, 5))}, predictions)
    with pytest.raises(UserError, match=r"found predictions of shape \(79, 5\); expected 80 rows"):
        write_report(run)
    predictions.write_bytes(b"no tensors")
    with pytest.raises(UserError, match="cannot be read"):
        write_report(run)
    (run / "samples.csv").unlink()
    with pytest.raises(UserError, match=r"samples.csv"):
        write_report(run)
    assert not (run / "report.html").exists()


@pytest.mark.parametrize("wrong", [{"specificity": 1.0}, {"miss_cost": 0}, {"prevalences": (0.1, 5.0)}])
def test_choices_out_of_range(wrong):
    with pytest.raises(UserError, match="expected a"):
        Choices(**wrong)


def test_the_command(tmp_path, python):
    make_run(tmp_path / "run")
    started = time.monotonic()
    code = "import sys; from subclass_kd.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    refused = python("-c", code, "report", "nowhere", cwd=tmp_path)
    assert time.monotonic() - started < 30
    assert (refused.returncode, refused.stdout.strip()) == (2, "False")
    assert refused.stderr.startswith("skd: nowhere: found no results.json; expected the folder of a finished run.")
    done = python("-m", "subclass_kd.cli", "report", "run", "-o", "page.html", "--prevalence", "0.03", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "skd: wrote page.html\n")
    assert "3.0" in (tmp_path / "page.html").read_text("utf-8")
    assert python("-m", "subclass_kd.cli", "report", "run", "--specificity", "2", cwd=tmp_path).returncode == 2
    # What is not said is as for the last report of the run.
    for options in (["--no-images", "--specificity", "0.8"], ["--miss-cost", "7"]):
        assert python("-m", "subclass_kd.cli", "report", "run", *options, cwd=tmp_path).returncode == 0
    kept = json.loads((tmp_path / "run/report.json").read_text())
    assert (kept["images"], kept["specificity"], kept["miss_cost"]) == (False, 0.8, 7)

"""What speaks against distillation in a study: each condition alone, none in a healthy study."""

import copy
import io
import json
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import nn

from subclass_kd import SubclassHierarchy, conditions, store
from subclass_kd.config import Student, Study
from subclass_kd.diagnosis import ADVICE, diagnose, first_verdict
from subclass_kd.display_tables import show_diagnosis, show_power
from subclass_kd.evaluation import summarise
from subclass_kd.facts import embedding_width, facts, target_facts
from subclass_kd.models import build_model

DOCS = Path(__file__).parents[1] / "docs"
HIERARCHY = SubclassHierarchy.from_parent([0, 0, 1, 1])


def network(f1, epochs=(18, 20, 17), validation=0.9):
    spread = (-0.002, 0.0, 0.002)
    f1s = summarise([f1 + each for each in spread[: len(epochs)]])
    rates = {name: summarise([f1] * len(epochs)) for name in ("sensitivity", "specificity", "auroc")}
    return {"f1": f1s, **rates, "best_epoch": list(epochs), "validation_f1": [validation] * len(epochs)}


def comparison(reference, difference, verdict="inconclusive", variance=(1e-5, 1e-5, 5e-6), seeds=10):
    parts = dict(zip(("seeds", "images", "seed_images"), variance, strict=True)) if variance else None
    return {
        "arm": "skd",
        "reference": reference,
        "difference": difference,
        "verdict": verdict,
        "seeds": seeds,
        "test_images": 2000,
        "test_groups": None,
        "variance": parts,
    }


def healthy():
    """A study of five subclasses a class whose skd does not gain for no reason that can be known."""
    return {
        "study": {"seeds": [0, 1, 2], "student": {"epochs": 20}},
        "data": {
            "positive": "ill",
            "subclasses": [
                {"class": name, "validation": 60, "test": 200} for name in ("well", "ill") for _ in range(5)
            ],
            "groups": None,
        },
        "teachers": {"subclass": network(0.95)},
        "arms": {
            "scratch": network(0.90),
            "subclass-labels": network(0.905),
            "kd": network(0.91),
            "skd": network(0.915),
            "skd-shuffled": network(0.90),
        },
        "label_bits": {
            "train": {"soft": 1.8, "mutual_information": 1.75, "ceiling": 2.32, "images": 2400},
            "test": {"soft": 1.7, "mutual_information": 1.6, "ceiling": 2.32, "images": 2000},
        },
        # What 10 seeds see is below 1.5 points
        "comparisons": [comparison("kd", 0.005), comparison("scratch", 0.015)],
    }


def healthy_facts():
    targets = {"images": 2400, "sure": 0.3, "within_class": 0.5, "entropy": 0.7, "information": 2.6}
    return {"networks": 3, "temperature": 1.0, "targets": targets, "embedding": 32, "unlearned": 0.05}


def set_to(content, path, value):
    *parents, last = path
    for key in parents:
        content = content[key]
    content[last] = value


def found_with(changes=(), of_facts=()):
    results, known = copy.deepcopy(healthy()), healthy_facts()
    for path, value in changes:
        set_to(results, path, value)
    for path, value in of_facts:
        set_to(known, path, value)
    findings = diagnose(results, known)
    json.dumps(findings, allow_nan=False)
    return findings


def test_a_healthy_study_has_no_findings():
    assert found_with() == []
    assert diagnose(healthy()) == []
    assert diagnose(healthy(), {}) == []


FEW = comparison("kd", 0.005, variance=(1e-4, 1e-5, 0))
ALONE = [
    (
        "too few seeds or images",
        [(("comparisons", 0), FEW)],
        [],
        ["+0.5 points", "10 seeds and 2,000 test images", "80 %"],
    ),
    (
        "too few seeds or images",
        [(("comparisons", 0), comparison("kd", 0.005, variance=None, seeds=1) | {"reason": "One seed cannot tell."})],
        [],
        ["1 seed and 2,000 test images", "no interval: one seed cannot tell."],
    ),
    ("weak teacher", [(("teachers", "subclass"), network(0.92))], [], ["92.0 %", "90.0 %", "+2.0 points", "3 seeds"]),
    ("weak teacher", [(("teachers", "subclass"), network(0.88))], [], ["-2.0 points"]),
    (
        "one-hot targets",
        [],
        [(("targets", "sure"), 0.93)],
        ["93 %", "2,400 training images", "0.50 bits", "3 teachers"],
    ),
    (
        "memorised targets",
        [(("label_bits", "train", "soft"), 2.2)],
        [],
        ["2.20 label bits", "2,000 test images", "holds 1.60", "ceiling 2.32", "3 seeds"],
    ),
    (
        "few label bits",
        [(("label_bits", "test", "mutual_information"), 0.2), (("label_bits", "train", "soft"), 0.3)],
        [],
        ["0.20 of 2.32", "2,000 test images", "3 seeds"],
    ),
    (
        "flat targets",
        [],
        [(("temperature",), 4.0), (("targets", "entropy"), 2.5)],
        ["temperature 4", "2.50 bits", "3.32", "3 teachers"],
    ),
    ("narrow embedding", [], [(("embedding",), 8)], ["10 subclasses from 8 numbers; 9"]),
    (
        "underfitted student",
        [(("arms", "skd", "validation_f1"), [0.8, 0.82, 0.84])],
        [(("unlearned",), 0.25)],
        ["25 %", "82.0 %", "90.0 %", "3 students", "best epoch 18 of 20"],
    ),
    (
        "other test images",
        [(("arms", "skd", "validation_f1"), [0.97, 0.98, 0.99])],
        [],
        [
            "98.0 % on 600 validation images",
            "91.5 % on 2,000 test images",
            "specificity 92 %",
            "AUROC of scratch 90.0 %",
        ],
    ),
    (
        "shuffled subclasses do as well",
        [(("arms", "skd-shuffled", "f1"), summarise([0.914, 0.914, 0.915]))],
        [],
        ["91.5 %", "skd-shuffled 91.4 %", "+0.1 points", "interval over 3 seeds -0.3 to +0.4)"],
    ),
    ("subclass labels do as well", [(("arms", "subclass-labels"), network(0.93))], [], ["93.0 %", "-1.5 points"]),
    (
        "not shown to be above a control",
        [(("arms", "skd-shuffled", "f1"), summarise([0.916, 0.914, 0.912]))],
        [],
        ["91.5 %", "skd-shuffled 91.4 %", "+0.1 points", "interval over 3 seeds -0.9 to +1.1)"],
    ),
]


@pytest.mark.parametrize(("kind", "changes", "of_facts", "said"), ALONE)
def test_each_condition_alone_is_named_with_its_numbers(kind, changes, of_facts, said):
    [finding] = found_with(changes, of_facts)
    assert list(finding) == ["kind", "found", "meaning", "try"]
    assert finding["kind"] == kind
    assert (finding["meaning"], finding["try"]) == ADVICE[kind]
    for part in said:
        assert part in finding["found"]
    assert finding["found"].endswith(".")
    assert not finding["found"][0].islower()


def test_every_kind_is_tested_alone_and_all_come_in_order():
    assert {kind for kind, *_ in ALONE} == set(ADVICE)
    # Of two controls each does as well or is not shown to: the last kind has no third one to be about
    changes = [change for kind, each, _, _ in ALONE[:-1] if kind != "few label bits" for change in each]
    of_facts = [change for _, _, each, _ in ALONE for change in each]
    changes += [(("label_bits", "test", "mutual_information"), 0.05), (("comparisons", 0), FEW)]
    assert [finding["kind"] for finding in found_with(changes, of_facts)] == list(ADVICE)[:-1]
    assert ALONE[-1][0] == list(ADVICE)[-1]


def test_inconclusive_is_not_equal():
    """Two seeds with an interval from -42.8 to +43.6 points, and three from -0.2 to +1.1, say nothing of equality."""
    results = healthy()
    results["arms"]["skd"]["f1"] = summarise([0.90, 0.938])
    results["arms"]["subclass-labels"]["f1"] = summarise([0.93, 0.90])
    results["arms"]["skd-shuffled"]["f1"] = summarise([0.88, 0.918])
    results["comparisons"] = [comparison("kd", 0.02, "better")]
    [finding] = diagnose(results)
    assert finding["kind"] == "not shown to be above a control"
    assert finding["found"] == (
        "F1 of skd is 91.9 %, that of subclass-labels 91.5 %: +0.4 points (95 % interval over 2 seeds -42.8 to +43.6)."
    )
    assert "do as" not in finding["meaning"]
    assert "More seeds" in finding["try"]
    # Interval +0.47 ± 4.303 * 0.252 / sqrt(3) = -0.16 to +1.09: the demo's
    results["arms"]["skd"]["f1"] = summarise([0.956, 0.956, 0.956])
    results["arms"]["subclass-labels"]["f1"] = summarise([0.954, 0.951, 0.949])
    results["arms"]["skd-shuffled"]["f1"] = summarise([0.951, 0.949, 0.954])
    [finding] = diagnose(results)
    assert finding["kind"] == "not shown to be above a control"
    assert finding["found"].count("+0.5 points (95 % interval over 3 seeds -0.2 to +1.1)") == 2
    # The same difference of fifty times the seeds is one
    results["arms"]["skd"]["f1"] = summarise([0.956] * 150)
    results["arms"]["subclass-labels"]["f1"] = summarise([0.954, 0.951, 0.949] * 50)
    results["arms"]["skd-shuffled"]["f1"] = summarise([0.951, 0.949, 0.954] * 50)
    assert diagnose(results) == []


def test_a_control_does_as_well_from_where_the_interval_ends_below_half_a_point():
    """Three seeds: the interval is 0.1 ± 4.303 sd / sqrt(3) points, so that it ends at 0.5 for an sd of 0.161."""
    results = healthy()
    results["comparisons"] = [comparison("kd", 0.02, "better")]
    results["arms"]["skd"]["f1"] = summarise([0.915, 0.915, 0.915])
    for sd, kind in ((0.00160, "shuffled subclasses do as well"), (0.00162, "not shown to be above a control")):
        results["arms"]["skd-shuffled"]["f1"] = summarise([0.914 - sd, 0.914, 0.914 + sd])
        results["arms"]["subclass-labels"]["f1"] = summarise([0.90, 0.90, 0.90])
        assert [finding["kind"] for finding in diagnose(results)] == [kind]


@pytest.mark.parametrize(
    ("changes", "of_facts"),
    [
        ([(("arms", "skd", "validation_f1"), [0.96])], []),  # 4.5 points more than on the test
        (  # 6 points, of which a validation split of 100 images tells nothing
            [
                (("arms", "skd", "validation_f1"), [0.975]),
                (("data", "subclasses"), [{"class": "ill", "validation": 100, "test": 2000}]),
            ],
            [],
        ),
        (  # 6.5 points on as many images, of 30 patients
            [
                (("arms", "skd", "validation_f1"), [0.98]),
                (("data", "groups"), {"validation": 30, "test": 100}),
            ],
            [],
        ),
        ([(("teachers", "subclass"), network(0.926))], []),  # a lead of 26 % of scratch's errors
        ([(("label_bits", "train", "soft"), 1.94)], []),  # 14.7 % of the ceiling more than is held
        ([(("label_bits", "test", "mutual_information"), 0.24), (("label_bits", "train", "soft"), 0.3)], []),
        ([], [(("targets", "sure"), 0.79)]),
        ([], [(("targets", "entropy"), 3.0)]),  # not softened: the teacher's own doubt
        ([], [(("temperature",), 2.0), (("targets", "entropy"), 2.3)]),
        ([], [(("embedding",), 9)]),
        ([], [(("embedding",), None)]),
        ([], [(("unlearned",), 0.09)]),
        ([], [(("unlearned",), None)]),
        ([(("arms", "skd-shuffled"), network(0.9149))], []),  # tiny, but all seeds agree
        ([(("label_bits",), None)], []),
        ([(("comparisons", 0), comparison("kd", 0.05, variance=(1e-4, 1e-5, 0)))], []),  # more than could be hidden
    ],
)
def test_short_of_the_threshold_nothing_is_named(changes, of_facts):
    assert found_with(changes, of_facts) == []


def rare(images, positives, test_images, test_positives):
    """Give the data of a study of two subclasses."""
    counts = zip(
        ("ill", "well"), (positives, images - positives), (test_positives, test_images - test_positives), strict=True
    )
    return {
        "positive": "ill",
        "subclasses": [{"class": name, "validation": first, "test": second} for name, first, second in counts],
        "groups": None,
    }


def decided(random, images, positives, sensitivity=0.6, specificity=0.98):
    """Draw how many of the positives are found, and how many others are called so; and F1."""
    right, called = random.binomial(positives, sensitivity), random.binomial(images - positives, 1 - specificity)
    return right, called, 2 * right / (right + called + positives)


@pytest.mark.parametrize(("images", "positives"), [(400, 20), (400, 12), (1000, 20)])
@pytest.mark.parametrize("times", [1, 5])  # as many images in the test split
def test_few_positives_are_not_taken_for_other_test_images(images, positives, times):
    """With no shift; that all seeds decide alike leaves them the whole noise of the images."""
    random = np.random.default_rng(0)
    data, named, old = rare(images, positives, times * images, times * positives), 0, 0
    for _ in range(2000):
        right, called, f1 = decided(random, times * images, times * positives)
        chosen = decided(random, images, positives)[2]
        rates = {"sensitivity": right / (times * positives), "specificity": 1 - called / times / (images - positives)}
        row = {name: summarise([value] * 3) for name, value in ({"f1": f1, "auroc": 0.9} | rates).items()}
        results = {"data": data, "arms": {"skd": row | {"validation_f1": [chosen] * 3}}}
        named += conditions.other_test(results) is not None
        old += chosen - f1 > max(0.05, 3 * np.sqrt(f1 * (1 - f1) / images))
    assert old / 2000 > 0.15  # by the noise of as many images, positive or not
    assert named / 2000 < 0.01


def test_other_images_are_named_although_positives_are_few():
    """Of 100 positives 90 are found in validation and 50 in the test, at a specificity of 98 % of 1,900 others."""
    row = {"sensitivity": 0.5, "specificity": 0.98, "auroc": 0.8, "f1": 100 / 188}
    row = {name: summarise([value] * 3) for name, value in row.items()} | {"validation_f1": [180 / 228] * 3}
    found = conditions.other_test({"data": rare(2000, 100, 2000, 100), "arms": {"skd": row}})
    assert found.startswith("F1 of skd is 78.9 % on 2,000 validation images and 53.2 % on 2,000 test images")


def test_where_test_images_are_others_a_teacher_is_judged_by_auroc():
    """The official split of the chest X-rays: the teacher's lead is 0.3 points by F1, and 0.38 of the rest by AUROC."""
    kept = json.loads((DOCS / "evidence/chest-xray-official.json").read_text("utf-8"))
    [results] = kept["variants"]["official split"]["runs"].values()
    teacher, scratch = (results[role][name] for role, name in (("teachers", "subclass"), ("arms", "scratch")))
    assert [round(100 * row["auroc"]["mean"], 1) for row in (teacher, scratch)] == [94.3, 90.7]
    kinds = [finding["kind"] for finding in diagnose(results)]
    assert "other test images" in kinds
    assert "weak teacher" not in kinds
    shifted = [(("arms", "skd", "validation_f1"), [0.97, 0.98, 0.99])]
    teacher = network(0.95) | {"auroc": summarise([0.92, 0.921, 0.922])}  # 2.1 of the 10 points that scratch leaves
    other, weak = found_with([*shifted, (("teachers", "subclass"), teacher)])
    assert (other["kind"], weak["kind"]) == ("other test images", "weak teacher")
    assert weak["found"].startswith("The subclass teacher's AUROC is 92.1 %, that of scratch 90.0 %: +2.1 points")
    unknown = teacher | {"auroc": summarise([0.92, None, 0.922])}
    assert [each["kind"] for each in found_with([*shifted, (("teachers", "subclass"), unknown)])] == [other["kind"]]
    assert found_with([(("teachers", "subclass"), teacher)]) == []  # by F1, where the images are alike


def test_where_skd_is_better_only_its_controls_are_looked_at():
    better = (("comparisons", 0), comparison("kd", 0.02, "better"))
    bad = [(("teachers", "subclass"), network(0.88))]
    assert found_with([better, *bad], [(("embedding",), 2)]) == []
    labels = (("arms", "subclass-labels"), network(0.93))
    assert [finding["kind"] for finding in found_with([better, *bad, labels])] == ["subclass labels do as well"]
    assert [finding["kind"] for finding in found_with([(("comparisons", 0), comparison("kd", -0.02, "worse"))])] == []


def test_a_study_without_skd_or_without_controls_is_not_diagnosed():
    results = healthy()
    for arm in ("skd-shuffled", "subclass-labels", "scratch"):
        del results["arms"][arm]
    results["teachers"]["subclass"] = network(0.90)
    [finding] = diagnose(results, healthy_facts())
    assert "that of kd 91.0 %" in finding["found"]
    del results["arms"]["skd"]
    assert diagnose(results, healthy_facts()) == []


def test_one_seed_has_no_interval():
    results = healthy()
    for rows in (results["arms"], results["teachers"]):
        for name, row in rows.items():
            rows[name] = network(row["f1"]["mean"], epochs=(20,))
    results["teachers"]["subclass"] = network(0.88, epochs=(20,))
    weak, neither = diagnose(results, healthy_facts())
    assert "points (1 seed)" in weak["found"]
    assert neither["kind"] == "not shown to be above a control"  # nor equal: one seed shows nothing
    assert neither["found"] == (
        "F1 of skd is 91.3 %, that of skd-shuffled 89.8 %: +1.5 points (1 seed); F1 of skd is 91.3 %, that of "
        "subclass-labels 90.3 %: +1.0 points (1 seed)."
    )


def test_a_student_without_errors_has_nothing_to_learn():
    results = healthy()
    for name in results["arms"]:
        results["arms"][name] = network(1.0)
        results["arms"][name]["f1"] = summarise([1.0, 1.0, 1.0])
    results["teachers"]["subclass"]["f1"] = summarise([1.0, 1.0, 1.0])
    kinds = [finding["kind"] for finding in diagnose(results, healthy_facts())]
    assert kinds == ["weak teacher", "shuffled subclasses do as well", "subclass labels do as well"]


def test_the_first_question_is_the_headlines():
    assert first_verdict([comparison("scratch", 0.1, "better"), comparison("kd", 0.1, "worse")]) == "worse"
    assert first_verdict([]) is None


def test_kinds_and_keys_in_the_docs_are_those_of_the_code():
    page = (DOCS / "diagnosis.md").read_text("utf-8")
    rows = [line.split("|")[1].strip() for line in page.splitlines() if line.startswith("| ")]
    assert [row for row in rows if row in ADVICE] == list(ADVICE)
    named = [key for _, remedy in ADVICE.values() for key in re.findall(r"\b[a-z]+\.[a-z_]+\b", remedy)]
    named += re.findall(r"`((?:data|teacher|student|distillation)\.[a-z_]+)`", page)
    assert len(set(named)) > 10
    for key in named:
        section, field = key.split(".")
        assert field in type(getattr(Study(), section)).model_fields, key


def test_thresholds_in_the_docs_are_those_of_the_code():
    page = (DOCS / "diagnosis.md").read_text("utf-8")
    constants = {name: value for name, value in vars(conditions).items() if name.isupper() and name != "POWER"}
    assert len(constants) == 11
    for name, value in constants.items():
        assert f"`{name}` = {value}" in page, name


def test_the_faults_are_tabled_as_they_were_measured(monkeypatch):
    monkeypatch.syspath_prepend(DOCS.parent)
    from benchmarks import diagnosis

    measured = json.loads((DOCS / "diagnosis.json").read_text("utf-8"))
    page = (DOCS / "diagnosis.md").read_text("utf-8").splitlines()
    assert measured["recipe"] == diagnosis.RECIPE
    assert [row["fault"] for row in measured["rows"]] == list(diagnosis.FAULTS)
    of_faults = {kind for kind, _ in diagnosis.FAULTS.values()} - {None, "weak teacher"}
    for row in measured["rows"]:
        assert diagnosis.table_row(row) in page
        kinds = {finding["kind"] for finding in row["findings"]}
        assert row["provokes"] is None or row["provokes"] in kinds
        besides = {"underfitted student"} if row["provokes"] == "narrow embedding" else set()
        assert kinds & of_faults <= {row["provokes"]} | besides


def test_a_diagnosis_needs_no_torch():
    code = "import sys, subclass_kd.diagnosis, subclass_kd.display_tables; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def printed(show, *arguments):
    console = Console(file=io.StringIO(), width=80)
    show(console, *arguments)
    return console.file.getvalue()


def test_findings_are_printed_in_80_columns():
    findings = found_with([(("teachers", "subclass"), network(0.92))], [(("embedding",), 8)])
    text = printed(show_diagnosis, findings, "inconclusive")
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    for finding in findings:
        assert f"{finding['kind']}: {finding['found']} {finding['meaning']} Try: {finding['try']}" in words


def test_without_findings_one_line_where_skd_did_not_win():
    assert printed(show_diagnosis, [], "better") == printed(show_diagnosis, [], None) == ""
    for verdict in ("inconclusive", "worse"):
        assert printed(show_diagnosis, [], verdict).startswith("No known reason against distillation was found")


def test_power_is_printed_for_the_first_question():
    from subclass_kd.power import needed
    from subclass_kd.wording import of_power

    power = needed(healthy()["comparisons"])
    text = printed(show_power, power)
    assert " ".join(text.split()) == of_power(power[0])
    assert max(map(len, text.splitlines())) <= 80
    assert printed(show_power, []) == ""


def entropy_bits(probabilities):
    return -(probabilities * np.log2(np.maximum(probabilities, 1e-300))).sum(-1)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_facts_of_targets_are_those_worked_out_by_hand(temperature):
    random = np.random.default_rng(0)
    logits, labels = 6 * random.standard_normal((50, 4)), random.integers(4, size=50)
    found = target_facts(torch.from_numpy(logits), torch.from_numpy(labels), HIERARCHY, temperature)
    shares = np.exp(logits / temperature)
    shares /= shares.sum(-1, keepdims=True)
    pairs = np.stack([row[[0, 1]] if label < 2 else row[[2, 3]] for row, label in zip(shares, labels, strict=True)])
    assert found["images"] == 50
    assert found["sure"] == (shares.max(-1) > 0.99).mean()
    assert found["within_class"] == pytest.approx(entropy_bits(pairs / pairs.sum(-1, keepdims=True)).mean())
    assert found["entropy"] == pytest.approx(entropy_bits(shares).mean())
    assert found["information"] == pytest.approx(entropy_bits(shares.mean(0)) - entropy_bits(shares).mean())


def test_targets_that_are_labels_are_sure_and_closed():
    logits, labels = 200 * torch.eye(4)[[0, 1, 2, 3]], torch.tensor([0, 1, 2, 3])
    found = target_facts(logits, labels, HIERARCHY)
    assert found == pytest.approx({"images": 4, "sure": 1, "within_class": 0, "entropy": 0, "information": 2})
    wrong = target_facts(logits, torch.tensor([2, 3, 0, 1]), HIERARCHY)  # of a class that has no probability
    assert wrong["within_class"] == pytest.approx(1)
    with pytest.raises(ValueError, match=r"targets of shape \(4, 4\) and labels of \(3,\)"):
        target_facts(logits, torch.tensor([0, 1, 2]), HIERARCHY)


@pytest.mark.parametrize(
    ("name", "options", "width"),
    [
        ("small:convnet", {}, 32),
        ("small:convnet", {"width": 2}, 8),
        ("small:resnet", {}, 96),
        ("timm:mobilenetv3_small_050", {}, 1024),
        ("timm:test_vit", {}, 64),
    ],
)
def test_the_embedding_is_what_the_last_layer_sees(name, options, width):
    model = build_model(Student(model=name, options=options), 10, 1, torch.zeros(1), torch.ones(1))
    assert embedding_width(model, 10) == width
    head = model.body.head if name.startswith("small") else model.body.get_classifier()
    assert head.in_features == width


def test_a_convolution_may_be_the_last_layer_and_none_is_no_layer():
    convolution = nn.Sequential(nn.Conv2d(3, 12, 3), nn.AdaptiveAvgPool2d(1), nn.Conv2d(12, 5, 1), nn.Flatten())
    assert embedding_width(convolution, 5) == 12
    assert embedding_width(nn.Sequential(nn.Conv2d(3, 5, 3)), 5) is None
    assert embedding_width(nn.Identity(), 5) is None


@pytest.fixture
def part(tmp_path):
    """A run folder with targets and students of two seeds, 40 training images among 60."""
    random = np.random.default_rng(0)
    labels = random.integers(4, size=60)
    samples = SimpleNamespace(
        subclass_labels=labels,
        train=np.arange(5, 45),
        hierarchy=HIERARCHY,
        mean_and_std=(np.zeros(1, np.float32), np.ones(1, np.float32)),
        images=np.zeros((60, 1, 28, 28), np.uint8),
    )
    for seed in (0, 1):
        logits = torch.from_numpy(random.standard_normal((3, 40, 4))).float()
        store.save(tmp_path / f"targets/subclass-seed{seed}.safetensors", {"logits": logits}, "", {})
        history = [{"soft": 9.0}, {"soft": 0.2 + 0.2 * seed}]
        store.save(tmp_path / f"students/skd-seed{seed}.safetensors", {"w": torch.ones(1)}, "", {"history": history})
    return SimpleNamespace(samples=samples, out=tmp_path)


def test_facts_of_a_run_are_means_over_its_networks(part):
    study = Study(seeds=2, student={"options": {"width": 3}}, distillation={"temperature": 2.0})
    found = facts(study, [part, part])
    by_seed = [
        target_facts(
            store.load(part.out / f"targets/subclass-seed{seed}.safetensors")["logits"][0],
            torch.from_numpy(part.samples.subclass_labels[5:45]),
            HIERARCHY,
            2.0,
        )
        for seed in (0, 1)
    ]
    assert (found["networks"], found["temperature"], found["embedding"]) == (4, 2.0, 12)
    for name in by_seed[0]:
        assert found["targets"][name] == pytest.approx(np.mean([each[name] for each in by_seed]))
    # The divergence of the last epoch, without the square of the temperature, in bits
    shares = [soft / 4 / np.log(2) / each["information"] for soft, each in zip((0.2, 0.4), by_seed, strict=True)]
    assert found["unlearned"] == pytest.approx(np.mean(shares))
    assert found == json.loads(json.dumps(found, allow_nan=False))


def test_facts_need_skd_and_an_unweighted_divergence(part):
    assert facts(Study(arms=["scratch", "kd"]), [part]) == {}
    assert facts(Study(seeds=2, distillation={"within_class": 2.0}), [part])["unlearned"] is None

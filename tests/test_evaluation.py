import json
import math
import warnings

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, roc_auc_score

from subclass_kd.evaluation import class_metrics, subclass_accuracy, summarise

# Probability of class 1 and labels: decisions 1 1 0 | 0 1 0, so tp 2, fn 1, fp 1, tn 2
POSITIVE_PROBS = np.array([0.9, 0.7, 0.4, 0.2, 0.6, 0.1])
BINARY_PROBS = np.stack([1 - POSITIVE_PROBS, POSITIVE_PROBS], axis=1)
BINARY_LABELS = np.array([1, 1, 1, 0, 0, 0])


def random_probs(num_classes, samples=200, seed=0):
    random = np.random.default_rng(seed)
    return random.dirichlet(np.ones(num_classes), samples), random.integers(num_classes, size=samples)


def test_binary_metrics_worked_out_by_hand():
    metrics = class_metrics(BINARY_PROBS, BINARY_LABELS, positive=1)
    assert metrics == pytest.approx(
        {
            "f1": 4 / 6,
            "f1_macro": 4 / 6,
            "auroc": 8 / 9,  # of 9 pairs only 0.4 against 0.6 is in the wrong order
            "accuracy": 4 / 6,
            "balanced_accuracy": 4 / 6,
            "sensitivity": 2 / 3,
            "specificity": 2 / 3,
            "brier": (0.01 + 0.09 + 0.36 + 0.04 + 0.36 + 0.01) / 6,
            # bins of 1/15: {0.6, 0.6} right 0 of 2, {0.7}, {0.8} and {0.9, 0.9} all right
            "ece": (2 * 0.6 + 0.3 + 0.2 + 2 * 0.1) / 6,
        },
        abs=1e-6,
    )


def test_the_positive_class_decides_what_f1_sensitivity_and_specificity_mean():
    probs, labels = random_probs(2)
    one, other = class_metrics(probs, labels, positive=1), class_metrics(probs, labels, positive=0)
    assert (one["sensitivity"], one["specificity"]) == (other["specificity"], other["sensitivity"])
    assert one["f1"] != other["f1"]
    assert (one["f1"] + other["f1"]) / 2 == pytest.approx(one["f1_macro"])
    for name in ("accuracy", "balanced_accuracy", "auroc", "brier", "ece"):
        assert one[name] == pytest.approx(other[name])


def test_three_classes_worked_out_by_hand():
    probs = np.array([[0.6, 0.3, 0.1], [0.2, 0.5, 0.3], [0.1, 0.2, 0.7], [0.3, 0.4, 0.3]])
    labels = np.array([0, 1, 2, 2])  # decisions 0 1 2 1
    metrics = class_metrics(probs, labels, positive=2)
    assert metrics["f1"] == pytest.approx(2 / 3)
    assert metrics["f1_macro"] == pytest.approx((1 + 2 / 3 + 2 / 3) / 3)
    assert metrics["balanced_accuracy"] == pytest.approx((1 + 1 + 1 / 2) / 3)
    assert metrics["sensitivity"] == pytest.approx(1 / 2)
    assert metrics["specificity"] == pytest.approx(1)
    # squared errors of the rows: 0.26, 0.38, 0.14, 0.09 + 0.16 + 0.49
    assert metrics["brier"] == pytest.approx((0.26 + 0.38 + 0.14 + 0.74) / 4)
    # class 0: 3 of 3 pairs; class 1: 3 of 3; class 2: 0.3 ties with 0.3, so 3.5 of 4
    assert metrics["auroc"] == pytest.approx((1 + 1 + 3.5 / 4) / 3)


@pytest.mark.parametrize("num_classes", [2, 3, 5])
def test_agreement_with_independent_calls(num_classes):
    probs, labels = random_probs(num_classes)
    metrics = class_metrics(probs, labels, positive=0)
    predictions = probs.argmax(axis=1)
    assert metrics["accuracy"] == pytest.approx((predictions == labels).mean())
    assert metrics["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predictions))
    if num_classes == 2:
        assert metrics["auroc"] == pytest.approx(roc_auc_score(labels == 0, probs[:, 0]))
        assert metrics["brier"] == pytest.approx(brier_score_loss(labels == 0, probs[:, 0]))
    else:
        assert metrics["auroc"] == pytest.approx(roc_auc_score(labels, probs, multi_class="ovr"))
        assert metrics["brier"] == pytest.approx(((probs - np.eye(num_classes)[labels]) ** 2).sum(axis=1).mean())
    confidence, right = probs.max(axis=1), predictions == labels
    bins = np.floor(confidence * 15)
    assert metrics["ece"] == pytest.approx(
        sum(abs((right - confidence)[bins == b].sum()) for b in np.unique(bins)) / len(labels), abs=1e-6
    )


def test_certain_and_right_is_perfect_even_one_rounding_error_above_one():
    probs = np.eye(2)[BINARY_LABELS]
    probs[0] = [0.0, 1 + 2**-50]
    metrics = class_metrics(probs, BINARY_LABELS, positive=1)
    assert metrics == pytest.approx(dict.fromkeys(metrics, 1.0) | {"brier": 0.0, "ece": 0.0})


def test_a_class_never_predicted_has_f1_zero():
    metrics = class_metrics(np.tile([0.8, 0.2], (6, 1)), BINARY_LABELS, positive=1)
    assert (metrics["f1"], metrics["sensitivity"], metrics["specificity"]) == (0, 0, 1)
    assert metrics["f1_macro"] == pytest.approx(1 / 3)
    assert metrics["auroc"] == pytest.approx(0.5)


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("only", [0, 1])
def test_what_absent_classes_leave_undefined_is_none_and_valid_json(num_classes, only):
    probs, _ = random_probs(num_classes, samples=9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = class_metrics(probs, np.full(9, only), positive=1)
    undefined = {name for name, value in metrics.items() if value is None}
    assert undefined == {"auroc", "specificity" if only == 1 else "sensitivity"}
    assert all(type(value) is float for value in metrics.values() if value is not None)
    json.dumps(metrics, allow_nan=False)


def test_what_float32_softmax_leaves_is_accepted():
    probs, labels = random_probs(3)
    metrics = class_metrics(probs.astype(np.float32), labels, positive=2)
    assert metrics == pytest.approx(class_metrics(probs, labels, positive=2), abs=1e-6)


@pytest.mark.parametrize(
    ("probs", "labels", "positive", "message"),
    [
        (BINARY_PROBS, BINARY_LABELS[:5], 1, r"found shapes \(6, 2\) and \(5,\)"),
        (BINARY_PROBS[:0], BINARY_LABELS[:0], 1, "N >= 1"),
        (BINARY_PROBS[:, :1], BINARY_LABELS, 1, "at least 2 columns"),
        (BINARY_PROBS, BINARY_LABELS + 1, 1, "class_labels: found 1 to 2, expected 0 to 1"),
        (BINARY_PROBS, BINARY_LABELS, 2, "positive: found 2"),
        (np.log(BINARY_PROBS), BINARY_LABELS, 1, "not probabilities"),
        (BINARY_PROBS * np.array([[1], [1], [np.nan], [1], [1], [1]]), BINARY_LABELS, 1, "NaN in 1 of 6 rows"),
    ],
)
def test_what_does_not_belong_together_is_refused(probs, labels, positive, message):
    with pytest.raises(ValueError, match=message):
        class_metrics(probs, labels, positive)


def test_subclass_accuracy_asks_for_the_subclass_not_only_its_class():
    log_probs = np.log([[0.4, 0.5, 0.1], [0.1, 0.8, 0.1], [0.2, 0.2, 0.6], [0.5, 0.4, 0.1]])
    assert subclass_accuracy(log_probs, np.array([0, 1, 2, 0])) == 3 / 4
    assert subclass_accuracy(np.exp(log_probs), np.array([0, 1, 2, 0])) == 3 / 4
    with pytest.raises(ValueError, match="subclass_labels: found 0 to 3"):
        subclass_accuracy(log_probs, np.array([0, 1, 3, 0]))


def test_summary_worked_out_by_hand():
    summary = summarise([0.80, 0.82, 0.84])
    half_width = 4.302652729749464 * 0.02 / math.sqrt(3)  # t of 0.975 with 2 degrees of freedom
    assert summary["mean"] == pytest.approx(0.82)
    assert summary["std"] == pytest.approx(0.02)
    assert summary["ci95"] == pytest.approx([0.82 - half_width, 0.82 + half_width])
    assert summary["per_seed"] == [0.80, 0.82, 0.84]


def test_summary_agrees_with_scipy():
    values = np.random.default_rng(0).normal(0.8, 0.01, 7)
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert summarise(values.tolist())["ci95"] == pytest.approx([expected.low, expected.high])


def test_summary_of_one_seed_of_equal_seeds_and_of_undefined_values():
    assert summarise([0.8]) == {"mean": 0.8, "std": None, "ci95": None, "per_seed": [0.8]}
    assert summarise([0.5, 0.5]) == {"mean": 0.5, "std": 0.0, "ci95": [0.5, 0.5], "per_seed": [0.5, 0.5]}
    undefined = {"mean": None, "std": None, "ci95": None}
    assert summarise([0.8, None]) == undefined | {"per_seed": [0.8, None]}
    assert summarise([None]) == undefined | {"per_seed": [None]}
    with pytest.raises(ValueError, match="found no values"):
        summarise([])

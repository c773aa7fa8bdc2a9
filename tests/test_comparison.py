import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import f1_score

from subclass_kd.comparison import compare, holm, paired_difference, pairs
from subclass_kd.jackknife import describe_variance, f1_left_out, variance_parts

ARMS = ["scratch", "subclass-labels", "kd", "kd-collapsed", "skd", "skd-shuffled"]
ROOT = Path(__file__).parents[1]


def study(seeds=4, images=60, num_classes=2, arms=("kd", "skd"), error=(0.3, 0.2), seed=0):
    """Predictions that share hard images among all runs, and labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(num_classes, size=images)
    hard = random.random(images) < 0.3  # (N,)
    predictions = {}
    for arm, rate in zip(arms, error, strict=True):
        wrong = random.random((seeds, images)) < np.where(hard, 2 * rate, rate / 2)
        predictions[arm] = np.where(wrong, (labels + 1) % num_classes, labels)
    return predictions, labels


def one(predictions, labels, **options):
    [result] = compare(predictions, labels, positive=1, arm_pairs=[("skd", "kd")], **options)
    return result


def brute_force_left_out(predicted, labels, positive, groups):
    """(S, G) F1 by scikit-learn on what remains when a group is left out."""
    return np.array(
        [
            [
                f1_score(labels[groups != group] == positive, row[groups != group] == positive, zero_division=0)
                for group in np.unique(groups)
            ]
            for row in predicted
        ]
    )


@pytest.mark.parametrize("num_classes", [2, 3])
@pytest.mark.parametrize("groups", [np.arange(60), np.random.default_rng(3).integers(7, size=60)])
def test_leaving_out_in_closed_form_is_leaving_out(num_classes, groups):
    predictions, labels = study(num_classes=num_classes)
    f1 = f1_left_out(predictions["skd"] == 1, labels == 1, groups)
    assert f1[:, 0] == pytest.approx([f1_score(labels == 1, row == 1) for row in predictions["skd"]], abs=1e-15)
    assert f1[:, 1:] == pytest.approx(brute_force_left_out(predictions["skd"], labels, 1, groups), abs=1e-15)


def test_leaving_out_the_only_positive_gives_f1_zero():
    f1 = f1_left_out(np.array([[True, False, False]]), np.array([True, False, False]), np.arange(3))
    assert f1.tolist() == [[1.0, 0.0, 1.0, 1.0]]


def obuchowski_rockette(f1, left_out):
    """Mean squares and covariances as published, f1 (t, r) and left_out (t, r, G): MS(T), MS(TR), Cov2, Cov3."""
    t, r, units = left_out.shape
    ms_t = r * ((f1.mean(axis=1) - f1.mean()) ** 2).sum() / (t - 1)
    residual = f1 - f1.mean(axis=1, keepdims=True) - f1.mean(axis=0, keepdims=True) + f1.mean()
    ms_tr = (residual**2).sum() / ((t - 1) * (r - 1))
    covariance = (units - 1) ** 2 / units * np.cov(left_out.reshape(t * r, units))  # (t r, t r), by the jackknife
    cov2, cov3 = [], []
    for (i, j), (k, m) in itertools.product(itertools.product(range(t), range(r)), repeat=2):
        if j != m:
            (cov2 if i == k else cov3).append(covariance[i * r + j, k * r + m])
    return ms_t, ms_tr, np.mean(cov2), np.mean(cov3)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("data_seed", range(5))
def test_the_variance_is_obuchowski_and_rockettes(seeds, data_seed):
    predictions, labels = study(seeds=seeds, seed=data_seed)
    f1 = {arm: f1_left_out(row == 1, labels == 1, np.arange(60)) for arm, row in predictions.items()}
    both = np.stack([f1["kd"], f1["skd"]])  # (2, S, 1 + G)
    ms_t, ms_tr, cov2, cov3 = obuchowski_rockette(both[:, :, 0], both[:, :, 1:])
    difference = f1["skd"] - f1["kd"]
    of_seeds, of_images = variance_parts(difference[:, 0], difference[:, 1:])
    assert of_seeds == pytest.approx(2 / seeds * ms_tr, rel=1e-9)
    assert of_images == pytest.approx(2 * max(cov2 - cov3, 0), rel=1e-9)
    published_f = ms_t / (ms_tr + max(seeds * (cov2 - cov3), 0))
    assert difference[:, 0].mean() ** 2 / (of_seeds + of_images) == pytest.approx(published_f, rel=1e-9)


@pytest.mark.parametrize("seeds", [2, 5])
@pytest.mark.parametrize("data_seed", range(5))
def test_what_more_images_take_from_the_seeds_is_their_own_variance_less_the_shared(seeds, data_seed):
    """Obuchowski and Rockette's error variance less their covariances, of the difference of two arms."""
    predictions, labels = study(seeds=seeds, images=300, seed=data_seed)
    f1 = {arm: f1_left_out(row == 1, labels == 1, np.arange(300)) for arm, row in predictions.items()}
    difference = f1["skd"] - f1["kd"]
    covariance = 299**2 / 300 * np.cov(difference[:, 1:])  # (S, S)
    own, shared = np.diag(covariance).mean(), covariance[~np.eye(seeds, dtype=bool)].mean()
    found = describe_variance(difference[:, 0], difference[:, 1:])
    of_seeds, of_images = variance_parts(difference[:, 0], difference[:, 1:])
    assert (found["seeds"], found["images"]) == (of_seeds, of_images)
    assert found["images"] == pytest.approx(max(shared, 0), rel=1e-9)
    assert found["seed_images"] == pytest.approx(max((own - shared) / seeds, 0), rel=1e-9)


def test_what_images_take_from_the_seeds_is_all_of_it_where_seeds_err_by_chance_alone():
    """Seeds of one skill, wrong on images of their own: over 40 studies nearly all of a comes from the images."""
    found = []
    for data_seed in range(40):
        random = np.random.default_rng(data_seed)
        labels = np.arange(400) % 2
        predictions = {arm: np.where(random.random((30, 400)) < 0.1, 1 - labels, labels) for arm in ("kd", "skd")}
        found.append(one(predictions, labels)["variance"])
    of_seeds, of_images, own = (np.mean([each[name] for each in found]) for name in ("seeds", "images", "seed_images"))
    assert 0.9 < own / of_seeds < 1.1  # not cut to a, which 30 seeds know to a quarter
    assert any(each["seed_images"] > each["seeds"] for each in found)
    assert of_images < 0.1 * of_seeds


def test_without_a_shared_part_it_is_the_paired_t_test_over_seeds():
    differences = np.array([0.01, 0.03, 0.02, 0.05])
    result = paired_difference(differences, np.repeat(differences[:, None], 10, axis=1))
    expected = stats.ttest_1samp(differences, 0)
    assert result["p_value"] == pytest.approx(expected.pvalue, rel=1e-9)
    assert result["ci95"] == pytest.approx(list(expected.confidence_interval(0.95)))


def test_without_spread_over_seeds_it_is_the_normal_test_over_images():
    predictions, labels = study(seeds=1)
    f1 = {arm: f1_left_out(row == 1, labels == 1, np.arange(60)) for arm, row in predictions.items()}
    difference = (f1["skd"] - f1["kd"])[0]
    error = math.sqrt((60 - 1) ** 2 / 60 * difference[1:].var(ddof=1))  # the jackknife's standard error
    result = one({arm: np.repeat(row, 3, axis=0) for arm, row in predictions.items()}, labels)
    assert result["p_value"] == pytest.approx(2 * stats.norm.sf(abs(difference[0]) / error), rel=1e-9)
    assert result["ci95"] == pytest.approx(difference[0] + 1.9599639845400545 * error * np.array([-1, 1]), rel=1e-9)


def test_interval_and_p_value_are_one_statement():
    for data_seed in range(20):
        result = one(*study(seed=data_seed))
        low, high = result["ci95"]
        assert (result["p_value"] < 0.05) == (low > 0 or high < 0)
        assert (low + high) / 2 == pytest.approx(result["difference"], abs=1e-12)


@pytest.mark.parametrize("seeds", [2, 3, 10])
@pytest.mark.parametrize("share", [0.02, 0.2, 0.5, 0.8])
@pytest.mark.parametrize("level", [0.05, 0.005])
def test_the_error_is_at_most_the_level_at_every_level_and_share_of_the_seeds(seeds, share, level):
    # Exact but for the integral: the mean is normal, the seeds' part chi-square, the images' part known
    u = (np.arange(20_000) + 0.5) / 20_000
    of_seeds = share * stats.chi2.ppf(u, seeds - 1) / (seeds - 1)
    t, z = stats.t.isf(level / 2, seeds - 1), stats.norm.isf(level / 2)
    error = stats.chi2.sf(t**2 * of_seeds + z**2 * (1 - share), 1).mean()
    assert error <= level


def test_an_arm_that_is_much_better_is_better_and_the_other_worse():
    predictions, labels = study(seeds=5, images=400, error=(0.35, 0.05))
    forward, backward = compare(predictions, labels, 1, [("skd", "kd"), ("kd", "skd")])
    assert (forward["verdict"], backward["verdict"]) == ("better", "worse")
    assert backward["difference"] == -forward["difference"]
    assert backward["ci95"] == pytest.approx([-end for end in forward["ci95"][::-1]])
    assert backward["p_value"] == pytest.approx(forward["p_value"])
    expected = np.mean([f1_score(labels, row) for row in predictions["skd"]])
    expected -= np.mean([f1_score(labels, row) for row in predictions["kd"]])
    assert forward["difference"] == pytest.approx(expected)


@pytest.mark.parametrize("axis", [0, 1])
def test_the_order_of_seeds_and_of_images_means_nothing(axis):
    predictions, labels = study()
    order = np.random.default_rng(1).permutation(predictions["kd"].shape[axis])
    moved = {arm: row.take(order, axis=axis) for arm, row in predictions.items()}
    before, after = one(predictions, labels), one(moved, labels[order] if axis else labels)
    for name in ("difference", "ci95", "p_value"):
        assert after[name] == pytest.approx(before[name], rel=1e-9)


def test_pairing_matters_when_seeds_are_shuffled_in_one_arm_only():
    random = np.random.default_rng(0)
    labels = np.arange(200) % 2
    kd = np.stack([np.where(np.arange(200) < wrong, 1 - labels, labels) for wrong in (10, 20, 30, 40, 50)])
    skd = np.stack([np.where(np.arange(200) < wrong, 1 - labels, labels) for wrong in (4, 12, 24, 32, 44)])
    paired, unpaired = one({"kd": kd, "skd": skd}, labels), one({"kd": kd, "skd": random.permutation(skd)}, labels)
    assert paired["p_value"] < 0.05 < unpaired["p_value"]


def test_groups_are_the_units_that_are_left_out():
    predictions, labels = study(seeds=1, images=60)
    # Every image three times: three times the images, no more patients
    tripled = {arm: np.tile(np.repeat(row, 3, axis=0), 3) for arm, row in predictions.items()}
    patients = np.tile(np.arange(60), 3)
    each_once = {arm: np.repeat(row, 3, axis=0) for arm, row in predictions.items()}
    once = one(each_once, labels, groups=np.arange(60))
    by_patient, by_image = one(tripled, np.tile(labels, 3), groups=patients), one(tripled, np.tile(labels, 3))
    assert by_patient["p_value"] == pytest.approx(once["p_value"], rel=1e-9)
    assert by_image["p_value"] < by_patient["p_value"]
    assert (by_patient["test_groups"], by_patient["test_images"], by_image["test_groups"]) == (60, 180, None)
    names = np.array([f"patient {patient}" for patient in patients])
    assert one(tripled, np.tile(labels, 3), groups=names)["p_value"] == pytest.approx(by_patient["p_value"])


def test_few_patients_pay_students_price():
    """By hand: a = b = 1/16, two seeds and two units, so both quantiles are Student's with one degree of freedom."""
    differences, left_out = np.array([0.25, 0.75]), np.array([[0.0, 0.5], [0.5, 1.0]])
    patients = paired_difference(differences, left_out, few_units=True)
    assert patients["ci95"][1] - 0.5 == pytest.approx(12.706204736 * math.sqrt(1 / 8), rel=1e-9)
    images = paired_difference(differences, left_out)
    half_width = math.hypot(12.706204736 / 4, 1.959963985 / 4)
    assert images["ci95"][1] - 0.5 == pytest.approx(half_width, rel=1e-9)


def test_one_seed_gives_no_interval_and_says_why():
    predictions, labels = study(seeds=1)
    result = one(predictions, labels)
    assert [result[name] for name in ("ci95", "p_value", "p_holm", "verdict")] == [None, None, None, "inconclusive"]
    assert "at least two" in result["reason"]
    assert result["variance"] is None
    assert isinstance(result["difference"], float)


def test_identical_predictions_differ_by_nothing():
    predictions, labels = study()
    result = one({"skd": predictions["kd"], "kd": predictions["kd"]}, labels)
    assert (result["difference"], result["ci95"], result["p_value"]) == (0.0, [0.0, 0.0], 1.0)
    assert result["verdict"] == "inconclusive"
    assert "reason" not in result


def test_equal_differences_on_different_images_are_no_proof():
    labels = np.arange(20) % 2
    kd = np.stack([np.where(np.isin(np.arange(20), (seed, seed + 8)), 1 - labels, labels) for seed in (1, 3, 5)])
    skd = np.stack([np.where(np.arange(20) == seed + 8, 1 - labels, labels) for seed in (1, 3, 5)])
    result = one({"skd": skd, "kd": kd}, labels)
    assert result["difference"] > 0.05
    assert [result[name] for name in ("ci95", "p_value", "verdict")] == [None, None, "inconclusive"]
    assert "spread" in result["reason"]


def test_all_images_of_one_patient_give_no_interval():
    predictions, labels = study()
    result = one(predictions, labels, groups=np.zeros(60))
    assert result["p_value"] is None
    assert "one group" in result["reason"]


def test_overwhelming_evidence_has_a_small_p_value_but_never_zero():
    differences = np.array([0.5, 0.5, 0.5, 0.5])
    random = np.random.default_rng(0)
    left_out = np.tile(0.5 + 1e-6 * random.standard_normal(100), (4, 1))
    assert paired_difference(differences, left_out)["p_value"] == 1e-20


def test_the_row_of_results_json():
    predictions, labels = study()
    result = one(predictions, labels)
    keys = "arm reference metric difference ci95 p_value p_holm verdict seeds test_images test_groups variance"
    assert list(result) == keys.split()
    assert list(result["variance"]) == ["seeds", "images", "seed_images"]
    assert min(result["variance"].values()) >= 0
    assert (result["arm"], result["reference"], result["metric"]) == ("skd", "kd", "f1")
    assert (result["seeds"], result["test_images"]) == (4, 60)
    json.dumps(result, allow_nan=False)


def test_verdicts_are_corrected_for_all_pairs():
    predictions, labels = study(seeds=5, images=200, error=(0.25, 0.13))
    alone = one(predictions, labels)
    assert alone["verdict"] == "better"
    assert alone["p_holm"] == alone["p_value"]
    equal = {f"kd-{copy}": predictions["kd"] for copy in range(200)}
    results = compare(predictions | equal, labels, 1, [("skd", "kd"), *((arm, "kd") for arm in equal)])
    assert results[0]["p_value"] == alone["p_value"]
    assert results[0]["p_holm"] == pytest.approx(201 * alone["p_value"])
    assert results[0]["verdict"] == "inconclusive"


def test_holm_on_a_worked_example():
    # Sorted 0.005 0.01 0.03 0.04 times 4 3 2 1 is 0.02 0.03 0.06 0.04, and no later one may be smaller
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8, 1.0]) == [1.0, 1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_holm_rejects_what_the_step_down_procedure_rejects():
    random = np.random.default_rng(0)
    for _ in range(50):
        p_values = random.random(9) ** 4
        rejected = np.zeros(9, dtype=bool)
        for step, index in enumerate(np.argsort(p_values)):
            if p_values[index] >= 0.05 / (9 - step):
                break
            rejected[index] = True
        assert [p < 0.05 for p in holm(p_values.tolist())] == rejected.tolist()


def test_pairs_of_a_study():
    assert len(pairs(ARMS)) == 9
    assert pairs(ARMS)[:3] == [("subclass-labels", "scratch"), ("kd", "scratch"), ("kd-collapsed", "scratch")]
    assert pairs(ARMS)[-1] == ("skd-shuffled", "kd")
    assert pairs(["skd", "kd"]) == [("skd", "kd")]
    assert pairs(["skd", "scratch"]) == [("skd", "scratch")]
    assert pairs(["skd", "subclass-labels"]) == []
    assert compare({}, np.array([0, 1]), 1, []) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arm_pairs": [("skd", "dkd")]}, "found dkd, expected arms among kd, skd"),
        ({"class_labels": np.zeros(59)}, r"class_labels: found \(59,\) beside predictions kd \(4, 60\)"),
        ({"groups": np.zeros(59)}, r"groups: found \(59,\)"),
        ({"predictions": {"kd": np.zeros((4, 60)), "skd": np.zeros((3, 60))}}, r"kd \(4, 60\) but skd \(3, 60\)"),
        ({"predictions": {"kd": np.zeros(60), "skd": np.zeros(60)}}, r"kd \(60,\)"),
    ],
)
def test_what_does_not_belong_together_is_refused(change, message):
    predictions, labels = study()
    arguments = {"predictions": predictions, "class_labels": labels, "positive": 1, "arm_pairs": [("skd", "kd")]}
    with pytest.raises(ValueError, match=message):
        compare(**(arguments | change))


@pytest.mark.parametrize("seeds", [2, 3, 5])
def test_equal_arms_earn_a_verdict_in_at_most_five_percent_of_studies(seeds, monkeypatch):
    """400 studies of six equal arms; the bounds are what a true rate of 5 % passes in all but 1 of 1,000 runs."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.false_positives import rates

    found = rates(studies=400, seeds=seeds, images=300)
    bound = stats.binom.isf(0.001, 400, 0.05) / 400
    assert bound < 0.09
    assert found["p"]["rate"] <= bound
    assert found["any_claim"]["rate"] <= bound
    assert abs(found["f1_kd"] - 0.85) < 0.01

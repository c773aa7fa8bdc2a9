"""How many seeds and images a verdict needs: against other ways to work it out, and against simulated studies."""

import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import integrate, stats

from subclass_kd.comparison import compare, paired_difference, pairs
from subclass_kd.power import DIFFERENCES, MOST_TIMES, Spread, chance, needed, spread_of
from subclass_kd.wording import of_power, ways

ROOT = Path(__file__).parents[1]
ARMS = ["scratch", "subclass-labels", "kd", "kd-collapsed", "skd", "skd-shuffled"]


def row(seeds=5, images=1000, variance=(4e-5, 1e-5, 2e-5), groups=None, **changes):
    parts = None if variance is None else dict(zip(("seeds", "images", "seed_images"), variance, strict=True))
    named = {"arm": "skd", "reference": "kd", "seeds": seeds, "test_images": images, "test_groups": groups}
    return named | {"variance": parts} | changes


def spread(level=0.05 / 9, **changes):
    return spread_of(row(**changes), level)


@pytest.mark.parametrize("seeds", [2, 3, 10, 200])
@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
@pytest.mark.parametrize("difference", [0.003, 0.02, 0.1])
def test_without_a_part_of_the_images_it_is_the_power_of_the_t_test(seeds, level, difference):
    found = chance(difference, of_seeds=0.01**2, of_images=0, seeds=seeds, level=level)
    expected = stats.nct.sf(stats.t.isf(level / 2, seeds - 1), seeds - 1, difference / 0.01)
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("level", [0.05, 0.05 / 9])
def test_without_a_part_of_the_seeds_it_is_the_power_of_the_normal_test(level):
    found = chance(0.02, of_seeds=0, of_images=0.01**2, seeds=3, level=level)
    assert found == pytest.approx(stats.norm.sf(stats.norm.isf(level / 2) - 2), abs=1e-12)


@pytest.mark.parametrize(("seeds", "share"), [(2, 0.5), (3, 0.1), (5, 0.5), (10, 0.9)])
def test_with_both_parts_it_is_the_integral_over_chi_square(seeds, share):
    t, z = stats.t.isf(0.025, seeds - 1), stats.norm.isf(0.025)
    by_hand, _ = integrate.quad(
        lambda x: (
            stats.chi2.pdf(x, seeds - 1)
            * stats.norm.cdf(3 - math.sqrt(t**2 * share * x / (seeds - 1) + z**2 * (1 - share)))
        ),
        0,
        200,
        points=[0.01, 0.1, 1, 10],
        limit=500,
    )
    assert chance(3e-2, share * 1e-4, (1 - share) * 1e-4, seeds, 0.05) == pytest.approx(by_hand, abs=1e-6)


def test_it_is_how_often_the_interval_of_the_tool_lies_above_zero():
    """2,000 studies of three seeds, drawn from the model; the p-value is that of paired_difference."""
    random = np.random.default_rng(0)
    seeds, units, of_seed, of_images, level = 3, 50, 0.02**2, 0.005**2, 0.05
    pattern = random.standard_normal(units)
    pattern -= pattern.mean()
    pattern *= math.sqrt(of_images * units / (units - 1) / (pattern**2).sum())  # its jackknife variance is of_images
    found = 0
    for _ in range(2000):
        shift = 0.06 + math.sqrt(of_images) * random.standard_normal()
        differences = shift + math.sqrt(of_seed) * random.standard_normal(seeds)
        result = paired_difference(differences, differences[:, None] + pattern)
        found += result["difference"] > 0 and result["p_value"] < level
    expected = chance(0.06, of_seed / seeds, of_images, seeds, level)
    assert 0.4 < expected < 0.9
    assert abs(found / 2000 - expected) < 4 * math.sqrt(expected * (1 - expected) / 2000)


def test_simulated_studies_have_the_power_that_is_predicted(monkeypatch):
    """150 whole studies of nine comparisons: predicted from 5 seeds and 300 images, carried over to 10 seeds."""
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks.power import simulate_studies
    from benchmarks.power import spread as spread_of_mean

    pilot, found = (simulate_studies(150, seeds, 300, 0.04) for seeds in (5, 10))
    expected = spread_of_mean(pilot, 5, 300).chance(found["difference"], 10, 300)
    assert 0.6 < expected < 0.95
    margin = 4 * math.sqrt(expected * (1 - expected) / 150)
    assert abs(found["first_step"] / 150 - expected) < margin + 0.03  # the pilot is an estimate, too
    assert found["better"] >= found["first_step"]  # Holm's later steps only add


def test_power_grows_with_difference_seeds_and_images():
    known = spread()
    for grid in (
        [known.chance(difference, 5, 1000) for difference in (0, 0.01, 0.02, 0.05)],
        [known.chance(0.02, seeds, 1000) for seeds in (2, 3, 4, 5, 10, 100, 1000)],
        [known.chance(0.02, 10, images) for images in (100, 500, 1000, 10_000, math.inf)],
    ):
        assert all(less < more for less, more in itertools.pairwise(grid))


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_detectable_difference_has_the_power(seeds):
    known = spread(seeds=seeds, level=0.05)
    for power in (0.5, 0.8, 0.95):
        assert known.chance(known.detectable(power), seeds, 1000) == pytest.approx(power, abs=1e-4)


def test_what_is_needed_is_the_least_that_does():
    known = spread(seeds=10)
    seeds = known.seeds_needed(0.02)
    assert known.chance(0.02, seeds, 1000) >= 0.8 > known.chance(0.02, seeds - 1, 1000)
    images = known.images_needed(0.02, seeds=12)
    assert known.chance(0.02, 12, images) >= 0.8 > known.chance(0.02, 12, images - 1)
    assert known.seeds_needed(0.02, power=0.5) < seeds


def test_images_alone_limit_what_seeds_can_show():
    """Many seeds leave a normal test of the images: (2.7729 + 0.8416) sd for level 0.05 / 9 and 80 %."""
    least = (stats.norm.isf(0.05 / 18) + stats.norm.isf(0.2)) * math.sqrt(1e-5)
    assert least == pytest.approx(0.011430, abs=1e-6)
    known = spread()
    assert known.seeds_needed(0.99 * least) == "never"
    assert known.seeds_needed(1.05 * least) > 100


def test_seeds_alone_limit_what_images_can_show():
    known = spread(variance=(4e-5, 1e-5, 2e-5))  # many images leave 2e-5 of the seeds
    least = Spread(5, 1000, None, 0.05 / 9, 5 * 2e-5, 0, 0).detectable()
    assert known.images_needed(0.99 * least, 5) == "never"
    assert known.images_needed(1.05 * least, 5) > 10_000
    only_images = spread(variance=(2e-5, 1e-5, 2e-5))
    assert only_images.images_needed(0.01, 5) > 1000
    assert only_images.images_needed(1e-5, 5) == "never"  # more than a thousand times as many
    assert MOST_TIMES == 1000


def test_the_part_of_the_seeds_that_comes_from_images_shrinks_with_them():
    known = spread(seeds=10)
    small, large = (known.chance(0.02, 10, images) for images in (1000, 4000))
    assert small == pytest.approx(chance(0.02, 4e-5, 1e-5, 10, 0.05 / 9))
    assert large == pytest.approx(chance(0.02, 2e-5 + 0.5e-5, 0.25e-5, 10, 0.05 / 9))


def test_seeds_that_agree_more_than_their_images_allow_promise_no_more_than_these():
    """Five seeds whose a is a sixth of what each gets from 10,000 images by itself, w."""
    seeds, level, a, b, w = 5, 0.05 / 7, 7.6e-8, 2.5e-8, 4.4e-7
    agreed = row(seeds=seeds, images=10_000, variance=(a, b, w))
    known, cut = spread_of(agreed, level), Spread(seeds, 10_000, None, level, 0, seeds * a, b)
    assert known.chance(0.02, 3, 500) == pytest.approx(chance(0.02, w * 20 * 5 / 3, b * 20, 3, level))
    assert known.detectable() == pytest.approx(0.00429, abs=1e-5)
    # With w cut to a, 0.18 points would be seen, and 1.5 points in 152 images; the chance is a fifth of that
    assert cut.detectable() == pytest.approx(0.00185, abs=1e-5)
    assert known.chance(0.00185, seeds, 10_000) < 0.2
    assert cut.chance(0.015, seeds, 152) == pytest.approx(0.8, abs=0.01)
    assert known.chance(0.015, seeds, 152) < 0.2
    [found] = needed([agreed] * 7)[:1]  # the ends are those of 4 / 11.1433 and 4 / 0.484419 times w
    ends = [Spread(seeds, 10_000, None, level, seeds * w * 4 / of, 0, b).detectable() for of in (11.1433, 0.484419)]
    assert found["detectable_ci95"] == pytest.approx(ends, rel=1e-4)


def test_no_fewer_test_images_than_there_are_are_said_to_do():
    known = spread(seeds=5, images=1000, variance=(1e-6, 1e-6, 1e-6))
    assert known.chance(0.05, 5, 200) > 0.8
    assert known.images_needed(0.05, 5) == 1000
    for each in needed([row(variance=(1e-6, 1e-6, 1e-6))], [0.02, 0.05])[0]["needed"]:
        assert (each["test_images"], each["plan"]) == (1000, {"seeds": 5, "test_images": 1000})
        assert min(each["test_images_ci95"]) == 1000


def test_a_plan_is_the_smallest_product_that_does_and_no_less_than_there_is():
    known = spread(seeds=4, images=500)
    seeds, images = known.plan(0.02)
    assert known.chance(0.02, seeds, images) >= 0.8
    every = [(s, max(500, n)) for s in range(4, 80) if (n := known.images_needed(0.02, s)) != "never"]  # by trying all
    assert seeds * images == min(s * n for s, n in every)
    assert seeds >= 4
    assert images >= 500
    assert known.plan(0.5) == (4, 500)
    assert known.plan(1e-6) is None


def test_patients_pay_students_price_where_they_are_few():
    alone, patients, many = (spread(level=0.05, groups=groups) for groups in (None, 6, 10**6))
    assert patients.chance(0.03, 5, 1000) < alone.chance(0.03, 5, 1000)
    assert many.chance(0.03, 5, 1000) == pytest.approx(alone.chance(0.03, 5, 1000), abs=1e-5)
    # Twice the images are twice the patients
    twice = chance(0.03, 2e-5 + 1e-5, 0.5e-5, 5, 0.05, units=12)
    assert patients.chance(0.03, 5, 2000) == pytest.approx(twice)


def test_of_results_the_first_two_questions_are_answered():
    rows = [row(arm=arm, reference=reference) for arm, reference in pairs(ARMS)]
    found = needed(rows)
    assert [(each["arm"], each["reference"]) for each in found] == [("skd", "kd"), ("skd", "scratch")]
    assert {each["level"] for each in found} == {0.05 / 9}
    assert [plan["difference"] for plan in found[0]["needed"]] == list(DIFFERENCES)
    assert found == json.loads(json.dumps(found, allow_nan=False))
    assert [each["arm"] for each in needed([row(arm="kd", reference="scratch")])] == ["kd"]
    assert needed([]) == []
    assert needed([row(reference="kd-collapsed")]) == []


def test_the_interval_holds_the_estimate_and_is_wide_with_few_seeds():
    few, many = (needed([row(seeds=seeds, variance=(2e-4 / seeds, 1e-5, 0))])[0] for seeds in (3, 30))
    for found in (few, many):
        low, high = found["detectable_ci95"]
        assert low < found["detectable"] < high
        for plan in found["needed"]:
            order = [
                math.inf if n == "never" else n for n in (plan["seeds_ci95"][0], plan["seeds"], plan["seeds_ci95"][1])
            ]
            assert order == sorted(order)
    assert few["detectable_ci95"][1] / few["detectable"] > 3
    assert many["detectable_ci95"][1] / many["detectable"] < 1.4
    # Chi-square with two degrees of freedom is 0.0506 or less in 2.5 %: 2 / 0.0506 = 39.5 times the variance
    largest = Spread(3, 1000, None, 0.05, 39.498 * 2e-4, 0, 1e-5).detectable()
    assert few["detectable_ci95"][1] == pytest.approx(largest, rel=1e-4)


def test_a_study_without_a_variance_says_why():
    predictions = {"skd": np.array([[0, 1, 1, 0]]), "kd": np.array([[0, 1, 0, 0]])}
    [one_seed] = needed(compare(predictions, np.array([0, 1, 1, 0]), 1, [("skd", "kd")]))
    assert (one_seed["detectable"], one_seed["needed"]) == (None, [])
    assert "at least two" in one_seed["reason"]
    same = {arm: np.repeat(predictions["kd"], 3, axis=0) for arm in predictions}
    [equal] = needed(compare(same, np.array([0, 1, 1, 0]), 1, [("skd", "kd")]))
    assert (equal["detectable"], equal["needed"]) == (None, [])
    assert "No spread" in equal["reason"]
    assert "not known: No spread" in of_power(equal)


def test_no_difference_at_all_may_be_detectable():
    [found] = needed([row(seeds=2, variance=(0.01, 0.01, 0))] * 9)[:1]
    assert (found["detectable"], found["detectable_ci95"][1]) == (None, None)
    assert "for no difference" in of_power(found)


def test_the_sentence_says_what_was_seen_and_what_more_takes():
    [found] = needed([row()])
    text = of_power(found)
    assert text == (
        "With 5 seeds and 1,000 test images this study had a chance of 80 % to find skd better than kd, if it truly is "
        "by 2.5 points or more (95 % interval 1.7 to 6.9). For 1.5 points it takes 13 seeds (95 % interval 6 to 91), "
        "or 12 seeds and 1,071 test images."
    )
    assert "For" not in of_power(needed([row(seeds=50, variance=(1e-6, 1e-6, 0))])[0])
    assert ways({"seeds": "never", "plan": {"seeds": 7, "test_images": 9000}}) == "7 seeds and 9,000 test images"


def test_the_simulated_check_is_tabled_as_it_was_measured(monkeypatch):
    monkeypatch.syspath_prepend(ROOT)
    from benchmarks import power

    measured = json.loads((ROOT / "docs/power.json").read_text("utf-8"))
    page = (ROOT / "docs/statistics.md").read_text("utf-8").splitlines()
    assert [(each["gain"], each["seeds"], each["images"]) for each in measured["rows"]] == [
        (gain, *size) for gain in power.GAINS for size in power.SIZES
    ]
    for each in measured["rows"]:
        assert power.table_row(each) in page
        for predicted in (each["predicted"], each["from_pilot"]):
            assert abs(predicted - each["first_step"]["rate"]) < 0.08

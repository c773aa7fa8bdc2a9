"""The conditions under which subclass distillation has little to gain: what is measured, and from where on it counts.

Each function gives what was found, with its numbers and their n, or None. :mod:`subclass_kd.diagnosis` says what it
means; docs/diagnosis.md has the thresholds beside what was measured in studies with the condition and without.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import special

from subclass_kd.counts import Interval, f1_interval
from subclass_kd.power import POWER, needed
from subclass_kd.wording import count, size, ways

Values = Mapping[str, Any]

WORTH_SEEING = 0.015  # of F1: what the paper reports over conventional distillation
# Of the student's errors. Where it helped in Müller et al. 2020 (https://arxiv.org/abs/2002.03936) the teacher made at
# most three quarters of them: 0.73 of 1.57 % on MNIST, 1.51 of 2.05 % on CelebA.
SMALLEST_LEAD = 0.25
MOST_SURE = 0.8  # share of targets above 0.99: when four of five are labels said again, labels are what is learned
MOST_MEMORISED = 0.15  # of the ceiling: bits claimed on training images less those held on others
FEWEST_BITS = 0.1  # an image, on unseen images: far below the paper's 0.47
SMALLEST_SHARE_OF_BITS = 0.1  # of the ceiling: the same for many subclasses
MOST_FLAT = 0.7  # entropy of softened targets over that of a guess: what is left tells one image from another
MOST_UNLEARNED = 0.1  # of what the targets tell: well-trained students leave half of that or less
OTHER_TEST = 0.05  # of F1, validation less test: folds of one collection differ by half a point, other images by eleven
SURE_OF_IT = 3  # standard errors of the two F1s, of which the validation's is that of the best epoch
AS_GOOD = 0.005  # of F1: less is no difference that anyone would act on; all of the interval must be below it


def too_few(comparisons: Sequence[Values]) -> str | None:
    """Inconclusive, where neither 1.5 points nor what was seen could have been told from nothing."""
    rows = needed(comparisons, [WORTH_SEEING])
    if not rows:
        return None
    row = rows[0]
    [pair] = [each for each in comparisons if (each["arm"], each["reference"]) == (row["arm"], row["reference"])]
    if pair["verdict"] != "inconclusive":
        return None
    seen = f"the difference {row['arm']} - {row['reference']} is {100 * pair['difference']:+.1f} points"
    if not row["needed"]:
        reason = row["reason"].rstrip(".")
        return f"{seen}; from {size(row)} there is no interval: {reason[0].lower()}{reason[1:]}"
    if row["detectable"] is not None and row["detectable"] <= max(WORTH_SEEING, abs(pair["difference"])):
        return None
    least = "no difference" if row["detectable"] is None else f"{100 * row['detectable']:.1f} points or more"
    what = f"{100 * WORTH_SEEING:.1f} points take {ways(row['needed'][0])}"
    return f"{seen}; {size(row)} show {least} with {100 * POWER:.0f} % chance; {what}"


def weak_teacher(results: Values, metric: str = "f1") -> str | None:
    """A lead over the student that learns alone of less than a quarter of that student's errors: 1 less the metric.

    Where classes are decided at a threshold that does not fit the test images, AUROC is the metric to ask by.
    """
    teacher, arms = results["teachers"].get("subclass"), results["arms"]
    alone = next((name for name in ("scratch", "kd") if name in arms), None)
    if teacher is None or alone is None:
        return None
    means = [row[metric]["mean"] for row in (teacher, arms[alone])]
    if None in means:  # no AUROC, where a fold has one class only
        return None
    lead, interval = _lead(teacher, arms[alone], metric)
    if lead > SMALLEST_LEAD * (1 - means[1]):
        return None
    said = [f"{100 * mean:.1f} %" for mean in means]
    told = _told(lead, interval, teacher)
    return f"the subclass teacher's {metric.upper()} is {said[0]}, that of {alone} {said[1]}: {told}"


def one_hot(facts: Values) -> str | None:
    """Nearly all targets above 0.99, at the temperature at which they are taught."""
    targets = facts.get("targets")
    if targets is None or targets["sure"] <= MOST_SURE:
        return None
    return (
        f"{100 * targets['sure']:.0f} % of the targets on {targets['images']:,.0f} training images have a probability "
        f"above 0.99 at temperature {facts['temperature']:g} and leave {targets['within_class']:.2f} bits open within "
        f"the class (mean of {count(facts['networks'], 'teacher')})"
    )


def memorised(results: Values) -> str | None:
    """More bits claimed by the targets on training images than the teacher holds on others."""
    bits = results["label_bits"]
    if bits is None or bits["train"]["ceiling"] == 0:
        return None
    train, test = bits["train"], bits["test"]
    if (train["soft"] - test["mutual_information"]) / train["ceiling"] <= MOST_MEMORISED:
        return None
    return (
        f"the targets on {train['images']:,} training images claim {train['soft']:.2f} label bits an image; on "
        f"{test['images']:,} test images the teacher holds {test['mutual_information']:.2f} (ceiling "
        f"{train['ceiling']:.2f}; {count(len(results['study']['seeds']), 'seed')})"
    )


def few_bits(results: Values) -> str | None:
    """Hardly any label bits on unseen images."""
    if results["label_bits"] is None:
        return None
    bits = results["label_bits"]["test"]
    if bits["mutual_information"] >= max(FEWEST_BITS, SMALLEST_SHARE_OF_BITS * bits["ceiling"]):
        return None
    return (
        f"the teacher holds {bits['mutual_information']:.2f} of {bits['ceiling']:.2f} label bits an image on "
        f"{bits['images']:,} test images ({count(len(results['study']['seeds']), 'seed')})"
    )


def flat(facts: Values, subclasses: int) -> str | None:
    """Targets softened until they are nearly a guess."""
    targets = facts.get("targets")
    if targets is None or facts["temperature"] <= 1 or targets["entropy"] <= MOST_FLAT * math.log2(subclasses):
        return None
    return (
        f"at temperature {facts['temperature']:g} the targets have {targets['entropy']:.2f} bits of entropy; a guess "
        f"would have {math.log2(subclasses):.2f} (mean of {count(facts['networks'], 'teacher')})"
    )


def narrow(facts: Values, subclasses: int) -> str | None:
    """Fewer numbers before the last layer than it takes to answer freely: K logits have K - 1 degrees of freedom."""
    width = facts.get("embedding")
    if width is None or width >= subclasses - 1:
        return None
    return f"the student answers for {subclasses} subclasses from {width} numbers; {subclasses - 1} leave it free"


def underfitted(facts: Values, results: Values) -> str | None:
    """A student that does not give back on its own training images what it was taught there."""
    share = facts.get("unlearned")
    if share is None or share <= MOST_UNLEARNED:
        return None
    best, epochs = statistics.mean(results["arms"]["skd"]["best_epoch"]), results["study"]["student"]["epochs"]
    # Of a teacher of several members, a list for each
    f1 = [float(np.mean(row["validation_f1"])) for row in (results["arms"]["skd"], results["teachers"]["subclass"])]
    return (
        f"on its training images skd's student misses {100 * share:.0f} % of what the targets tell; validation F1 "
        f"{100 * f1[0]:.1f} %, its teacher's {100 * f1[1]:.1f} % (mean of {count(facts['networks'], 'student')}; best "
        f"epoch {best:.0f} of {epochs})"
    )


def other_test(results: Values) -> str | None:
    """Test images of which skd's student knows far less than of the validation images that chose its epoch."""
    row, data = results["arms"]["skd"], results["data"]
    chosen, f1 = statistics.mean(row["validation_f1"]), row["f1"]["mean"]
    if chosen - f1 <= OTHER_TEST:
        return None
    # Newcombe 1998 (https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<873::AID-SIM779>3.0.CO;2-I): how far each of
    # the two may be out, towards the other
    above, below = _f1_ends(chosen, row, data, "validation")[0], _f1_ends(f1, row, data, "test")[1]
    if chosen - f1 <= math.hypot(chosen - above, below - f1):
        return None
    images = {split: sum(each[split] for each in data["subclasses"]) for split in ("validation", "test")}
    rates = [f"{name} {100 * row[name]['mean']:.0f} %" for name in ("sensitivity", "specificity")]
    areas = {name: each["auroc"]["mean"] for name, each in results["arms"].items() if name in ("skd", "scratch")}
    told = [*rates, *(f"AUROC of {name} {100 * area:.1f} %" for name, area in areas.items() if area is not None)]
    return (
        f"F1 of skd is {100 * chosen:.1f} % on {images['validation']:,} validation images and {100 * f1:.1f} % on "
        f"{images['test']:,} test images ({', '.join(told)}; {count(len(row['f1']['per_seed']), 'seed')})"
    )


def _f1_ends(f1: float, row: Values, data: Values, split: str) -> Interval:
    """Interval of F1, whose noise is that of the images positive or called so.

    They are as many as the test's specificity calls so. Seeds share the images, so that more seeds do not narrow it;
    and a patient counts as one image, however many there are of them.
    """
    images = sum(each[split] for each in data["subclasses"])
    positives = sum(each[split] for each in data["subclasses"] if each["class"] == data["positive"])
    matter = positives + (1 - row["specificity"]["mean"]) * (images - positives)
    if data["groups"]:
        matter *= data["groups"][split] / images
    level = math.erf(SURE_OF_IT / math.sqrt(2))  # within so many standard errors of a normal
    return f1_interval(f1 / (2 - f1) * matter, matter, level)


def as_good(arms: Values, control: str) -> str | None:
    """A control that skd is not shown to lead, and would lead by less than half a point of F1 at the interval's end."""
    if control not in arms:
        return None
    lead, interval = _lead(arms["skd"], arms[control])
    if interval is None or interval[0] > 0 or interval[1] >= AS_GOOD:
        return None
    return _beside(arms, control, lead, interval)


def not_above(arms: Values, controls: Sequence[str]) -> str | None:
    """Controls that the seeds show neither to be below skd nor to do as well, as one seed never can."""
    found = []
    for control in controls:
        if control not in arms:
            continue
        lead, interval = _lead(arms["skd"], arms[control])
        if interval is None or (interval[0] <= 0 and interval[1] >= AS_GOOD):
            found.append(_beside(arms, control, lead, interval))
    return "; ".join(found) or None


def _beside(arms: Values, control: str, lead: float, interval: tuple[float, float] | None) -> str:
    f1 = [f"{100 * arms[name]['f1']['mean']:.1f} %" for name in ("skd", control)]
    return f"F1 of skd is {f1[0]}, that of {control} {f1[1]}: {_told(lead, interval, arms['skd'])}"


def _lead(one: Values, other: Values, metric: str = "f1") -> tuple[float, tuple[float, float] | None]:
    """Mean difference, and Student's 95 % interval over seeds on these test images; None with one seed."""
    pairs = zip(one[metric]["per_seed"], other[metric]["per_seed"], strict=True)
    values = [first - second for first, second in pairs]
    mean = statistics.mean(values)
    if len(values) < 2:
        return mean, None
    half = float(special.stdtrit(len(values) - 1, 0.975)) * statistics.stdev(values) / math.sqrt(len(values))
    return mean, (mean - half, mean + half)


def _told(lead: float, interval: tuple[float, float] | None, row: Values) -> str:
    seeds = count(len(row["f1"]["per_seed"]), "seed")
    if interval is None:
        return f"{100 * lead:+.1f} points ({seeds})"
    return f"{100 * lead:+.1f} points (95 % interval over {seeds} {100 * interval[0]:+.1f} to {100 * interval[1]:+.1f})"

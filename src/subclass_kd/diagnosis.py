"""Why subclass distillation did not help in a study, as far as its own numbers tell, and what to try.

Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from subclass_kd import conditions
from subclass_kd.comparison import HEADLINES

# kind: what it means, what to try
ADVICE: dict[str, tuple[str, str]] = {
    "too few seeds or images": (
        "The study is too small to tell such a gain from none.",
        "The seeds (key seeds) and images named here; with data.folds every image is tested once a seed.",
    ),
    "other test images": (
        "The test images differ from those that were learned from. Classes are decided at a probability of one half, "
        "which need not fit them, and then F1 says little of what a student can tell apart.",
        "AUROC, which no threshold decides, beside F1; training and validation images like those of the test.",
    ),
    "weak teacher": (
        "The student that learns alone is nearly as good as its teacher, which has little to teach it.",
        "A better teacher: more teacher.epochs, a larger teacher.model, teacher.pretrained, larger images for it "
        "(teacher.size), the mean of several (teacher.members).",
    ),
    "one-hot targets": (
        "Such targets say hardly more than the subclass labels.",
        "Targets from teachers that did not train on the image (teacher.members with teacher.cross_fit), fewer "
        "teacher.epochs, a distillation.temperature of 2.",
    ),
    "memorised targets": (
        "The teacher knows its training images by heart: its targets are labels more than knowledge.",
        "teacher.members with teacher.cross_fit, more distillation.views, fewer teacher.epochs.",
    ),
    "few label bits": (
        "The teacher hardly tells the subclasses of a class apart, so its targets carry the class and little else.",
        "Subclasses that show in the images, larger images (data.size or teacher.size), a better teacher; else kd.",
    ),
    "flat targets": (
        "Softened so far, the targets of all images are nearly alike.",
        "A distillation.temperature of 1 or 2.",
    ),
    "narrow embedding": (
        "It cannot answer for each subclass freely, and the class may suffer for it.",
        "A wider student: student.options (width of the small networks), or another student.model.",
    ),
    "underfitted student": (
        "It was trained too briefly, or is too small, to take over what it is taught.",
        "Twice the student.epochs, three times the student.learning_rate or a third, a wider student.",
    ),
    "shuffled subclasses do as well": (
        "On these test images subclasses without meaning do as well, to half a point: what skd gains, if it does, is "
        "not from what subclasses mean.",
        "No claim of subclass knowledge; look at the label bits and at the teacher's lead.",
    ),
    "subclass labels do as well": (
        "On these test images subclass labels alone do as well, to half a point: the teacher adds nothing that counts.",
        "A teacher that is much better, or the arm subclass-labels, which needs none.",
    ),
    "not shown to be above a control": (
        "These seeds show neither that skd is above it nor that it is not: inconclusive is not equal. A gain of "
        "skd may be one that the control shares.",
        "More seeds (key seeds), more test images (with data.folds every image is tested once a seed); until then no "
        "claim that a gain is from what subclasses mean, or from the teacher.",
    ),
}


def diagnose(results: Mapping[str, Any], facts: Mapping[str, Any] | None = None) -> list[dict[str, str]]:
    """Name the conditions of a study in which subclass distillation has little to gain.

    What speaks against a gain is looked for only where the study's first question did not come out "better"; whether
    the controls do as well as ``skd``, or are not shown to do worse, always.

    Args:
        results: of results.json: ``study``, ``data``, ``teachers``, ``label_bits``, ``arms`` and ``comparisons``.
        facts: as of :func:`subclass_kd.facts.facts`; without them what they would tell is not looked for.

    Returns:
        Findings in the order of ``ADVICE``, each with ``kind``, ``found`` (numbers and their n), ``meaning`` and
        ``try``; none in a study without ``skd``.
    """
    arms = results["arms"]
    if "skd" not in arms:
        return []
    found = {
        "shuffled subclasses do as well": conditions.as_good(arms, "skd-shuffled"),
        "subclass labels do as well": conditions.as_good(arms, "subclass-labels"),
        "not shown to be above a control": conditions.not_above(arms, ("skd-shuffled", "subclass-labels")),
    }
    if first_verdict(results["comparisons"]) != "better":
        known, subclasses = facts or {}, len(results["data"]["subclasses"])
        other_test = conditions.other_test(results)
        found |= {
            "too few seeds or images": conditions.too_few(results["comparisons"]),
            "other test images": other_test,
            # F1 tells little of a teacher where it does not of a student
            "weak teacher": conditions.weak_teacher(results, "f1" if other_test is None else "auroc"),
            "one-hot targets": conditions.one_hot(known),
            "memorised targets": conditions.memorised(results),
            "few label bits": conditions.few_bits(results),
            "flat targets": conditions.flat(known, subclasses),
            "narrow embedding": conditions.narrow(known, subclasses),
            "underfitted student": conditions.underfitted(known, results),
        }
    return [
        {
            "kind": kind,
            "found": f"{text[0].upper()}{text[1:]}.",
            "meaning": meaning,
            "try": remedy,
        }
        for kind, (meaning, remedy) in ADVICE.items()
        if (text := found.get(kind)) is not None
    ]


def first_verdict(comparisons: Sequence[Mapping[str, Any]]) -> str | None:
    """Give the verdict on the study's first question, or None where it asks none.

    >>> first_verdict([{"arm": "skd", "reference": "scratch", "verdict": "better"}])
    'better'
    """
    verdicts = {(row["arm"], row["reference"]): str(row["verdict"]) for row in comparisons}
    return next((verdicts[pair] for pair in HEADLINES if pair in verdicts), None)

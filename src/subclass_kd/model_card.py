"""MODEL_CARD.md: what a student is for, what it was made from, how it did, and where it ends."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Mapping
from typing import Any


def model_card(stated: Mapping[str, Any]) -> str:
    """Write a bundle's model card (Mitchell et al. 2018, https://arxiv.org/abs/1810.03993) in Markdown.

    Names out of the data appear as text, whatever they hold.

    Args:
        stated: bundle.json without ``files``.
    """
    sections = (_head, _use, _data, _results, _subclasses, _int8, _limits)
    return "\n\n".join(part for section in sections if (part := section(stated))) + "\n"


def as_text(text: str) -> str:
    r"""Write a name so that Markdown shows it as it is: no tag, no link, no cell.

    >>> print(as_text("<b>|[x](y)"))
    &lt;b&gt;\|\[x\](y)
    """
    shown = html.escape(re.sub(r"\s+", " ", text), quote=False)
    return re.sub(r"([\\`*_\[\]|~#])", r"\\\1", shown)


def _head(stated: Mapping[str, Any]) -> str:
    student = stated["study"]["student"]
    classes = ", ".join(as_text(name) for name in stated["hierarchy"]["classes"])
    validation = "; ".join(f"seed {row['seed']}: {_percent(row['validation_f1'])}" for row in stated["candidates"])
    return f"""# Model card

**For research; not a medical device.**

An image classifier of {stated["results"]["arm"]["parameters"]:,} parameters that answers: {classes}?
Network `{student["model"]}`, trained by subclass-kd {stated["versions"]["subclass_kd"]} as arm `{stated["arm"]}`,
seed {stated["seed"]}, chosen by validation F1 ({validation}). Positive class: {as_text(stated["positive"])}."""


def _use(stated: Mapping[str, Any]) -> str:
    decision = stated["decision"]
    temperature = stated["temperature"]
    losses = temperature["validation_log_loss"]
    if decision["threshold"] is None:
        decided = "The decision is the most probable class."
    else:
        reached = decision["validation"]
        decided = (
            f"The decision is {as_text(stated['positive'])} where its probability is at least "
            f"{decision['threshold']:.4g} (rule `{decision['rule']}` on {reached['images']:,} validation images: "
            f"sensitivity {_percent(reached['sensitivity'])}, specificity {_percent(reached['specificity'])})."
        )
    return f"""## Intended use

Research on images of the kind that it was trained on: same source, same way of taking them, same classes. It was made
for no other use, and for no decision about a patient.

{decided}

Probabilities are calibrated by a temperature of {temperature["value"]:.3f}, fitted on
{temperature["validation_images"]:,} validation images (log loss {losses["before"]:.4f} before,
{losses["after"]:.4f} after).

Input: {stated["preprocessing"]["said"]}"""


def _data(stated: Mapping[str, Any]) -> str:
    data = stated["data"]
    cells = [
        [as_text(row["name"]), as_text(row["class"]), *(f"{row[split]:,}" for split in ("train", "validation", "test"))]
        for row in data["subclasses"]
    ]
    rows = [f"| {' | '.join(row)} |" for row in cells]
    groups = data.get("groups")
    told = "Patients or slides are not known: images of one may be on two sides of a split."
    if groups:
        told = (
            "No patient or slide is in two splits: " + ", ".join(f"{n:,} {split}" for split, n in groups.items()) + "."
        )
    return f"""## Data

Kind `{stated["study"]["data"]["kind"]}`, fingerprint `{data["fingerprint"]}`. {told}

| subclass | class | training | validation | test |
|---|---|---|---|---|
""" + "\n".join(rows)


def _results(stated: Mapping[str, Any]) -> str:
    test, arm = stated["test"], stated["results"]["arm"]
    rows = [
        f"| {name} | {_share(test[key])} |"
        for name, key in (
            ("F1", "f1"), ("accuracy", "accuracy"), ("sensitivity", "sensitivity"), ("specificity", "specificity"),
            ("positive predictive value", "ppv"), ("negative predictive value", "npv"),
        )
    ]  # fmt: skip
    over = "over images, each taken by itself (Wilson; AUROC: jackknife; Brier: Student)"
    if test["groups"] is not None:
        over = (
            f"over {test['groups']:,} patients or slides, the images of one taken together (jackknife, Wilson's form)"
        )
    ece, brier = test["ece"], test["brier"]
    auroc, of_brier = _ends(test["auroc_ci95"], _percent), _ends(test["brier_ci95"], _number)
    table = "\n".join(rows)
    return f"""## Results

This student's decisions on {test["images"]:,} test images, which chose nothing; 95 % intervals {over}:

| | % (95 % interval) |
|---|---|
{table}

Predictive values hold at the test images' share of positives. AUROC {_percent(test["auroc"])}{auroc}.
Expected calibration error {_number(ece["before"])} before the temperature, {_number(ece["after"])} after, without an
interval, since few images make it look larger than it is; Brier score {_number(brier["before"])} and
{_number(brier["after"])}{of_brier}.

All {len(arm["f1"]["per_seed"])} students of this arm, deciding by the most probable class: F1
{_over_seeds(arm["f1"])} on average over seeds (Student's interval over seeds)."""


def _subclasses(stated: Mapping[str, Any]) -> str:
    rows = stated["test"]["subclasses"]
    lines = [
        f"| {as_text(row['name'])} | {as_text(row['class'])} | {row['right']['of']:,} | {_share(row['right'])} |"
        for row in rows
    ]
    known = [row for row in rows if row["right"]["value"] is not None]
    worst = min(known, key=lambda row: row["right"]["value"])
    return (
        """## Results by subclass

How often the class was right, on the test images of each subclass:

| subclass | class | test images | right, % (95 % interval) |
|---|---|---|---|
"""
        + "\n".join(lines)
        + f"\n\nWorst: {as_text(worst['name'])}, {_share(worst['right'])}."
    )


def _int8(stated: Mapping[str, Any]) -> str:
    int8 = stated["int8"]
    if int8 is None:
        return ""
    rows = "\n".join(
        f"| {split} | {row['images']:,} | {_percent(row['f1']['float32'])} | {_percent(row['f1']['int8'])} | "
        f"{row['decisions_changed']:,} |"
        for split, row in ((split, int8[split]) for split in ("validation", "test"))
    )
    return f"""## In 8 bits

**{int8["advice"]}** The test images are reported and advise nothing.

| images | n | F1 in float32, % | F1 in 8 bits, % | decisions changed |
|---|---|---|---|---|
{rows}

`model-int8.onnx` has {int8["bytes"]["int8"] / 1e3:,.1f} kB, `model.onnx` {int8["bytes"]["float32"] / 1e3:,.1f} kB;
activations have the ranges of {int8["calibration_images"]:,} training images."""


def _limits(stated: Mapping[str, Any]) -> str:
    small = [as_text(row["name"]) for row in stated["test"]["subclasses"] if row["right"]["of"] < 30]
    few = (
        f"\n- Fewer than 30 test images: {', '.join(small)}. What is said of these is little more than a guess."
        if small
        else ""
    )
    groups = stated["test"]["groups"]
    alone = "" if groups is not None else (
        "\n- Patients or slides of the test images are not known. Where several images are of one, the intervals above "
        "are too narrow."
    )  # fmt: skip
    return f"""## Limits

- It always answers, also about images of no known class, of another device, or of another kind altogether.
- Other sources, ages, ways of taking images and shares of positives were not tested. Calibration and threshold hold
  for the validation images' source and share of positives.
- The test images come from the same data as the training images; use elsewhere needs a test elsewhere first.
- Subclass probabilities are as good as the subclass labels were.{few}{alone}"""


def _percent(value: float | None) -> str:
    return "not defined" if value is None else f"{100 * value:.1f}"


def _number(value: float | None) -> str:
    return "not defined" if value is None else f"{value:.4f}"


def _ends(pair: list[float] | None, write: Callable[[float], str]) -> str:
    return "" if pair is None else f" ({write(pair[0])} to {write(pair[1])})"


def _share(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "not defined"
    if row["ci95"] is None:
        return f"{_percent(row['value'])} (no interval: all of one patient or slide)"
    low, high = row["ci95"]
    return f"{_percent(row['value'])} ({_percent(low)} to {_percent(high)})"


def _over_seeds(summary: Mapping[str, Any]) -> str:
    if summary["ci95"] is None:
        return f"{_percent(summary['mean'])} %"
    low, high = summary["ci95"]
    return f"{_percent(summary['mean'])} % ({_percent(low)} to {_percent(high)})"

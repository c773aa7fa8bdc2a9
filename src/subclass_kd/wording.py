"""Numbers in words that results and their diagnosis share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def count(number: int, name: str) -> str:
    """Say how many.

    >>> count(1, "seed"), count(1000, "seed")
    ('1 seed', '1,000 seeds')
    """
    return f"{number:,} {name}{'s' * (number != 1)}"


def size(row: Mapping[str, Any]) -> str:
    """Say how large a comparison is.

    >>> size({"seeds": 3, "test_images": 3500, "test_groups": 700})
    '3 seeds and 3,500 test images of 700 patients or groups'
    """
    groups = f" of {row['test_groups']:,} patients or groups" if row["test_groups"] else ""
    return f"{count(row['seeds'], 'seed')} and {count(row['test_images'], 'test image')}{groups}"


def ways(plan: Mapping[str, Any]) -> str:
    """Say what a difference takes: by seeds alone, with their 95 % interval, and by seeds and images.

    Args:
        plan: one of ``needed`` of :func:`subclass_kd.power.needed`.

    >>> plan = {"seeds": 13, "seeds_ci95": [6, "never"], "plan": {"seeds": 7, "test_images": 1329}}
    >>> ways(plan)
    '13 seeds (95 % interval 6 to more than can be had), or 7 seeds and 1,329 test images'
    >>> ways({"seeds": "never", "plan": None})
    'more than can be had'
    """
    found = []
    if plan["seeds"] != "never":
        low, high = ("more than can be had" if end == "never" else f"{end:,}" for end in plan["seeds_ci95"])
        found.append(f"{count(plan['seeds'], 'seed')} (95 % interval {low} to {high})")
    both = plan["plan"]
    if both and both["seeds"] != plan["seeds"]:
        found.append(f"{count(both['seeds'], 'seed')} and {count(both['test_images'], 'test image')}")
    return ", or ".join(found) or "more than can be had"


def of_power(row: Mapping[str, Any]) -> str:
    """Say what a study could have seen, and what a smaller difference, the one next to 1.5 points, would take.

    Args:
        row: one of :func:`subclass_kd.power.needed`.

    >>> row = {"arm": "skd", "reference": "kd", "seeds": 3, "test_images": 3500, "test_groups": None, "power": 0.8}
    >>> of_power(row | {"detectable": 0.009, "detectable_ci95": [0.005, 0.03], "needed": [{"difference": 0.01}]})
    'With 3 seeds and 3,500 test images ... by 0.9 points or more (95 % interval 0.5 to 3.0).'
    """
    if not row["needed"]:
        return f"What this study could have seen is not known: {row['reason']}"
    chance = f"a chance of {100 * row['power']:.0f} % to find {row['arm']} better than {row['reference']}"
    if row["detectable"] is None:
        seen = f"With {size(row)} this study had {chance} for no difference, however large."
    else:
        low, high = ("100" if end is None else f"{100 * end:.1f}" for end in row["detectable_ci95"])
        truly = f"if it truly is by {100 * row['detectable']:.1f} points or more"
        seen = f"With {size(row)} this study had {chance}, {truly} (95 % interval {low} to {high})."
    hidden = [plan for plan in row["needed"] if row["detectable"] is None or plan["difference"] < row["detectable"]]
    if not hidden:
        return seen
    plan = min(hidden, key=lambda each: abs(each["difference"] - 0.015))
    return f"{seen} For {100 * plan['difference']:.1f} points it takes {ways(plan)}."

"""Whether the power that is predicted is the power that studies have, and how well one study predicts it.

    python -m benchmarks.power [--studies N] [--json FILE]

Studies are simulated as in ``benchmarks.false_positives``: six arms, nine comparisons, skd truly better than kd. The
mean of the variance's parts over the studies predicts power: at their own size, and, to try how it is carried over to
another size, from those of 5 seeds and 1,000 images. Each study by itself says, too, what it could have seen.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.false_positives import ARMS, simulate
from benchmarks.machine import describe_machine
from subclass_kd.comparison import SIGNIFICANCE, compare, pairs
from subclass_kd.files import write_json
from subclass_kd.power import Spread, needed, spread_of

SIZES = [(seeds, images) for seeds in (3, 5, 10) for images in (300, 1000, 4000)]
PILOT = (5, 1000)
GAINS = (0.02, 0.04)
LEVEL = SIGNIFICANCE / len(pairs(ARMS))


def simulate_studies(studies: int, seeds: int, images: int, gain: float) -> dict[str, Any]:
    """Simulate studies of one size: how often skd reads better than kd, and what each says of its own power.

    Returns:
        ``difference``, ``variance`` (means over studies), shares ``better`` and ``first_step`` (p below 0.05 / 9, the
        level for which power is predicted), and lists ``detectable`` and ``detectable_ci95``, 1 for none.
    """
    random = np.random.default_rng([studies, seeds, images, round(1000 * gain)])
    rows, detectable, intervals = [], [], []
    for _ in range(studies):
        predictions, labels = simulate(random, seeds, images, gain)
        comparisons = compare(predictions, labels, positive=1, arm_pairs=pairs(ARMS))
        rows.append(comparisons[pairs(ARMS).index(("skd", "kd"))])
        said = needed(comparisons, [])[0]
        detectable.append(said["detectable"] or 1.0)
        intervals.append([end or 1.0 for end in said["detectable_ci95"]])
    known = [row for row in rows if row["p_value"] is not None and row["difference"] > 0]
    return {
        "difference": float(np.mean([row["difference"] for row in rows])),
        "variance": {
            name: float(np.mean([row["variance"][name] for row in rows])) for name in ("seeds", "images", "seed_images")
        },
        "better": sum(row["verdict"] == "better" for row in rows),
        "first_step": sum(row["p_value"] < LEVEL for row in known),
        "detectable": detectable,
        "detectable_ci95": intervals,
    }


def spread(found: dict[str, Any], seeds: int, images: int) -> Spread:
    """Give the spread of the mean study."""
    row = {"variance": found["variance"], "seeds": seeds, "test_images": images, "test_groups": None}
    known = spread_of(row, LEVEL)
    if known is None:
        raise ValueError("no variance in simulated studies")
    return known


def measure(studies: int) -> list[dict[str, Any]]:
    """Simulate all sizes and gains, and predict each."""
    rows = []
    for gain in GAINS:
        found = {size: simulate_studies(studies, *size, gain) for size in SIZES}
        pilot = spread(found[PILOT], *PILOT)
        for (seeds, images), each in found.items():
            own = spread(each, seeds, images)
            true = own.detectable()
            inside = [low <= (true or 1.0) <= high for low, high in each["detectable_ci95"]]
            rows.append(
                {
                    "gain": gain,
                    "seeds": seeds,
                    "images": images,
                    "studies": studies,
                    "difference": each["difference"],
                    "variance": each["variance"],
                    "predicted": own.chance(each["difference"], seeds, images),
                    "from_pilot": pilot.chance(each["difference"], seeds, images),
                    "first_step": _rate(each["first_step"], studies),
                    "better": _rate(each["better"], studies),
                    "detectable": true,
                    "detectable_by_study": [float(q) for q in np.quantile(each["detectable"], [0.1, 0.5, 0.9])],
                    "interval_holds_it": float(np.mean(inside)),
                }
            )
            print(table_row(rows[-1]), flush=True)
    return rows


HEADER = "| seeds | images | gain | predicted | by 5 x 1,000 | first step | better | can see | one study says |"


def table_row(row: dict[str, Any]) -> str:
    """Give a row of the table in docs/statistics.md: powers in %, differences in points."""
    low, middle, high = row["detectable_by_study"]
    sees = "-" if row["detectable"] is None else f"{100 * row['detectable']:.1f}"
    cells = [
        f"{row['seeds']}",
        f"{row['images']:,}",
        f"{100 * row['difference']:.1f}",
        f"{100 * row['predicted']:.1f}",
        f"{100 * row['from_pilot']:.1f}",
        f"{100 * row['first_step']['rate']:.1f}",
        f"{100 * row['better']['rate']:.1f}",
        sees,
        f"{100 * middle:.1f} ({100 * low:.1f}-{100 * high:.1f})",
    ]
    return f"| {' | '.join(cells)} |"


def _rate(hits: int, studies: int) -> dict[str, Any]:
    interval = stats.binomtest(hits, studies).proportion_ci(0.95)
    return {"rate": hits / studies, "ci95": [float(interval.low), float(interval.high)]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--studies", type=int, default=1000, help="simulated studies for each row")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    started = time.perf_counter()
    print(f"{HEADER}\n{'|---' * 9}|")
    rows = measure(arguments.studies)
    held = np.mean([row["interval_holds_it"] for row in rows])
    print(f"\nThe interval of one study holds the difference that studies of its size see in {100 * held:.1f} %.")
    print(f"{time.perf_counter() - started:.0f} s")
    if arguments.json:
        content = {"machine": describe_machine(), "level": LEVEL, "interval_holds_it": float(held), "rows": rows}
        write_json(arguments.json, content)


if __name__ == "__main__":
    main()

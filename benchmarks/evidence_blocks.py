"""Blocks of seeds of one study, trained in different folders or on different machines, judged together.

A study of hours need not be made in one place: each block keeps the results.json of its seeds and what their students
said of each test image, so that differences, their intervals and what hangs on them can be computed over all seeds.
"""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.comparison import compare, pairs
from subclass_kd.config import Study
from subclass_kd.diagnosis import diagnose
from subclass_kd.evaluation import summarise
from subclass_kd.files import write_json
from subclass_kd.power import needed
from subclass_kd.results import IDLE

Block = dict[str, Any]  # seeds, recipe, machine, sittings, results, log_odds: arm -> a text for each seed


def read_blocks(path: Path | None, study: Study) -> list[Block]:
    """Read the blocks of a study that are kept, or none.

    Raises:
        ValueError: they are of another recipe, or a seed is in two.
    """
    if path is None or not path.exists():
        return []
    blocks: list[Block] = json.loads(path.read_text("utf-8"))["blocks"]
    asked = recipe_of(study)
    for block in blocks:
        other = sorted(key for key in asked | block["recipe"] if asked.get(key) != block["recipe"].get(key))
        if other:
            raise ValueError(
                f"{path}: its seeds {block['seeds']} were made with other settings of {', '.join(other)}. "
                "Move the file away to make them again."
            )
    seeds = [seed for block in blocks for seed in block["seeds"]]
    if len(seeds) != len(set(seeds)):
        raise ValueError(f"{path}: seeds {seeds} are there twice. Leave one block of each.")
    return blocks


def write_blocks(path: Path, blocks: Sequence[Block]) -> None:
    """Keep blocks, those with the first seeds first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {"blocks": sorted(blocks, key=lambda block: block["seeds"])})


def recipe_of(study: Study) -> dict[str, Any]:
    """Give all that decides a study's results but its seeds and where its data lie."""
    dumped = study.model_dump(mode="json", exclude=IDLE)
    data = {key: value for key, value in dumped["data"].items() if key not in ("root", "table")}  # have fingerprints
    return {key: value for key, value in dumped.items() if key != "seeds"} | {"data": data}


def without_paths(study: dict[str, Any]) -> dict[str, Any]:
    """Leave of the data's folder and table their names: where they lay is nobody's business."""
    named = {key: study["data"][key] and Path(study["data"][key]).name for key in ("root", "table")}
    return {**study, "data": {**study["data"], **named}}


def pack(log_odds: NDArray[np.float64]) -> list[str]:
    """Write log-odds (S, N) as a short text for each seed: three decimal digits of each, and its sign whatever it is.

    >>> unpack(pack(np.array([[0.0, 1e-9, -3.14159]]))).tolist()
    [[0.0, 5.9604...e-08, -3.1406...]]
    """
    least = float(np.finfo(np.float16).smallest_subnormal)
    sizes = np.clip(np.abs(log_odds), least, float(np.finfo(np.float16).max))
    rounded = np.where(log_odds == 0, 0, np.copysign(sizes, log_odds)).astype("<f2")
    return [base64.b64encode(zlib.compress(row.tobytes(), 9)).decode() for row in rounded]


def unpack(texts: Sequence[str]) -> NDArray[np.float64]:
    """Read log-odds (S, N) from what :func:`pack` wrote."""
    return np.stack([np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f2") for text in texts]).astype(float)


def log_odds_of(blocks: Sequence[Block], arm: str) -> NDArray[np.float64]:
    """Give log-odds (S, N) of the second of two classes for each seed and test image, the smallest seed first."""
    texts = {seed: text for block in blocks for seed, text in zip(block["seeds"], block["log_odds"][arm], strict=True)}
    return unpack([texts[seed] for seed in sorted(texts)])


def decided_by(blocks: Sequence[Block], arm: str) -> NDArray[np.int64]:
    """Give the class (S, N) that each seed's student says of each test image, the smallest seed first."""
    return (log_odds_of(blocks, arm) > 0).astype(np.int64)


def pooled(
    blocks: Sequence[Block], labels: NDArray[np.int64], positive: int, groups: NDArray[np.int64] | None
) -> dict[str, Any]:
    """Give what results.json would say, had one run made the seeds of all blocks.

    Args:
        blocks: of the same recipe and the same images, no seed in two.
        labels: (N,) true classes of the test images.
        positive: the class that F1 speaks of.
        groups: (N,) patients, or None.
    """
    every = [block["results"] for block in blocks]
    first = every[0]
    if len(every) == 1:  # but for what a newer version of the tool says of it
        known = first["diagnosis"]["facts"]
        return {**first, "diagnosis": {"facts": known, "findings": diagnose(first, known)}}
    arms = {name: _network([results["arms"][name] for results in every]) for name in first["arms"]}
    comparisons = compare({arm: decided_by(blocks, arm) for arm in arms}, labels, positive, pairs(list(arms)), groups)
    results = {
        **first,
        "study": {**first["study"], "seeds": [seed for block in blocks for seed in block["seeds"]]},
        "environment": {
            **first["environment"],
            **{
                key: sorted({value for results in every for value in results["environment"][key]})
                for key in ("trained_with", "devices")
            },
        },
        "teachers": {name: _network([results["teachers"][name] for results in every]) for name in first["teachers"]},
        "label_bits": first["label_bits"] and _label_bits([results["label_bits"] for results in every]),
        "arms": arms,
        "comparisons": comparisons,
    }
    measured = _facts([results["diagnosis"]["facts"] for results in every])
    return results | {
        "power": needed(comparisons),
        "diagnosis": {"facts": measured, "findings": diagnose(results, measured)},
    }


def _network(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Put one network's metrics and notes of several blocks together; what it costs to run is the same in all."""
    pooled = dict(rows[0])
    for key, value in rows[0].items():
        if isinstance(value, dict) and "per_seed" in value:
            pooled[key] = _over_seeds([row[key] for row in rows])
        elif isinstance(value, list):  # seed by seed
            pooled[key] = [each for row in rows for each in row[key]]
    seeds = [len(row["f1"]["per_seed"]) for row in rows]
    pooled["train_seconds"] = float(np.average([row["train_seconds"] for row in rows], weights=seeds))
    if "targets" in pooled:
        differences = [row["targets"]["bfloat16_difference"] for row in rows]
        pooled["targets"] = {
            "precision": list(chain.from_iterable(row["targets"]["precision"] for row in rows)),
            "bfloat16_difference": max((each for each in differences if each is not None), default=None),
        }
    return pooled


def _over_seeds(summaries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return summarise([value for summary in summaries for value in summary["per_seed"]])


def _label_bits(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    pooled = {}
    for split, first in rows[0].items():
        over = {name: _over_seeds([row[split]["over_seeds"][name] for row in rows]) for name in first["over_seeds"]}
        pooled[split] = {**first, **{name: summary["mean"] for name, summary in over.items()}, "over_seeds": over}
    return pooled


def _facts(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Give means over all networks of what each block's diagnosis measured."""
    if not rows[0]:
        return {}
    networks = [row["networks"] for row in rows]
    told = [row for row in rows if row["unlearned"] is not None]
    return {
        **rows[0],
        "networks": sum(networks),
        "targets": {
            name: value
            if name == "images"
            else float(np.average([row["targets"][name] for row in rows], weights=networks))
            for name, value in rows[0]["targets"].items()
        },
        "unlearned": float(np.average([row["unlearned"] for row in told], weights=[row["networks"] for row in told]))
        if told
        else None,
    }

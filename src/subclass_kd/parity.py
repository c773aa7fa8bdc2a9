"""What a student loses on its way out: from PyTorch to ONNX, which is to be nothing, and from there to 8 bits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subclass_kd import bundle
from subclass_kd.candidates import Run
from subclass_kd.counts import Counts
from subclass_kd.deployed import Deployed
from subclass_kd.errors import UserError
from subclass_kd.quantisation import MOST_CALIBRATION, quantise, spread

MOST_PARITY = 500  # test images
LOUD = 0.005  # of F1 on validation images, from float32 to 8 bits
_BATCH = 100


def measure_parity(run: Run, model: Deployed, path: Path, threshold: float | None) -> dict[str, Any]:
    """Hold an ONNX model against PyTorch on up to 500 test images.

    Args:
        run: finished.
        model: the student as it is deployed.
        path: of the same as ONNX.
        threshold: of the decision.

    Returns:
        ``images``; ``max_difference``, the largest of a probability; ``decisions_changed``.
    """
    rows = spread(run.samples.test, MOST_PARITY)
    session = bundle.make_session(path, 1)
    difference, changed = 0.0, 0
    for pixels in _batches(run, rows):
        with torch.no_grad():
            exact = [probs.numpy() for probs in model(torch.from_numpy(pixels))]
        given = session.run(None, {bundle.INPUT: pixels})
        differences = [float(abs(a - b).max()) for a, b in zip(exact, given, strict=True)]
        difference = max([difference, *(d if d == d else float("inf") for d in differences)])
        decisions = (bundle.decide(probs[0], run.samples.positive, threshold) for probs in (exact, given))
        changed += int((next(decisions) != next(decisions)).sum())
    return {"images": len(rows), "max_difference": difference, "decisions_changed": changed}


def agreement(parity: Mapping[str, Any]) -> str:
    """Say how near ONNX is to PyTorch."""
    changed = parity["decisions_changed"]
    return (
        f"largest difference of a probability {parity['max_difference']:.1e}, {changed or 'no'} decision"
        f"{'s' if changed > 1 else ''} changed, {parity['images']} test images"
    )


def eight_bits(run: Run, onnx: Path, path: Path, threshold: float | None) -> dict[str, Any]:
    """Make the student of 8 bits, and say what it costs in F1 and saves in size; validation images alone advise.

    Args:
        run: finished.
        onnx: the student as ONNX.
        path: the file to write.
        threshold: of the decision.

    Returns:
        ``int8`` of bundle.json, as docs/bundle.md has it.

    Raises:
        UserError: onnxruntime cannot make it.
    """
    rows = spread(run.samples.train, MOST_CALIBRATION)
    try:
        quantise(onnx, path, run.samples.images, rows)
    except Exception as error:  # as of the exporter
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        found = f"a student that onnxruntime cannot bring to 8 bits ({reason})"
        raise UserError("--int8", found, "one that it can", "Leave out --int8.") from error
    splits = {split: getattr(run.samples, split) for split in ("validation", "test")}
    stated = {split: _change(run, images, (onnx, path), threshold) for split, images in splits.items()}
    size = {"float32": onnx.stat().st_size, "int8": path.stat().st_size}
    return {"advice": int8_advice(stated["validation"]), **stated, "calibration_images": len(rows), "bytes": size}


def _change(run: Run, images: NDArray[np.int64], models: tuple[Path, Path], threshold: float | None) -> dict[str, Any]:
    """Say what 8 bits change on images: F1 of the student in float32 and in 8 bits, and how many decisions differ."""
    positive = run.samples.positive
    truth = run.samples.class_labels[images] == positive
    f1, decided = {}, {}
    for name, file in zip(("float32", "int8"), models, strict=True):
        session = bundle.make_session(file, 1)
        parts = [session.run(None, {bundle.INPUT: pixels})[0] for pixels in _batches(run, images)]
        decided[name] = bundle.decide(np.concatenate(parts), positive, threshold)
        f1[name] = Counts.of(truth, decided[name] == positive).f1
    changed = int((decided["float32"] != decided["int8"]).sum())
    return {"images": len(truth), "f1": f1, "decisions_changed": changed}


def int8_advice(validation: Mapping[str, Any]) -> str:
    """Advise on a student of 8 bits by what it changes on validation images; loudly where F1 falls by half a point.

    >>> int8_advice({"images": 90, "f1": {"float32": 0.9, "int8": 0.8949}, "decisions_changed": 2})
    'WARNING: on validation images F1 falls by MORE THAN 0.5 POINTS in 8 bits. Use the student in float32.'
    """
    before, after = validation["f1"]["float32"], validation["f1"]["int8"]
    if before is None or after is None:
        return "WARNING: on validation images F1 IS NOT DEFINED in 8 bits or without. Use the student in float32."
    if before - after > LOUD:
        return "WARNING: on validation images F1 falls by MORE THAN 0.5 POINTS in 8 bits. Use the student in float32."
    return "On validation images F1 falls by no more than 0.5 points in 8 bits: use it where it is faster."


def int8_lines(int8: Mapping[str, Any]) -> list[str]:
    """Say what a student of 8 bits changes, and what follows for its use."""
    lines = []
    for split in ("validation", "test"):
        row = int8[split]
        values = [row["f1"][name] for name in ("float32", "int8")]
        points = "not defined" if None in values else f"{100 * (values[1] - values[0]):+.2f} points"
        lines.append(
            f"F1 {points} on {row['images']:,} {split} images ({row['decisions_changed']:,} decisions changed)"
        )
    size = int8["bytes"]
    sizes = f"{size['int8'] / 1e3:,.1f} kB instead of {size['float32'] / 1e3:,.1f} kB"
    return [f"int8: {'; '.join(lines)}; {sizes}.", int8["advice"]]


def _batches(run: Run, rows: NDArray[np.int64]) -> Iterator[NDArray[np.uint8]]:
    for start in range(0, len(rows), _BATCH):
        yield np.ascontiguousarray(run.samples.images[rows[start : start + _BATCH]])

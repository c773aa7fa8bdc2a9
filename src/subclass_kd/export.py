"""From a finished run to a bundle: the best student of an arm, ready to use, checked before it appears."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from subclass_kd import bundle, latency, store
from subclass_kd.bundle_files import CARD, MANIFEST, MODEL, MODEL_INT8, WEIGHTS, seal
from subclass_kd.bundle_manifest import CLASS_OUTPUT, SUBCLASS_OUTPUT
from subclass_kd.bundle_statement import state
from subclass_kd.calibration import calibrated
from subclass_kd.candidates import Candidate, Run, best_student, deployed_student, deployed_teacher
from subclass_kd.counts import Counts
from subclass_kd.deployed import Deployed, to_onnx
from subclass_kd.errors import UserError
from subclass_kd.files import sync_folder, write_json
from subclass_kd.model_card import model_card
from subclass_kd.quantisation import MOST_CALIBRATION, quantise, spread
from subclass_kd.results import class_log_probs

MOST_PARITY = 500  # test images
MOST_DIFFERENCE = 1e-4  # of a probability, between PyTorch and ONNX
STALE = 1e-3  # of a probability, between the student and what the run stored of it
LOUD = 0.005  # of F1 on validation images, from float32 to 8 bits
_BATCH = 100


def export_student(
    run: Run, arm: str, out: Path, *, rule: str = "youden", int8: bool = False, say: Callable[[str], None] = print
) -> dict[str, Any]:
    """Write the bundle of an arm's best student; it appears whole, once everything about it has been checked.

    Args:
        run: a finished run with its data.
        arm: whose student.
        out: the bundle's folder, which is not there yet.
        rule: for the threshold of a decision between two classes, as of :func:`subclass_kd.calibration.threshold_for`.
        int8: make a student of 8 bits too.
        say: called with each line that a user should read meanwhile.

    Returns:
        bundle.json as plain values.

    Raises:
        UserError: there is no such student, the network cannot be exported, the ONNX model answers otherwise than
            PyTorch, or the disk refuses.
    """
    students = best_student(run, arm)
    best = students[0]
    say(f"student of {arm}: " + "; ".join(str(student) for student in students) + f". Chosen: seed {best.seed}.")
    stated = state(run, students, rule)
    model = deployed_student(run, best, stated["temperature"]["value"])
    _check_fresh(run, best, model)
    with _appearing(out) as folder:
        onnx = folder / MODEL
        _to_onnx(model, run.shape, onnx, f"student {arm}, seed {best.seed}")
        stated["parity"] = _parity(run, model, onnx, stated["decision"]["threshold"])
        say(f"ONNX agrees with PyTorch: {_agreement(stated['parity'])}.")
        costs = [_cost("student", run.results["arms"][arm], onnx, run)]
        if int8:
            stated["int8"] = _int8(run, onnx, folder / MODEL_INT8, stated["decision"]["threshold"])
            costs.append(_cost("student, int8", run.results["arms"][arm], folder / MODEL_INT8, run))
            for line in int8_lines(stated["int8"]):
                say(line)
        costs += _teacher_cost(run, best, folder)
        stated["cost"] = {"cpu": latency.cpu_name(), "networks": costs}
        _write_weights(folder / WEIGHTS, run, best)
        stated["outputs"] = [CLASS_OUTPUT, *([SUBCLASS_OUTPUT] if model.subclasses else [])]
        (folder / CARD).write_text(model_card(stated), "utf-8")
        write_json(folder / MANIFEST, stated)
        seal(folder)
    return stated


def _check_fresh(run: Run, best: Candidate, model: Deployed) -> None:
    """Refuse a student that answers otherwise than the predictions that everything stated comes from."""
    rows = np.arange(min(len(run.samples.test), _BATCH))
    stored = store.load(run.folder / best.predictions)["test"][: len(rows)]
    with torch.no_grad():
        now = model(torch.from_numpy(np.asarray(run.samples.images[run.samples.test[rows]])))[0].double().numpy()
    then = calibrated(class_log_probs(stored, run.samples), model.temperature)
    difference = float(abs(now - then).max())
    if not difference <= STALE:
        found = f"a student whose probabilities are up to {difference:.2g} off those that the run stored"
        raise UserError(best.weights, found, "the same", "Delete both and give skd run again.")


def _to_onnx(model: Deployed, shape: tuple[int, ...], path: Path, whose: str) -> None:
    try:
        to_onnx(model, shape, path)
    except Exception as error:  # whatever an exporter meets in a network of anybody's
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise UserError(whose, f"a network that torch cannot export ({reason})", "one that ONNX can hold") from error


def _parity(run: Run, model: Deployed, path: Path, threshold: float | None) -> dict[str, Any]:
    """Hold the ONNX model against PyTorch on test images, or refuse it."""
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
    parity = {"images": len(rows), "max_difference": difference, "decisions_changed": changed}
    if difference > MOST_DIFFERENCE or changed:
        expected = f"at most {MOST_DIFFERENCE:g}, and none changed"
        remedy = "No bundle was written. Please report it, with the student's model."
        raise UserError(path.name, f"an ONNX model unlike PyTorch's ({_agreement(parity)})", expected, remedy)
    return parity


def _agreement(parity: dict[str, Any]) -> str:
    changed = parity["decisions_changed"]
    return (
        f"largest difference of a probability {parity['max_difference']:.1e}, {changed or 'no'} decision"
        f"{'s' if changed > 1 else ''} changed, {parity['images']} test images"
    )


def _int8(run: Run, onnx: Path, path: Path, threshold: float | None) -> dict[str, Any]:
    """Make the student of 8 bits, and say what it costs in F1 and saves in size; validation images alone advise."""
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
    f1, called = {}, {}
    for name, file in zip(("float32", "int8"), models, strict=True):
        session = bundle.make_session(file, 1)
        parts = [session.run(None, {bundle.INPUT: pixels})[0] for pixels in _batches(run, images)]
        called[name] = bundle.decide(np.concatenate(parts), positive, threshold) == positive
        f1[name] = Counts.of(truth, called[name]).f1
    changed = int((called["float32"] != called["int8"]).sum())
    return {"images": len(truth), "f1": f1, "decisions_changed": changed}


def int8_advice(validation: dict[str, Any]) -> str:
    """Advise on a student of 8 bits by what it changes on validation images; loudly where F1 falls by half a point.

    >>> int8_advice({"images": 90, "f1": {"float32": 0.9, "int8": 0.8949}, "decisions_changed": 2})
    'WARNING: on validation images F1 falls by MORE THAN 0.5 POINTS in 8 bits. Use the student in float32.'
    """
    before, after = validation["f1"]["float32"], validation["f1"]["int8"]
    if before is None or after is None:
        return "WARNING: on validation images F1 IS NOT DEFINED in 8 bits or without. Use the student in float32."
    if before - after > LOUD:
        return "WARNING: on validation images F1 falls by MORE THAN 0.5 POINTS in 8 bits. Use the student in float32."
    return "On validation images F1 falls by no more than 0.5 points in 8 bits: use the faster of the two."


def int8_lines(int8: dict[str, Any]) -> list[str]:
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


def _cost(name: str, row: dict[str, Any], path: Path, run: Run) -> dict[str, Any]:
    counted = {key: row[key] for key in ("parameters", "multiply_adds")}
    return {"network": name, **counted, "bytes": path.stat().st_size, "latency": latency.measure(path, run.shape)}


def _teacher_cost(run: Run, best: Candidate, folder: Path) -> list[dict[str, Any]]:
    """Measure the teacher, too, in the same runtime; nothing where the run has none, or none that ONNX can hold."""
    path = folder / "teacher.onnx"
    try:
        name, teacher = deployed_teacher(run, best) or ("", None)
        if teacher is None:
            return []
        to_onnx(teacher, run.shape, path)
        return [_cost(f"teacher: {name}", run.results["teachers"][name], path, run)]
    except Exception:  # it is measured for comparison only
        return []
    finally:
        path.unlink(missing_ok=True)


def _write_weights(path: Path, run: Run, best: Candidate) -> None:
    from safetensors.torch import save_file

    weights = store.load(run.folder / best.weights)
    network = run.study.student.model_dump(mode="json")
    save_file(weights, path, {"network": json.dumps(network), "arm": best.arm, "seed": str(best.seed)})


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes it when the block ends well, and goes when it does not."""
    if out.exists():
        raise UserError(str(out), "something that is there", "a new folder", "Give another -o, or remove it.")
    temporary = out.absolute().with_name(f".{out.name}.{os.getpid()}.part")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for path in temporary.iterdir():
            path.chmod(temporary.stat().st_mode & 0o666)  # safetensors' own files are for one user alone
            with path.open("rb+") as file:
                os.fsync(file.fileno())
        sync_folder(temporary)
        temporary.rename(out)
        sync_folder(temporary.parent)
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(out), found, "a folder that can be written", "Give another -o.") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)

"""From a finished run to a bundle: the best student of an arm, ready to use, checked before it appears."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from subclass_kd import latency, store
from subclass_kd.bundle_files import CARD, MANIFEST, MODEL, MODEL_INT8, WEIGHTS, describe_files, seal
from subclass_kd.bundle_manifest import CLASS_OUTPUT, SUBCLASS_OUTPUT
from subclass_kd.bundle_statement import state
from subclass_kd.calibration import calibrated
from subclass_kd.candidates import Candidate, Run, best_student, deployed_student, deployed_teacher
from subclass_kd.deployed import Deployed, to_onnx
from subclass_kd.errors import UserError
from subclass_kd.files import sync_folder, write_json
from subclass_kd.model_card import model_card
from subclass_kd.parity import agreement, eight_bits, int8_lines, measure_parity
from subclass_kd.results import class_log_probs

MOST_DIFFERENCE = 1e-4  # of a probability, between PyTorch and ONNX
STALE = 1e-3  # of a probability, between the student and what the run stored of it
_FEWEST = 100  # test images that a student is asked about, to see that its weights are the run's


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
        stated["parity"] = _check_parity(run, model, onnx, stated["decision"]["threshold"])
        say(f"ONNX agrees with PyTorch: {agreement(stated['parity'])}.")
        costs = [_cost("student", run.results["arms"][arm], onnx, run)]
        if int8:
            stated["int8"] = eight_bits(run, onnx, folder / MODEL_INT8, stated["decision"]["threshold"])
            costs.append(_cost("student, int8", run.results["arms"][arm], folder / MODEL_INT8, run))
            for line in int8_lines(stated["int8"]):
                say(line)
        costs += _teacher_cost(run, best, folder, say)
        stated["cost"] = {"cpu": latency.cpu_name(), "networks": costs}
        _write_weights(folder / WEIGHTS, run, best)
        stated["outputs"] = [CLASS_OUTPUT, *([SUBCLASS_OUTPUT] if model.subclasses else [])]
        (folder / CARD).write_text(model_card(stated), "utf-8")
        stated["files"] = describe_files(folder)
        write_json(folder / MANIFEST, stated)
        seal(folder)
    return stated


def _check_fresh(run: Run, best: Candidate, model: Deployed) -> None:
    """Refuse a student that answers otherwise than the predictions that everything stated comes from."""
    rows = np.arange(min(len(run.samples.test), _FEWEST))
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
        found = f"a network that torch cannot export ({_reason(error)})"
        raise UserError(whose, found, "one that ONNX can hold") from error


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _check_parity(run: Run, model: Deployed, path: Path, threshold: float | None) -> dict[str, Any]:
    """Refuse an ONNX model that is not PyTorch's to rounding."""
    parity = measure_parity(run, model, path, threshold)
    if parity["max_difference"] > MOST_DIFFERENCE or parity["decisions_changed"]:
        expected = f"at most {MOST_DIFFERENCE:g}, and none changed"
        remedy = "No bundle was written. Please report it, with the student's model."
        raise UserError(path.name, f"an ONNX model unlike PyTorch's ({agreement(parity)})", expected, remedy)
    return parity


def _cost(name: str, row: dict[str, Any], path: Path, run: Run) -> dict[str, Any]:
    counted = {key: row[key] for key in ("parameters", "multiply_adds")}
    try:
        taken = latency.measure(path, run.shape)
    except UserError:
        raise
    except Exception as error:  # onnxruntime has errors of its own, without a common base but this
        found = f"a network that onnxruntime cannot run ({_reason(error)})"
        raise UserError(name, found, "one that it can") from error
    return {"network": name, **counted, "bytes": path.stat().st_size, "latency": taken}


def _teacher_cost(run: Run, best: Candidate, folder: Path, say: Callable[[str], None]) -> list[dict[str, Any]]:
    """Measure the teacher, too, in the same runtime; nothing where the run has none, or, as is said, none that can be.

    It is measured for comparison only: a bundle needs no teacher.
    """
    path = folder / "teacher.onnx"
    try:
        found = deployed_teacher(run, best)
        if found is None:
            return []
        name, teacher = found
        _to_onnx(teacher, run.shape, path, f"teacher {name}")
        return [_cost(f"teacher: {name}", run.results["teachers"][name], path, run)]
    except UserError as error:
        say(f"Without the teacher's cost: {error}")
        return []
    finally:
        path.unlink(missing_ok=True)


def _write_weights(path: Path, run: Run, best: Candidate) -> None:
    from safetensors.torch import save

    weights = store.load(run.folder / best.weights)
    network = run.study.of_arm(best.arm).student.model_dump(mode="json")
    # Not by save_file, whose error for a full disk is no OSError.
    path.write_bytes(save(weights, {"network": json.dumps(network), "arm": best.arm, "seed": str(best.seed)}))


@contextmanager
def _appearing(out: Path) -> Iterator[Path]:
    """Give a temporary folder beside ``out`` that becomes it when the block ends well, and goes when it does not."""
    if out.exists():
        raise UserError(str(out), "something that is there", "a new folder", "Give another -o, or remove it.")
    parent = out.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # For this user alone; so the bundle is a folder in it, which gets the user's usual permissions.
        with tempfile.TemporaryDirectory(".part", f".{out.name}.", parent, ignore_cleanup_errors=True) as beside:
            temporary = Path(beside) / out.name
            temporary.mkdir()
            yield temporary
            for path in temporary.iterdir():
                path.chmod(temporary.stat().st_mode & 0o666)  # whatever library wrote it
                with path.open("rb+") as file:
                    os.fsync(file.fileno())
            sync_folder(temporary)
            temporary.rename(out)
        sync_folder(parent)
    except OSError as error:
        found = error.strerror or str(error)
        raise UserError(str(out), found, "a folder that can be written", "Give another -o.") from None

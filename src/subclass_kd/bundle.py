"""A student ready for use, as ``skd export`` leaves it: read, checked, asked. Only onnxruntime, Pillow and numpy."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subclass_kd.cores import count_cores
from subclass_kd.data.images import MOST_PIXELS, decode_image, read_image
from subclass_kd.errors import UserError
from subclass_kd.extras import demand

SCHEMA = 1
MANIFEST, CARD, WEIGHTS = "bundle.json", "MODEL_CARD.md", "model.safetensors"
MODEL, MODEL_INT8 = "model.onnx", "model-int8.onnx"
INPUT, CLASS_OUTPUT, SUBCLASS_OUTPUT = "pixels", "class_probabilities", "subclass_probabilities"
REMEDY = "Export it again, or copy the whole folder."


class Answer(NamedTuple):
    """What a student says of N images.

    Args:
        class_probs: (N, C) float32, calibrated.
        subclass_probs: (N, K) float32, those of a class adding up to the class's; None for a student of classes alone.
        decisions: (N,) int64, numbers of classes.
    """

    class_probs: NDArray[np.float32]
    subclass_probs: NDArray[np.float32] | None
    decisions: NDArray[np.int64]


class Bundle:
    """A bundle's student and what is stated of it.

    Args:
        folder: as ``skd export`` left it.
        int8: ask the student in whole numbers of 8 bits, if the bundle has it.
        threads: that compute; as many as there are cores if not given.

    Attributes:
        stated: bundle.json as plain values.
        classes, subclasses: names, in the order of the columns; no subclasses for a student of classes alone.
        shape: (C, H, W) of the pixels that the student takes.

    Raises:
        UserError: the folder holds no bundle, one of another schema, or files that were changed.
    """

    def __init__(self, folder: Path, *, int8: bool = False, threads: int | None = None) -> None:
        demand("This command", "predict")
        self.folder = folder
        self.stated = read_manifest(folder)
        where = str(folder / MANIFEST)
        try:
            files: dict[str, dict[str, Any]] = self.stated["files"]
            hierarchy, pixels = self.stated["hierarchy"], self.stated["preprocessing"]
            self.classes = tuple(str(name) for name in hierarchy["classes"])
            has_subclasses = SUBCLASS_OUTPUT in self.stated["outputs"]
            self.subclasses = tuple(str(row["name"]) for row in hierarchy["subclasses"]) if has_subclasses else ()
            self.parents = tuple(self.classes.index(row["class"]) for row in hierarchy["subclasses"])
            self.positive = self.classes.index(self.stated["positive"])
            threshold = self.stated["decision"]["threshold"]
            self.threshold = None if threshold is None else float(threshold)
            self.shape = (int(pixels["channels"]), int(pixels["height"]), int(pixels["width"]))
            self._size = self.shape[1] if pixels["resize"] else None
            self._white = int(pixels["white"])
            name = MODEL_INT8 if int8 else MODEL
            if int8 and name not in files:
                raise UserError(str(folder), "no student of 8 bits", "a bundle made with --int8", "Leave out --int8.")
            content = (folder / name).read_bytes()
            digest = files[name]["sha256"]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UserError(where, f"a bundle that is not whole ({error})", "schema 1", REMEDY) from None
        except OSError as error:
            raise UserError(str(error.filename), error.strerror or str(error), "a file of the bundle", REMEDY) from None
        if hashlib.sha256(content).hexdigest() != digest:
            raise UserError(str(folder / name), "another content than bundle.json states", "the same", REMEDY)
        self._session = make_session(content, threads or count_cores(), str(folder / name))

    def read(self, path: Path) -> NDArray[np.uint8]:
        """Read an image file to pixels (C, H, W) as training did: the same function with the same arguments.

        Raises:
            UserError: as :func:`subclass_kd.data.images.read_image`, or the image is not of the one size that a study
                without ``data.size`` has.
        """
        return self._fitting(read_image(path, self.shape[0], self._size, self._white), str(path))

    def decode(self, content: bytes, name: str, most_pixels: int = MOST_PIXELS) -> NDArray[np.uint8]:
        """Read a file's content to pixels (C, H, W) as :meth:`read` does; nothing touches the disk.

        Args:
            content: of the whole file.
            name: that the file had, for messages; its suffix may tell DICOM.
            most_pixels: that the image may have.

        Raises:
            UserError: as :meth:`read`.
        """
        return self._fitting(decode_image(content, name, self.shape[0], self._size, self._white, most_pixels), name)

    def _fitting(self, image: NDArray[np.uint8], where: str) -> NDArray[np.uint8]:
        _, height, width = self.shape
        if image.shape != self.shape:
            found, expected = f"{image.shape[2]} x {image.shape[1]} pixels", f"{width} x {height}, as in training"
            raise UserError(where, found, expected)
        return image

    def answer(self, pixels: NDArray[np.uint8]) -> Answer:
        """Ask the student about images (N, C, H, W) uint8, as :meth:`read` gives them; any thread may call this."""
        if len(pixels) == 0:
            subclass = np.empty((0, len(self.subclasses)), np.float32) if self.subclasses else None
            return Answer(np.empty((0, len(self.classes)), np.float32), subclass, np.empty(0, np.int64))
        class_probs, *rest = self._session.run(None, {INPUT: pixels})
        return Answer(class_probs, rest[0] if rest else None, self.decide(class_probs))

    def decide(self, class_probs: NDArray[np.float32]) -> NDArray[np.int64]:
        """Decide (N,): with two classes, positive at or above the threshold; with more, the most probable class."""
        return decide(class_probs, self.positive, self.threshold)


def decide(class_probs: NDArray[np.floating], positive: int, threshold: float | None) -> NDArray[np.int64]:
    """Give numbers of classes (N,) from probabilities (N, C); without a threshold, those of the highest.

    >>> decide(np.array([[0.7, 0.3], [0.9, 0.1]]), positive=1, threshold=0.25)
    array([1, 0])
    """
    if threshold is None:
        return np.asarray(class_probs.argmax(axis=1), dtype=np.int64)
    return np.where(class_probs[:, positive] >= threshold, positive, 1 - positive).astype(np.int64)


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read bundle.json.

    Raises:
        UserError: there is none, it is damaged, or of another schema.
    """
    path = folder / MANIFEST
    try:
        stated = json.loads(path.read_text("utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(str(folder), f"no {MANIFEST}", "a bundle", "Make one: skd export RUN -o BUNDLE.") from None
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"a file that cannot be read ({error})", "JSON of a bundle", REMEDY) from None
    schema = stated.get("schema") if isinstance(stated, dict) else None
    if schema != SCHEMA:
        remedy = "Use the subclass-kd that made it, or export it again."
        raise UserError(str(path), f"schema {schema}", f"schema {SCHEMA}", remedy)
    return dict(stated)


def make_session(model: bytes | Path, threads: int, where: str = "model") -> Any:
    """Load an ONNX model to compute on the CPU with so many threads.

    Threads sleep when there is nothing to do: those that decode images need the cores meanwhile.

    Raises:
        UserError: onnxruntime cannot load it.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3  # errors only
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    source = model if isinstance(model, bytes) else str(model)
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has errors of its own, without a common base but this
        found = f"a model that onnxruntime cannot load ({str(error).splitlines()[0]})"
        raise UserError(where, found, "a whole ONNX model", REMEDY) from None

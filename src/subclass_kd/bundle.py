"""A student ready for use, as ``skd export`` leaves it: read, checked, asked. Only onnxruntime, Pillow and numpy."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from subclass_kd.bundle_files import MANIFEST, MODEL, MODEL_INT8, REMEDY, check_files
from subclass_kd.bundle_manifest import Statement, judge, read_manifest
from subclass_kd.cores import count_cores
from subclass_kd.data.images import MOST_PIXELS, decode_image, read_image
from subclass_kd.data.members import AnyPath
from subclass_kd.errors import UserError
from subclass_kd.extras import demand

INPUT = "pixels"


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
        UserError: the folder holds no bundle, one of another schema or without sense, or files that were changed.
    """

    def __init__(self, folder: Path, *, int8: bool = False, threads: int | None = None) -> None:
        demand("This command", "predict")
        self.folder = folder
        sums = check_files(folder)
        self.stated = read_manifest(folder)
        known = judge(self.stated, str(folder / MANIFEST), sums)
        self.classes, self.subclasses, self.parents = known.classes, known.subclasses, known.parents
        self.positive, self.threshold, self.shape = known.positive, known.threshold, known.shape
        self._size, self._white = known.shape[1] if known.resize else None, known.white
        model = folder / (MODEL_INT8 if int8 else MODEL)
        if model.name not in sums:
            raise UserError(str(folder), "no student of 8 bits", "a bundle made with --int8", "Leave out --int8.")
        self._session = make_session(model, threads or count_cores())
        _check_graph(self._session, known, str(model))

    def read(self, path: AnyPath) -> NDArray[np.uint8]:
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


def make_session(model: Path, threads: int) -> Any:
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
    try:
        return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime has errors of its own, without a common base but this
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        found = f"a model that onnxruntime cannot load ({reason})"
        raise UserError(str(model), found, "a whole ONNX model", REMEDY) from None


def _check_graph(session: Any, known: Statement, where: str) -> None:
    """Refuse a graph of other inputs and outputs than bundle.json states."""
    inputs = [(node.name, node.type, *node.shape[1:]) for node in session.get_inputs()]
    outputs = [(node.name, *node.shape[1:]) for node in session.get_outputs()]
    widths = (len(known.classes), len(known.subclasses))
    for found, expected in (
        (inputs, [(INPUT, "tensor(uint8)", *known.shape)]),
        (outputs, list(zip(known.outputs, widths, strict=False))),
    ):
        if found != expected:
            raise UserError(where, f"a graph of {found}", f"{expected}, as bundle.json states", REMEDY)

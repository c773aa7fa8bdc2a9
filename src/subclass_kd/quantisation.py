"""A student in whole numbers of 8 bits, its ranges taken from training images."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from subclass_kd.bundle import INPUT
from subclass_kd.data.rows import Images

MOST_CALIBRATION = 256  # images
_BATCH = 32


class _Images:
    """Batches of pixels as onnxruntime asks for them, one after the other."""

    def __init__(self, images: Images, rows: NDArray[np.int64]) -> None:
        batches = (rows[start : start + _BATCH] for start in range(0, len(rows), _BATCH))
        self._batches: Iterator[dict[str, NDArray[np.uint8]]] = ({INPUT: np.asarray(images[b])} for b in batches)

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        return next(self._batches, None)


def quantise(model: Path, path: Path, images: Images, rows: NDArray[np.int64]) -> None:
    """Write a model whose convolutions and matrix products are of 8 bits, weights by channel (static quantisation).

    Jacob et al. 2017, https://arxiv.org/abs/1712.05877; onnxruntime's QDQ form. Softmax and what follows stay in
    float32.

    Args:
        model: as :func:`subclass_kd.deployed.to_onnx` wrote it.
        path: the file to write.
        images: (N, C, H, W) uint8.
        rows: of training images; ranges of activations are the least and greatest seen on these.
    """
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = path.with_suffix(".prepared")
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises to do what is done here
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quant_pre_process(model, prepared, skip_symbolic_shape=True)
            reader: Any = _Images(images, rows)
            quantization.quantize_static(
                prepared,
                path,
                reader,
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv", "MatMul", "Gemm"],
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
    finally:
        root.setLevel(level)
        prepared.unlink(missing_ok=True)


def spread(rows: NDArray[np.int64], most: int) -> NDArray[np.int64]:
    """Take at most so many rows, evenly spaced.

    >>> spread(np.arange(10), 4)
    array([0, 3, 6, 9])
    """
    return rows if len(rows) <= most else rows[np.linspace(0, len(rows) - 1, most).round().astype(np.int64)]

"""Fashion-MNIST: the selection that ships with the package, or the official files in a folder.

Images and labels are Copyright 2017 Zalando SE, MIT licence (embedded/fashion_mnist.LICENSE.txt);
Xiao, Rasul, Vollgraf 2017, https://arxiv.org/abs/1708.07747.
"""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data.findings import Findings
from subclass_kd.data.paths import check_root
from subclass_kd.data.table import SampleTable, refuse_keys
from subclass_kd.errors import UserError

NAMES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
EMBEDDED = Path(__file__).parent / "embedded" / "fashion_mnist.npz"
FILES = {"train": "train", "test": "t10k"}


def read(study: Study, findings: Findings) -> SampleTable:
    """Read the official files from ``data.root``, or the embedded selection if there is none.

    Args:
        study: its root is a folder with ``train-images-idx3-ubyte``, ``train-labels-idx1-ubyte``,
            ``t10k-images-idx3-ubyte`` and ``t10k-labels-idx1-ubyte``, each plain or with ``.gz``.
        findings: not used; nothing in these files is wrong by halves.

    Raises:
        UserError: a file is missing, truncated, or no IDX file of the right kind; or the four do not fit together.

    >>> read(Study(), Findings()).images.shape
    (6500, 1, 28, 28)
    """
    root = check_root(study.data.root) if isinstance(study.data.root, str) else study.data.root
    refuse_keys(study, "table", "columns", "pattern", "votes")
    if root is None:
        with np.load(EMBEDDED) as stored:
            parts = {split: (stored[f"{split}_images"], stored[f"{split}_labels"]) for split in FILES}
    else:
        parts = {split: _read_split(root, prefix) for split, prefix in FILES.items()}
    shapes = {split: parts[split][0].shape[1:] for split in FILES}
    if shapes["test"] != shapes["train"]:
        raise UserError(str(root), f"test images of {shapes['test']} pixels", f"{shapes['train']}, as in training")
    labels = np.concatenate([parts["train"][1], parts["test"][1]]).tolist()
    splits = [split for split in FILES for _ in parts[split][1]]
    return SampleTable(
        where=str(root or "the embedded Fashion-MNIST"),
        names=[f"image {number}" for number in range(len(labels))],
        images=np.concatenate([parts["train"][0], parts["test"][0]])[:, None],
        subclasses=[NAMES[label] for label in labels],
        splits=splits,
    )


def _read_split(root: Path, prefix: str) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images = read_idx(_find(root, f"{prefix}-images-idx3-ubyte"), dimensions=3)
    path = _find(root, f"{prefix}-labels-idx1-ubyte")
    labels = read_idx(path, dimensions=1)
    if len(images) != len(labels):
        raise UserError(str(path), f"{len(labels)} labels", f"{len(images)}, one for each image")
    if not images.size:
        raise UserError(str(root), f"{prefix} images of shape {images.shape}", "images with pixels")
    if labels.max() >= len(NAMES):
        row = int(labels.argmax())
        raise UserError(f"{path}, item {row}", f"label {labels[row]}", f"0 to {len(NAMES) - 1}")
    return images, labels


def _find(root: Path, name: str) -> Path:
    for path in (root / name, root / f"{name}.gz"):
        if path.is_file():
            return path
    remedy = "The four IDX files of Fashion-MNIST must be in this folder; set data.root to it."
    raise UserError(str(root), f"no file {name} or {name}.gz", "Fashion-MNIST as its authors ship it", remedy)


def read_idx(path: Path, dimensions: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or (with a name in .gz) gzipped.

    The format: two zero bytes, 0x08 for unsigned bytes, the number of dimensions, each length as big-endian uint32,
    then the bytes (LeCun, Cortes, Burges: the MNIST database, http://yann.lecun.com/exdb/mnist/).

    Args:
        path: the file.
        dimensions: 3 for images (N, H, W), 1 for labels (N,).

    Returns:
        uint8 of that many dimensions, read-only.

    Raises:
        UserError: the file is no such file, or its length is not what its header says.
    """
    remedy = "Fetch the file again."
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise UserError(str(path), f"a file that cannot be read ({error})", "an IDX file", remedy) from None
    magic = bytes([0, 0, 8, dimensions])
    start = 4 + 4 * dimensions
    if content[:4] != magic:
        found, expected = f"first bytes {content[:4].hex() or 'missing'}", f"{magic.hex()} (IDX)"
        raise UserError(str(path), found, expected, remedy)
    if len(content) < start:
        raise UserError(str(path), f"{len(content)} bytes", f"a header of {start} and data", remedy)
    shape = tuple(int(length) for length in np.frombuffer(content[4:start], ">u4"))
    size = int(np.prod(shape, dtype=np.float64))
    if len(content) - start != size:
        raise UserError(str(path), f"{len(content) - start} bytes of data", f"{size} for shape {shape}", remedy)
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape)

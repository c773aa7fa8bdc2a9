"""Images that are decoded each time they are asked for, where a store would be too large."""

from __future__ import annotations

from copy import copy

import numpy as np
from numpy.typing import NDArray

from subclass_kd.cores import count_cores
from subclass_kd.data.images import read_image
from subclass_kd.data.index import Index, digest
from subclass_kd.data.members import Root, locate
from subclass_kd.errors import UserError


class OnDemand:
    """Image files that stand for an array (N, C, H, W) uint8; each image is held against its digest.

    Args:
        root: the folder that names start from.
        names: of the N files.
        index: made when the files were decoded first.
        size: height and width that images are resized to; None leaves them.
        white: the value of 16-bit grey that becomes 255.
        spans: (N, 2), where those lie that are in shards; None if all are files.
    """

    def __init__(
        self,
        root: Root,
        names: list[str],
        index: Index,
        size: int | None,
        white: int,
        spans: NDArray[np.int64] | None = None,
    ) -> None:
        self._spans = spans
        self._root, self._names, self._size, self._white = root, names, size, white
        self._digests = index.digests
        self.shape = (len(names), *index.shape)
        self.processes = count_cores()  # that may decode side by side; fewer where others share the cores

    def copy(self) -> OnDemand:
        """Give another of the same files."""
        return copy(self)

    def __len__(self) -> int:
        return len(self._names)

    def __getitem__(self, rows: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Decode the images of some rows (B,): (B, C, H, W).

        Raises:
            UserError: a file is gone, damaged, or shows something else than when the index was made.
        """
        images = np.empty((len(rows), *self.shape[1:]), dtype=np.uint8)
        for place, row in enumerate(rows.tolist()):
            path = locate(self._root, self._names[row], None if self._spans is None else self._spans[row])
            image = read_image(path, self.shape[1], self._size, self._white)
            if image.shape != self.shape[1:] or digest(image) != self._digests[row].tobytes():
                remedy = "Restore it and run again, or give another --out."
                raise UserError(str(path), "an image that changed while the run went on", "files that stay", remedy)
            images[place] = image
        return images


def decode_with(images: object, processes: int) -> None:
    """Say how many processes may decode these images side by side, at least one; nothing to say where none are.

    Args:
        images: of a study, decoded on demand or not.
        processes: this process's part of the machine's cores.
    """
    if isinstance(images, OnDemand):
        images.processes = max(1, processes)

"""Images on their way from where they are kept to the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from lightning_fabric import Fabric
from torch import Tensor

from subclass_kd.data.rows import Images


class Feed:
    """Some of a study's images, given in batches on the device that computes.

    Args:
        images: all of them, (N, C, H, W) uint8.
        rows: (n,) int64: which of them.
        fabric: the device.
    """

    def __init__(self, images: Images, rows: Tensor, fabric: Fabric) -> None:
        self.rows, self._fabric = rows, fabric
        self._images = torch.from_numpy(images)  # (N, C, H, W), mapped from disk perhaps: never copied as a whole

    def __len__(self) -> int:
        """Count the images, n."""
        return len(self.rows)

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Give the images (B, C, H, W) uint8 of each batch.

        Args:
            order: of each batch, (B,) int64 positions into ``rows``, on the CPU.
        """
        for batch in order:
            yield self._fabric.to_device(self._images.index_select(0, self.rows[batch]))

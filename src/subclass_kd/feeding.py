"""Images on their way from where they are kept to the device that computes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from subclass_kd.ahead import in_order
from subclass_kd.data.on_demand import OnDemand
from subclass_kd.data.rows import Images
from subclass_kd.decoders import decoded

if TYPE_CHECKING:
    from lightning_fabric import Fabric

SHARE = 0.25  # of a GPU's free memory that images may take
AHEAD = 4  # batches that wait on a GPU, fewer if they are large
CHUNK = 64_000_000  # bytes of images that go to a GPU at a time


class Feed:
    """Some of a study's images, given in batches on the device that computes.

    On a CPU each batch is gathered from the images, in memory or mapped from disk, which are never copied as a whole.
    On a GPU the images are copied there once if they fit in a quarter of its free memory; else a thread gathers the
    next batches into pinned memory and copies them while the GPU computes. Files are decoded by processes, which
    are kept for the next epoch and the next feed of the same images.

    Args:
        images: all of them, (N, C, H, W) uint8.
        rows: (n,) int64: which of them.
        fabric: the device.
    """

    def __init__(self, images: Images, rows: Tensor, fabric: Fabric) -> None:
        self.rows, self._images, self._fabric = rows, images, fabric
        self._resident: Tensor | None = None  # (n, C, H, W), on a GPU

    def __len__(self) -> int:
        """Count the images, n."""
        return len(self.rows)

    def part(self, positions: Tensor) -> Feed:
        """Give a feed of some of these images, at positions (m,) int64."""
        return Feed(self._images, self.rows[positions], self._fabric)

    def blank(self) -> Tensor:
        """Give an image (1, C, H, W) uint8 of zeros on the device."""
        return self._fabric.to_device(torch.zeros(1, *self._images.shape[1:], dtype=torch.uint8))

    def batches(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Give the images (B, C, H, W) uint8 of each batch.

        Args:
            order: of each batch, (B,) int64 positions into ``rows``, on the CPU.

        Raises:
            UserError: an image file is gone or has changed.
        """
        if self._fabric.device.type != "cuda":
            for images in self._gathered(order):
                yield self._fabric.to_device(images)
            return
        if self._resident is None and self._fits():
            self._resident = self._copied()
        if self._resident is None:
            yield from self._copied_ahead(order)
            return
        positions = self._fabric.to_device(torch.cat(list(order)))  # at once: no step waits for its own
        for batch in torch.split(positions, [len(batch) for batch in order]):
            yield self._resident.index_select(0, batch)

    def _gathered(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Give the images (B, C, H, W) of each batch on the CPU."""
        numbers = [self.rows[batch].numpy() for batch in order]
        if isinstance(self._images, OnDemand):
            yield from map(torch.from_numpy, decoded(self._images, numbers))
            return
        for rows in numbers:
            # Several times faster than torch's index_select, which copies bytes one by one.
            yield torch.from_numpy(np.take(self._images, rows, axis=0))

    def _fits(self) -> bool:
        device = self._fabric.device
        free, _ = torch.cuda.mem_get_info(device)
        free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # ours, and not in use
        return len(self) * int(np.prod(self._images.shape[1:])) <= SHARE * free

    def _copied(self) -> Tensor:
        """Give all images of this feed on the GPU, (n, C, H, W)."""
        shape = (len(self), *self._images.shape[1:])
        images = torch.empty(shape, dtype=torch.uint8, device=self._fabric.device)
        order = torch.split(torch.arange(len(self)), max(1, CHUNK // int(np.prod(shape[1:]))))
        for positions, chunk in zip(order, self._gathered(order), strict=True):
            images[positions[0] : positions[-1] + 1].copy_(chunk)
        return images

    def _copied_ahead(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """Copy batches to the GPU in a thread and a stream of their own, a few ahead."""
        device, gathered = self._fabric.device, self._gathered(order)
        stream = _copying_stream(device)
        largest = max(map(len, order), default=0) * int(np.prod(self._images.shape[1:]))  # bytes of a batch
        ahead = max(1, min(AHEAD, CHUNK // max(1, largest)))

        def copy(_: int) -> tuple[Tensor, torch.cuda.Event]:
            pinned = next(gathered).pin_memory()
            with torch.cuda.stream(stream):
                images = pinned.to(device, non_blocking=True)
                copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
                copied.record(stream)
            return images, copied

        with ThreadPoolExecutor(1) as thread:
            for images, copied in in_order(thread, copy, len(order), ahead):
                computing = torch.cuda.current_stream(device)
                computing.wait_event(copied)
                images.record_stream(computing)  # their memory is not given away before the step has read them
                yield images


@cache
def _copying_stream(device: torch.device) -> torch.cuda.Stream:
    """Give the one stream that copies: memory is kept by stream, and a new one each time would keep more and more."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

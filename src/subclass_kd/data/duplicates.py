"""Images that are there twice: exactly, or nearly, as after saving, resizing or cropping one anew."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

SIDE = 32  # height and width of the thumbnail that a signature is taken from
HIGHEST = 16  # frequencies up to this radius: finer ones do not survive a crop of a few pixels
NUMBERS = 215  # so many frequencies; the mean is not among them
# What follows was chosen by measurement: docs/check.md.
ALIKE = 0.85  # correlation of two whitened signatures from which on they count as one image
SHRINKAGE = 3  # pseudo-images without correlations for each number of a signature, for data sets of few images
NOISE = 0.03  # of the mean variance: what varies less in the images is likely to be rounding and noise
ORDERS = 12  # how often the images are sorted, each time by other bits
WINDOW = 8  # how many of its followers in such an order an image is compared with


def exact(digests: Sequence[Hashable | None]) -> list[list[int]]:
    """Group rows of equal digests.

    Args:
        digests: of N images; None for one that could not be read.

    Returns:
        Groups of at least two ascending row numbers, by their first row.

    >>> exact([b"a", b"b", b"a", None, None])
    [[0, 2]]
    """
    rows: dict[Hashable, list[int]] = {}
    for row, digest in enumerate(digests):
        if digest is not None:
            rows.setdefault(digest, []).append(row)
    return [group for group in rows.values() if len(group) > 1]


def signature(grey: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Describe what an image shows by its coarse structure: a perceptual hash before it is cut to bits.

    These are the low frequencies (discrete cosine transform) of a thumbnail of mean 0 and length 1, so that
    brightness and contrast do not count. Which of them tell images apart depends on the data: :func:`near` decides.

    Args:
        grey: (H, W).

    Returns:
        (215,) float32, the lowest frequencies first; zeros for an image of one grey.

    >>> bool(signature(np.full((64, 48), 7, np.uint8)).any())
    False
    """
    from PIL import Image  # here, since not every study has files to decode

    thumbnail = np.asarray(Image.fromarray(grey).resize((SIDE, SIDE), Image.Resampling.BILINEAR), np.float32)
    thumbnail = thumbnail - thumbnail.mean()
    cosines, rows, columns = _transform()
    numbers = (cosines @ thumbnail @ cosines.T)[rows, columns] / max(float(np.linalg.norm(thumbnail)), 1e-6)
    return np.asarray(numbers, dtype=np.float32)


@cache
def _transform() -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
    """Give the cosines (17, 32) and the row and column of each frequency that is kept, (215,) each."""
    frequency, place = np.arange(HIGHEST + 1), np.arange(SIDE)
    cosines = np.sqrt(2 / SIDE) * np.cos(np.pi / SIDE * np.outer(frequency, place + 0.5))
    cosines[0] /= np.sqrt(2)
    radius = frequency[:, None] ** 2 + frequency**2  # (17, 17)
    order = np.argsort(radius, axis=None, kind="stable")
    rows, columns = np.unravel_index(order[1 : NUMBERS + 1], radius.shape)
    return cosines.astype(np.float32), rows, columns


def near(signatures: NDArray[np.float32]) -> NDArray[np.int64]:
    """Find pairs of images that are nearly one and the same, as against how much the images of the set differ.

    X-rays of two patients are more alike than two holiday pictures. So signatures are whitened first: what all images
    share counts for nothing, and what varies much for little. Two images count as one if their whitened signatures
    correlate.

    Not all pairs are looked at. Images are sorted several times, each time by other bits, which say whether a
    frequency is above its median over the images; each image is compared with those that follow it most closely.
    Time and memory grow with N, whatever the images: where many are alike, not all their pairs are found.

    Args:
        signatures: (N, D), as of :func:`signature`; rows of zeros are left out.

    Returns:
        (P, 2) row numbers, the smaller first, sorted.

    >>> random = np.random.default_rng(0)
    >>> signatures = random.standard_normal((50, 215)).astype(np.float32)
    >>> signatures[7] = signatures[3] + 0.1 * random.standard_normal(215)
    >>> near(signatures).tolist()
    [[3, 7]]
    """
    rows = np.flatnonzero(signatures.any(axis=1))
    found = [np.empty((0, 2), dtype=np.int64)]
    if len(rows) > 1:
        values = signatures[rows]
        bits = values > np.median(values, axis=0)  # (n, D)
        values = _whitened(values)
        for start in range(ORDERS):
            order = np.lexsort(np.packbits(bits[:, start::ORDERS], axis=1).T[::-1])
            found += [rows[order[pairs]] for pairs in _alike(values[order])]
    return np.unique(np.sort(np.concatenate(found), axis=1), axis=0)


def _whitened(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Give (n, D) values zero mean, no correlations and equal variances, and each row length 1.

    The covariance is shrunk towards its diagonal, since few images tell little about it, and noise is added to it.
    """
    images, numbers = values.shape
    values = values - values.mean(axis=0)
    covariance = (values.T @ values / images).astype(np.float64)
    variances = covariance.diagonal()
    trust = images / (images + SHRINKAGE * numbers)
    covariance = trust * covariance + (1 - trust) * np.diag(variances)
    scales, axes = np.linalg.eigh(covariance + NOISE * variances.mean() * np.eye(numbers))
    values = values @ (axes / np.sqrt(scales + np.finfo(np.float32).tiny)).astype(np.float32)
    return np.asarray(values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-6), dtype=np.float32)


def _alike(values: NDArray[np.float32]) -> list[NDArray[np.int64]]:
    """Compare each of (n, D) rows with the next few, and give (P, 2) pairs of places for each distance."""
    found = []
    for step in range(1, min(WINDOW, len(values) - 1) + 1):
        correlation = np.einsum("nd,nd->n", values[:-step], values[step:])
        places = np.flatnonzero(correlation >= ALIKE)
        found.append(np.stack([places, places + step], axis=1))
    return found

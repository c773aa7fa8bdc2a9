"""The samples of a study: pixels, subclass labels, splits and the hierarchy, checked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data import fashion_mnist
from subclass_kd.data.source import Source
from subclass_kd.errors import UserError, nearest
from subclass_kd.files import fingerprint
from subclass_kd.hierarchy import SubclassHierarchy

SplitName = Literal["train", "validation", "test"]

# Which classes are hard to tell apart, and so worth a study, was chosen on training images: docs/demo.md.
FASHION_HIERARCHY = {
    "upper": ["T-shirt/top", "Pullover", "Coat", "Shirt", "Bag"],
    "lower": ["Trouser", "Dress", "Sandal", "Sneaker", "Ankle boot"],
}

READERS = {"fashion-mnist": (fashion_mnist.read, FASHION_HIERARCHY)}


@dataclass(frozen=True, eq=False)
class Samples:
    """Images with subclass labels, split once for the whole study; held in memory, not to be changed.

    Args:
        images: (N, C, H, W) uint8.
        subclass_labels: (N,) int64 into ``hierarchy.subclasses``.
        train, validation, test: sorted row numbers, (n,) int64 each; no row is in two.
        hierarchy: subclasses and their classes.
        positive: number of the class that F1 speaks of.
        fingerprint: changes when any pixel, label, split or name does.
    """

    images: NDArray[np.uint8]
    subclass_labels: NDArray[np.int64]
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    test: NDArray[np.int64]
    hierarchy: SubclassHierarchy
    positive: int
    fingerprint: str

    @property
    def class_labels(self) -> NDArray[np.int64]:
        """(N,) int64 into ``hierarchy.classes``."""
        return np.asarray(self.hierarchy.parent_indices, dtype=np.int64)[self.subclass_labels]

    @cached_property
    def mean_and_std(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and spread (C,) of the training images' pixels in [0, 1]; the spread is at least 1e-3."""
        channels = (self.images[self.train, channel] for channel in range(self.images.shape[1]))
        counts = np.stack([np.bincount(channel.ravel(), minlength=256) for channel in channels])  # (C, 256)
        share, grey = counts / counts.sum(1, keepdims=True), np.arange(256) / 255
        mean = share @ grey
        std = np.sqrt(np.maximum(share @ grey**2 - mean**2, 1e-6))
        return mean.astype(np.float32), std.astype(np.float32)

    def describe(self) -> dict[str, Any]:
        """Give results.json's "data": names, counts by split, fingerprint."""
        hierarchy = self.hierarchy
        counts = {
            split: np.bincount(self.subclass_labels[getattr(self, split)], minlength=hierarchy.num_subclasses)
            for split in ("train", "validation", "test")
        }
        subclasses = [
            {"name": name, "class": hierarchy.classes[parent], **{split: int(counts[split][k]) for split in counts}}
            for k, (name, parent) in enumerate(zip(hierarchy.subclasses, hierarchy.parent_indices, strict=True))
        ]
        return {
            "classes": list(hierarchy.classes),
            "positive": hierarchy.classes[self.positive],
            "subclasses": subclasses,
            "image_shape": list(self.images.shape[1:]),
            "fingerprint": self.fingerprint,
        }


def load_samples(study: Study) -> Samples:
    """Read a study's data, name its subclasses, and split it.

    The owner's test images stay the test split. The validation split is drawn from the others, stratified by subclass,
    by a generator of fixed seed: every arm and every seed of every run of a study sees the same split.

    Raises:
        UserError: data are missing or damaged, do not fit the hierarchy, or are too few.

    >>> samples = load_samples(Study())
    >>> samples.images.shape, len(samples.train), len(samples.validation), len(samples.test)
    ((6500, 1, 28, 28), 2400, 600, 3500)
    """
    # Reading twice the same data in one process (a worker's many jobs) costs once.
    return _load(study.model_dump_json(include={"data", "hierarchy", "positive"}), _stamps(study.data.root))


def _stamps(root: Path | None) -> tuple[tuple[str, int, int], ...]:
    """Give names, sizes and times of a folder's files: what changes when a file does."""
    if root is None or not root.is_dir():
        return ()
    stats = [(path.name, path.stat()) for path in sorted(root.iterdir()) if path.is_file()]
    return tuple((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats)


@lru_cache(maxsize=1)
def _load(content: str, stamps: tuple[tuple[str, int, int], ...]) -> Samples:
    study = Study.model_validate_json(content)
    reader, default_hierarchy = READERS[study.data.kind]
    source = reader(study.data.root)
    hierarchy = _resolve_hierarchy(default_hierarchy if study.hierarchy is None else study.hierarchy, source)
    positive = _resolve_positive(study.positive, hierarchy)
    order = np.array([hierarchy.subclasses.index(name) for name in source.names])
    labels = order[source.labels].astype(np.int64)

    given = np.flatnonzero(~source.is_test)
    test = np.flatnonzero(source.is_test)
    random = np.random.Generator(np.random.Philox(0))
    # By the owner's labels, not the hierarchy's: regrouping or reordering the subclasses must not move an image.
    given, _ = _draw(given, source.labels, study.data.train_images or len(given), random)
    validation, train = _draw(given, source.labels, round(len(given) * study.data.validation), random)
    _check_enough(labels, {"training": train, "validation": validation, "test": test}, hierarchy, source.where)

    images = _fit(source.images, study.data.size, study.data.channels)
    mark = fingerprint(
        list(images.shape), images.tobytes(), labels.tobytes(), hierarchy.to_dict(), positive,
        train.tobytes(), validation.tobytes(), test.tobytes(),
    )  # fmt: skip
    return Samples(images, labels, train, validation, test, hierarchy, positive, mark)


def _resolve_hierarchy(given: dict[str, list[str]], source: Source) -> SubclassHierarchy:
    """Check class by class, where a dictionary of subclasses would silently lose a repeated one."""
    if len(given) < 2:
        raise UserError('key "hierarchy"', f"the classes {list(given)}", "at least two, each with its subclasses")
    parents: dict[str, str] = {}
    for name, members in given.items():
        where = f'key "hierarchy.{name}"'
        if not members:
            raise UserError(where, "no subclass", "at least one", "Give it one, or remove the class.")
        for member in members:
            if member in parents:
                raise UserError(where, f'"{member}", which "{parents[member]}" has too', "each subclass in one class")
            if member not in source.names:
                expected = f"subclasses of {source.where}: {', '.join(source.names)}"
                raise UserError(where, f'"{member}"', expected, nearest(member, source.names))
            parents[member] = name
    left_out = [name for name in source.names if name not in parents]
    if left_out:
        found_text = f"{len(parents)} subclasses, without {', '.join(left_out)}"
        expected = f"all {len(source.names)} subclasses of {source.where}"
        raise UserError('key "hierarchy"', found_text, expected, "Add each missing one to a class.")
    return SubclassHierarchy(tuple(given), parents)


def _resolve_positive(given: str | None, hierarchy: SubclassHierarchy) -> int:
    if given is None:
        return hierarchy.num_classes - 1
    if given not in hierarchy.classes:
        remedy = nearest(given, hierarchy.classes)
        raise UserError('key "positive"', f'"{given}"', f"one of {', '.join(hierarchy.classes)}", remedy)
    return hierarchy.classes.index(given)


def _draw(
    rows: NDArray[np.int64], labels: NDArray[np.int64], count: int, random: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Draw ``count`` rows, each subclass in proportion (largest remainders), and give (drawn, left), both sorted."""
    if count > len(rows):
        where, expected = 'key "data.train_images"', f"at most {len(rows)}, as many as there are"
        raise UserError(where, str(count), expected)
    members = [random.permutation(rows[labels[rows] == label]) for label in np.unique(labels[rows])]
    take, remainder = np.divmod(np.array([len(group) for group in members]) * count, len(rows))  # exact: integers
    take[np.argsort(-remainder, kind="stable")[: count - take.sum()]] += 1
    drawn = np.sort(np.concatenate([group[:n] for group, n in zip(members, take, strict=True)]))
    return drawn, np.setdiff1d(rows, drawn)


def _check_enough(
    labels: NDArray[np.int64], splits: dict[str, NDArray[np.int64]], hierarchy: SubclassHierarchy, where: str
) -> None:
    """Demand every class in every split, and two training images of every subclass."""
    parents = np.asarray(hierarchy.parent_indices)
    for split, rows in splits.items():
        counts = np.bincount(labels[rows], minlength=hierarchy.num_subclasses)
        by_class = np.bincount(parents, counts, minlength=hierarchy.num_classes)
        if not by_class.all():
            missing = hierarchy.classes[int(by_class.argmin())]
            remedy = "A study needs every class in training, validation and test; give more images."
            raise UserError(where, f'no {split} image of class "{missing}"', "images of every class", remedy)
        if split == "training" and counts.min() < 2:
            name = hierarchy.subclasses[int(counts.argmin())]
            remedy = "Give more images, or merge this subclass with another."
            raise UserError(where, f'{counts.min()} training image(s) of subclass "{name}"', "at least 2", remedy)


def _fit(images: NDArray[np.uint8], size: int | None, channels: int) -> NDArray[np.uint8]:
    """Bring (N, 1, H, W) to the study's size (Pillow's antialiased bilinear) and number of channels."""
    if size is not None and images.shape[-2:] != (size, size):
        from PIL import Image  # only studies that resize need it

        resized = [Image.fromarray(image[0]).resize((size, size), Image.Resampling.BILINEAR) for image in images]
        images = np.stack([np.asarray(image) for image in resized])[:, None]
    return np.repeat(images, channels, axis=1) if channels != images.shape[1] else images

"""How many altered copies of an image are found as near duplicates, and how many pairs are found that are none.

    python -m benchmarks.near_duplicates ROOT [--json FILE]

ROOT holds the chest X-rays of Kermany et al. (docs/check.md), whose names tell the patient: images of two patients are
never copies, however alike. Exact duplicates are left out. Each image is altered in each way, and the search runs over
originals and copies together; then over 100,000 images, most of them random parts of the originals, which are as alike
as the originals are.

For comparison: a 64-bit difference hash that is to find 99 % of the copies by its bits alone.
"""

import argparse
import io
import json
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.machine import describe_machine
from subclass_kd.data.duplicates import near, signature

CROWD = 100_000
PATIENT = re.compile(r"person\d+_(?:bacteria|virus)|(?:NORMAL2-)?IM-\d+")
BILINEAR = Image.Resampling.BILINEAR
Grey = NDArray[np.uint8]


def jpeg(image: Image.Image) -> Image.Image:
    content = io.BytesIO()
    image.save(content, "JPEG", quality=50)
    return Image.open(content)


def crop(image: Image.Image, left: float, top: float, right: float, bottom: float) -> Image.Image:
    """Cut shares of width and height away, and bring what is left to the old size."""
    width, height = image.size
    box = (left * width, top * height, (1 - right) * width, (1 - bottom) * height)
    return image.resize(image.size, BILINEAR, box)


def shift(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.pad(np.asarray(image), ((1, 0), (1, 0)), mode="edge")[:-1, :-1])


def noise(image: Image.Image) -> Image.Image:
    grey = np.asarray(image)
    noisy = grey + np.random.default_rng(int(grey.sum())).normal(0, 3, grey.shape)
    return Image.fromarray(noisy.round().clip(0, 255).astype(np.uint8))


ALTERATIONS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "saved as JPEG of quality 50": jpeg,
    "resized to 180 px and back": lambda image: image.resize((180, 180), BILINEAR).resize(image.size, BILINEAR),
    "brightness x1.1": lambda image: image.point(lambda grey: min(255, round(1.1 * grey))),
    "contrast x1.15": lambda image: image.point(lambda grey: min(255, max(0, round(1.15 * (grey - 128) + 128)))),
    "noise of standard deviation 3": noise,
    "moved by one pixel": shift,
    "2 % cropped, half from each side": lambda image: crop(image, 0.01, 0.01, 0.01, 0.01),
    "2 % cropped, from right and bottom": lambda image: crop(image, 0, 0, 0.02, 0.02),
    "4 % cropped, half from each side": lambda image: crop(image, 0.02, 0.02, 0.02, 0.02),
    "8 % cropped, half from each side": lambda image: crop(image, 0.04, 0.04, 0.04, 0.04),
    "mirrored": lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
}


def crowd(images: list[Image.Image], count: int) -> NDArray[np.float32]:
    """Signatures of random parts, 70 to 92 % of each side and every second mirrored, of random images."""
    random = np.random.default_rng(0)
    signatures = []
    for number in range(count):
        image = images[random.integers(len(images))]
        share = random.uniform(0.70, 0.92)
        left, top = random.uniform(0, 1 - share, 2)
        part = crop(image, left, top, 1 - left - share, 1 - top - share)
        if number % 2:
            part = part.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        signatures.append(signature(np.asarray(part)))
    return np.stack(signatures)


def difference_hash(image: Image.Image) -> NDArray[np.float32]:
    """Give the 64 signs, -1 or 1, of the differences between neighbours in 8 rows of 9 greys."""
    greys = np.asarray(image.resize((9, 8), BILINEAR), dtype=np.int64)
    return np.where(np.diff(greys, axis=1) > 0, 1, -1).ravel().astype(np.float32)


def measure(root: Path) -> dict[str, Any]:
    paths = sorted(root.glob("*/*/*.jpeg"))
    distinct = {image.tobytes(): (path, image) for path in paths for image in [Image.open(path).convert("L")]}
    images = [image for _, image in distinct.values()]
    patients = np.unique([PATIENT.findall(path.name)[0] for path, _ in distinct.values()], return_inverse=True)[1]
    count = len(images)
    originals = np.stack([signature(np.asarray(image)) for image in images])
    others = crowd(images, CROWD - 2 * count)
    hashes = np.stack([difference_hash(image) for image in images])
    distances = np.bincount(_distances(hashes, patients), minlength=65).cumsum()  # pairs of two patients up to each
    started = time.perf_counter()
    alone = _pairs_of_two_patients(near(originals), patients)
    result: dict[str, Any] = {"images": count, "seconds": time.perf_counter() - started, "false_pairs": alone}
    result["alterations"] = {}
    for name, alter in ALTERATIONS.items():
        altered = [alter(image) for image in images]
        signatures = np.stack([signature(np.asarray(image)) for image in altered])
        pairs = near(np.concatenate([originals, signatures]))
        started = time.perf_counter()
        in_crowd = near(np.concatenate([originals, signatures, others]))
        seconds = time.perf_counter() - started
        bits = np.stack([difference_hash(image) for image in altered])
        least = int(np.quantile((64 - (bits * hashes).sum(axis=1)) / 2, 0.99, method="higher"))
        result["alterations"][name] = {
            "found": _copies(pairs, count) / count,
            "false_pairs": _pairs_of_two_patients(pairs, np.concatenate([patients, patients])),
            "found_among_100000": _copies(in_crowd, count) / count,
            "seconds_for_100000": seconds,
            "hash_distance": least,
            "hash_false_pairs": int(distances[least]),
        }
        print(table_row(name, result["alterations"][name]), flush=True)
    return result


def _copies(pairs: NDArray[np.int64], count: int) -> int:
    """Count the originals that are found with their own copy."""
    return int(((pairs[:, 0] < count) & (pairs[:, 1] == pairs[:, 0] + count)).sum())


def _pairs_of_two_patients(pairs: NDArray[np.int64], patients: NDArray[np.int64]) -> int:
    return int((patients[pairs[:, 0]] != patients[pairs[:, 1]]).sum())


def _distances(hashes: NDArray[np.float32], patients: NDArray[np.int64]) -> NDArray[np.int64]:
    """Bits that differ in each pair of images of two patients."""
    found = []
    for row in range(len(hashes) - 1):
        differ = (64 - hashes[row + 1 :] @ hashes[row]) / 2
        found.append(differ[patients[row + 1 :] != patients[row]].astype(np.int64))
    return np.concatenate(found)


def table_row(name: str, row: dict[str, Any]) -> str:
    """Give a row of the table in docs/check.md."""
    shares = f"{100 * row['found']:.1f} | {row['false_pairs']} | {100 * row['found_among_100000']:.1f}"
    return f"| {name} | {shares} | {row['hash_distance']} | {row['hash_false_pairs']:,} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    print(f"{describe_machine()}\n")
    print("| copy | found, % | false pairs | found among 100,000, % | bits of a hash for 99 % | its false pairs |")
    print("|---|---|---|---|---|---|")
    result = measure(options.root)
    seconds = [row["seconds_for_100000"] for row in result["alterations"].values()]
    print(f"\nPairs of two patients among the {result['images']:,} originals: {result['false_pairs']}.")
    print(f"Search: {result['seconds']:.2f} s among them, {max(seconds):.1f} s at most among 100,000.")
    if options.json:
        options.json.write_text(json.dumps({"machine": describe_machine()} | result, indent=1) + "\n")


if __name__ == "__main__":
    main()

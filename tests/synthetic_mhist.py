"""A SYNTHETIC folder of MHIST's form: drawn textures and simulated annotators, no histopathology at all.

MHIST itself comes from its owners only. What is drawn here has its folder, its columns and its counts of votes, so that
everything but the pictures can be tested. Of each image a hidden score from 0 (HP) to 1 (SSA) sets how finely a stained
edge is serrated; seven annotators see the score through noise of their own, each with a threshold of their own, and
vote. Images are drawn until each vote count has as many as MHIST has (Wei et al. 2021, arXiv:2101.12355), so that the
counts are exact and the votes those of the simulated annotators.

    python tests/synthetic_mhist.py FOLDER
"""

import csv
import sys
from pathlib import Path

import numpy as np
from PIL import Image

# Images with 0 to 7 votes for SSA.
COUNTS = {"train": (537, 497, 302, 209, 151, 106, 154, 219), "test": (186, 208, 124, 99, 65, 62, 96, 137)}
COLUMNS = ("Image Name", "Majority Vote Label", "Number of Annotators who Selected SSA (Out of 7)", "Partition")
ANNOTATORS = 7
NOISE = 0.15  # spread of an annotator's view of the score
COLOURS = np.array([[236, 224, 236], [212, 150, 190], [96, 58, 140]], dtype=np.float32)  # glass, tissue, nuclei


def scaled_counts(scale):
    """Give split -> number of images with 0 to 7 votes, (8,): MHIST's times ``scale``, at least 2."""
    return {split: np.maximum(np.rint(np.array(counts) * scale), 2).astype(int) for split, counts in COUNTS.items()}


def write_synthetic_mhist(folder, scale=1.0, size=224, seed=0):
    """Draw a synthetic folder of MHIST's form: ``images/`` and ``annotations.csv``.

    Args:
        folder: is made if it is not there.
        scale: share of MHIST's 3,152 images; each vote count of each split has at least 2.
        size: height and width in pixels.
        seed: another seed, other images.

    Returns:
        The folder, as a Path.
    """
    folder, random = Path(folder), np.random.default_rng(seed)
    (folder / "images").mkdir(parents=True, exist_ok=True)
    images = [
        (score, votes, split)
        for split, wanted in scaled_counts(scale).items()
        for score, votes in _voted_scores(wanted, random)
    ]
    with (folder / "annotations.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for number, place in enumerate(random.permutation(len(images))):
            score, votes, split = images[place]
            name = f"synthetic_{number:04d}.png"
            draw(score, size, random).save(folder / "images" / name, compress_level=1)
            writer.writerow([name, "SSA" if votes > ANNOTATORS / 2 else "HP", votes, split])
    return folder


def _voted_scores(wanted, random):
    """Let the annotators vote on random scores until each vote count has as many images as wanted."""
    thresholds = np.arange(1, ANNOTATORS + 1) / (ANNOTATORS + 1)
    found = [[] for _ in wanted]
    while any(len(scores) < count for scores, count in zip(found, wanted, strict=True)):
        for score in random.random(4096):
            votes = int((score + random.normal(0, NOISE, ANNOTATORS) > thresholds).sum())
            if len(found[votes]) < wanted[votes]:
                found[votes].append(float(score))
    return [(score, votes) for votes, scores in enumerate(found) for score in scores]


def draw(score, size, random):
    """Draw a crypt's edge as an RGB image: the higher the score, the more and the deeper its teeth.

    Args:
        score: 0 to 1.
        size: height and width in pixels.
        random: NumPy generator: place, tilt, nuclei and grain.
    """
    down, across = np.mgrid[:size, :size].astype(np.float32) / size
    tilt, phase = random.uniform(-0.3, 0.3), random.uniform(0, 2 * np.pi, 2)
    teeth = (0.02 + 0.07 * score) * np.sin(2 * np.pi * (3 + 9 * score) * across + phase[0])
    bend = 0.08 * np.sin(2 * np.pi * across + phase[1])
    depth = down - 0.5 - tilt * (across - 0.5) - bend - teeth  # below 0: glass
    kind = np.where(depth < 0, 0, np.where(depth < 0.06, 2, 1))
    radius = max(1, size // 80)
    for y, x in random.integers(0, size, (40, 2)):  # nuclei, as many whatever the score
        around = slice(max(y - radius, 0), y + radius + 1), slice(max(x - radius, 0), x + radius + 1)
        kind[around][depth[around] > 0] = 2
    grain = random.standard_normal((size, size, 1), dtype=np.float32) * 8
    return Image.fromarray(np.clip(COLOURS[kind] + grain, 0, 255).astype(np.uint8))


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit("python tests/synthetic_mhist.py FOLDER")
    print(f"synthetic images, drawn: {write_synthetic_mhist(sys.argv[1])}")

"""Make the selection of Fashion-MNIST that ships with the package, from the four official files.

    python scripts/embed_fashion_mnist.py FOLDER

It holds the first images of each class in the files' own order, so that anyone makes the same file: 300 of the training
file and 350 of the test file. More test than training images, since it is the test images that a verdict is short of.
"""

import sys
from pathlib import Path

import numpy as np

from subclass_kd.data.fashion_mnist import EMBEDDED, read

TRAIN_A_CLASS, TEST_A_CLASS = 300, 350


def main(folder: Path) -> None:
    source = read(folder)
    parts = {}
    for split, count, is_test in (("train", TRAIN_A_CLASS, False), ("test", TEST_A_CLASS, True)):
        rows = [np.flatnonzero((source.labels == k) & (source.is_test == is_test))[:count] for k in range(10)]
        chosen = np.sort(np.concatenate(rows))
        parts[f"{split}_images"] = source.images[chosen, 0]
        parts[f"{split}_labels"] = source.labels[chosen].astype(np.uint8)
    np.savez_compressed(EMBEDDED, **parts)
    print(f"{EMBEDDED}: {EMBEDDED.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

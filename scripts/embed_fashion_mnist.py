"""Make the selection of Fashion-MNIST that ships with the package, from the four official files.

    python scripts/embed_fashion_mnist.py FOLDER

It holds the first images of each class in the files' own order, so that anyone makes the same file: 300 of the training
file and 350 of the test file. More test than training images, since it is the test images that a verdict is short of.
"""

import sys
from pathlib import Path

import numpy as np

from subclass_kd.data.fashion_mnist import EMBEDDED, NAMES, read
from subclass_kd.data.findings import Findings
from subclass_kd.study_file import make_study

TRAIN_A_CLASS, TEST_A_CLASS = 300, 350


def main(folder: Path) -> None:
    table = read(make_study({"data": {"root": str(folder)}}), Findings())
    labels, is_test = np.array([NAMES.index(name) for name in table.subclasses]), np.array(table.splits) == "test"
    parts = {}
    for split, count, held_out in (("train", TRAIN_A_CLASS, False), ("test", TEST_A_CLASS, True)):
        rows = [np.flatnonzero((labels == k) & (is_test == held_out))[:count] for k in range(10)]
        chosen = np.sort(np.concatenate(rows))
        parts[f"{split}_images"] = table.images[chosen, 0]
        parts[f"{split}_labels"] = labels[chosen].astype(np.uint8)
    np.savez_compressed(EMBEDDED, **parts)
    print(f"{EMBEDDED}: {EMBEDDED.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

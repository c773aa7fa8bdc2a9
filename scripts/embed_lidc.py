"""Make the file of radiologists' votes that ships with the package, from a larger file of LIDC-IDRI's annotations.

    python scripts/embed_lidc.py lidc_nodule_votes.npz

Of the larger file's arrays it keeps the three that are read, unchanged: mask48 (outlines), malignancy and patient.
"""

import sys
from pathlib import Path

import numpy as np

from subclass_kd.data.lidc import EMBEDDED


def main(source: Path, target: Path = EMBEDDED) -> None:
    with np.load(source) as stored:
        images, malignancy, patient = stored["mask48"][:, None], stored["malignancy"], stored["patient"]
    np.savez_compressed(target, images=images, malignancy=malignancy, patient=patient)
    print(f"{target}: {target.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Radiologists' votes on lung nodules: outlines and ratings of LIDC-IDRI, embedded.

What a model sees are outlines, not CT: each pixel is the share of readers who drew it as nodule. What it learns is the
readers' opinion on malignancy, not a biopsy. Good for studying votes; of no use in the clinic.

Armato et al. 2015, Data from LIDC-IDRI, The Cancer Imaging Archive, https://doi.org/10.7937/K9/TCIA.2015.LO9QL9SX,
CC BY 3.0 (embedded/lidc_nodule_votes.LICENSE.txt).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from subclass_kd.config import Study
from subclass_kd.data.findings import Findings
from subclass_kd.data.table import SampleTable, Votes, refuse_keys

CLASSES = ("benign", "malignant")
EMBEDDED = Path(__file__).parent / "embedded" / "lidc_nodule_votes.npz"
FEWEST_READERS = 3  # two readers give no majority
HIGHEST_BENIGN = 3  # of ratings 1 to 5: 3 is "indeterminate", 4 "moderately suspicious"


def read(study: Study, findings: Findings) -> SampleTable:
    """Read the nodules that at least three radiologists rated, with their votes and patients.

    A reader who rated malignancy above 3 of 5 votes "malignant". Images are (N, 1, 48, 48) uint8 at 1 mm a pixel:
    255 times the share of readers who outlined a pixel. One patient has up to 12 of them: split by group.

    Args:
        study: sets neither where data are nor how votes are counted; both are fixed here.
        findings: gets nothing: the data are known to be good.

    Raises:
        UserError: the study sets a key that these data have no use for.
    """
    refuse_keys(study, "root", "table", "columns", "pattern", "counting")
    with np.load(EMBEDDED) as stored:
        images, malignancy, patient = stored["images"], stored["malignancy"], stored["patient"]
    readers = (malignancy > 0).sum(1)  # 0 is a slot without a reader
    rows = np.flatnonzero(readers >= FEWEST_READERS)
    votes = Votes((malignancy[rows] > HIGHEST_BENIGN).sum(1), readers[rows])
    return SampleTable(
        where="the embedded LIDC votes",
        names=[f"nodule {row}" for row in rows.tolist()],
        images=images[rows],
        votes=votes,
        groups=patient[rows].tolist(),
        group_source="the embedded votes",
    )

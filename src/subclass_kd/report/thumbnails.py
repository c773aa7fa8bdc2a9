"""Small pictures of test images for a report, as data in the page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from subclass_kd.config import Study
from subclass_kd.data.rows import Samples
from subclass_kd.data.samples import load_samples
from subclass_kd.errors import UserError

LARGEST, SMALLEST = 112, 84  # pixels of the longer side


def thumbnails(parts: Sequence[Path], fingerprints: Sequence[str], wanted: Sequence[int]) -> dict[int, str]:
    """Give some test images of a run as data URIs.

    Args:
        parts: folders of the run, or of its folds.
        fingerprints: of the data of each part.
        wanted: numbers of test images, counted over all parts.

    Returns:
        Number -> "data:image/png;base64,..."

    Raises:
        UserError: the data are not there any more, or are others now.
    """
    found, first = {}, 0
    for part, fingerprint in zip(parts, fingerprints, strict=True):
        samples = _samples(part, fingerprint)
        here = [number for number in wanted if 0 <= number - first < len(samples.test)]
        for number in here:
            row = samples.test[number - first]
            found[number] = _png(samples.images[np.array([row])][0])
        first += len(samples.test)
    return found


def _samples(part: Path, fingerprint: str) -> Samples:
    path = part / "study.json"
    try:
        study = Study.model_validate(json.loads(path.read_text("utf-8")))
    except (OSError, ValueError) as error:
        raise UserError(str(path), f"no study ({type(error).__name__})", "the study of this run") from None
    samples = load_samples(study, verify=False)
    if samples.fingerprint != fingerprint:
        raise UserError(str(part), f"other data now (fingerprint {samples.fingerprint})", f"those of {fingerprint}")
    return samples


def _png(pixels: NDArray[np.uint8]) -> str:
    """Write pixels (C, H, W) as a PNG: enlarged in whole steps so that single pixels stay sharp, or made smaller."""
    from PIL import Image

    if pixels.shape[0] == 1:
        image = Image.fromarray(pixels[0])
    elif pixels.shape[0] >= 3:
        image = Image.fromarray(np.ascontiguousarray(pixels[:3].transpose(1, 2, 0)))
    else:
        image = Image.fromarray(pixels[0])
    longer = max(image.size)
    if longer > LARGEST:
        image.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    elif longer < SMALLEST:
        times = SMALLEST // longer
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    content = io.BytesIO()
    image.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"

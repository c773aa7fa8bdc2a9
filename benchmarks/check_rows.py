"""How long data are checked for everything but pixels, and how memory grows: with rows, not with pixels.

    python -m benchmarks.check_rows [--rows N] [--json FILE]

Rows: a CSV of N rows (path, patient of three images, three annotators, weight), every file of which is there (hard
links), read and checked as ``skd check`` does before it opens an image. Pixels: a folder of 400 images of 64 and of
1,024 pixels a side, scanned whole. Each has a process of its own; its peak of resident memory, less that after
the imports, is read from /proc (Linux).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from subclass_kd.files import write_json

IMAGES = 400


def write_rows(folder: Path, rows: int) -> dict[str, Any]:
    """Write a table of so many rows and the study that reads it."""
    from PIL import Image

    random = np.random.default_rng(0)
    images = folder / "images"
    images.mkdir()
    original = folder / "original.png"
    Image.fromarray(random.integers(0, 256, (8, 8), np.uint8)).save(original)
    lines = ["path,patient,reader_1,reader_2,reader_3,weight"]
    for number, votes in enumerate(random.random((rows, 3)) < random.random((rows, 1))):
        # At most 10,000 links to one file: some file systems allow no more than 65,000.
        if number % 10_000 == 0:
            source = images / f"{number}.png"
            source.write_bytes(original.read_bytes())
        else:
            os.link(source, images / f"{number}.png")
        cells = ",".join("malignant" if vote else "benign" for vote in votes)
        lines.append(f"images/{number}.png,p{number // 3},{cells},1.0")
    (folder / "cases.csv").write_text("\n".join(lines) + "\n")
    votes_section = {"columns": ["reader_1", "reader_2", "reader_3"], "positive": ["malignant"]}
    data = {"kind": "table", "table": str(folder / "cases.csv"), "columns": {"group": "patient"}}
    return {"data": data, "votes": votes_section}


def write_images(folder: Path, size: int) -> dict[str, Any]:
    """Write a folder of images of this size and the study that reads it."""
    from PIL import Image

    random = np.random.default_rng(0)
    for number in range(IMAGES):
        path = folder / "images" / "ab"[number % 2] / "wxyz"[number % 4] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(random.integers(0, 256, (16, 16), np.uint8))
        coarse.resize((size, size), Image.Resampling.NEAREST).save(path)
    return {"data": {"kind": "folder", "root": str(folder / "images")}}


def check(content: dict[str, Any], pixels: bool) -> dict[str, Any]:
    """Check a study's data in this process; give seconds, megabytes above those after the imports, and findings."""
    from subclass_kd.data.check import check_rows, check_study
    from subclass_kd.data.findings import Findings
    from subclass_kd.data.samples import resolve_rows
    from subclass_kd.study_file import make_study

    before, started = peak_megabytes(), time.perf_counter()
    study = make_study(content)
    if pixels:
        errors = check_study(study)["errors"]
    else:
        findings = Findings()
        check_rows(resolve_rows(study, findings), findings)
        errors = findings.errors
    return {"seconds": time.perf_counter() - started, "megabytes": peak_megabytes() - before, "errors": errors}


def peak_megabytes() -> float:
    """Give the largest resident memory that this process has had."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def measure(content: dict[str, Any], pixels: bool) -> dict[str, Any]:
    """Check in a process of its own."""
    code = "import json, sys; from benchmarks.check_rows import check; print(json.dumps(check(*json.load(sys.stdin))))"
    request = json.dumps([content, pixels])
    done = subprocess.run([sys.executable, "-c", code], input=request, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    measured: dict[str, Any] = {"machine": describe_machine(), "rows": {}, "pixels": {}}
    print("| checked | seconds | memory, MB |\n|---|---|---|")
    for rows in (arguments.rows // 4, arguments.rows // 2, arguments.rows):
        with tempfile.TemporaryDirectory() as folder:
            row = measured["rows"][rows] = measure(write_rows(Path(folder), rows), pixels=False)
        assert row["errors"] == 0
        print(f"| {rows:,} rows, all but pixels | {row['seconds']:.1f} | {row['megabytes']:.0f} |")
    for size in (64, 1024):
        with tempfile.TemporaryDirectory() as folder:
            row = measured["pixels"][size] = measure(write_images(Path(folder), size), pixels=True)
        assert row["errors"] == 0
        name = f"{IMAGES} images of {size} x {size}, pixels too"
        print(f"| {name} | {row['seconds']:.1f} | {row['megabytes']:.0f} |")
    if arguments.json:
        write_json(arguments.json, measured)


if __name__ == "__main__":
    main()

"""How long the first prediction of a large folder takes, Python's start included.

    python -m benchmarks.first_prediction [--files N] [--repeats N] [--json FILE]

One image of 64 x 64 pixels under N names in one folder; ``skd predict FOLDER`` and ``skd predict 'FOLDER/*.png'`` until
the first rows stand on standard output, median of the repeats. The student is that of predict_throughput.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.machine import describe_machine
from benchmarks.predict_throughput import make_bundle


def seconds_to_first_row(bundle: Path, source: str) -> float:
    """Start ``skd predict`` and wait for its first row."""
    begun = time.perf_counter()
    command = [sys.executable, "-m", "subclass_kd.cli", "predict", str(bundle), source]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdout is not None
        process.stdout.readline()  # names of the columns
        assert process.stdout.readline()
        taken = time.perf_counter() - begun
        process.kill()
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        bundle, folder = Path(name) / "bundle", Path(name) / "images"
        bundle.mkdir()
        folder.mkdir()
        make_bundle(bundle, 64)
        pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
        Image.fromarray(pixels).save(bundle.with_suffix(".png"))
        content = bundle.with_suffix(".png").read_bytes()
        for number in np.random.default_rng(0).permutation(arguments.files).tolist():  # as folders list them: no order
            (folder / f"image_{number:07}.png").write_bytes(content)
        taken = {
            source: statistics.median(
                seconds_to_first_row(bundle, os.path.join(folder, source)) for _ in range(arguments.repeats)
            )
            for source in ("", "*.png")
        }
    result = {"machine": describe_machine(), "files": arguments.files, "folder": taken[""], "pattern": taken["*.png"]}
    print(
        f"{arguments.files:,} files: first row after {taken['']:.2f} s of a folder, {taken['*.png']:.2f} s of a pattern"
    )
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

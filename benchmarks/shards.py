"""What it costs to read images from shards, against the same images as files: rows, and images a second.

    python -m benchmarks.shards [--images N] [--rounds N] [--json FILE]

JPEG files of 80 x 80 pixels, made for this, in folders of classes and subclasses; the same files, byte for byte, in
shards of 1,000 with their labels as JSON. ``rows``: the samples table is read, of shards anew (headers) and with the
index that a first start leaves. ``decode``: all images at 64 x 64, in random order, one after another on one thread, as
an epoch with ``data.store_limit: 0`` reads them, each held against its digest; by the clock and by CPU
seconds, which other work on the machine disturbs less. Files and shards take turns; the first
of a pair changes from round to round. Ratios are of one round's pair; their median, least and most are given. All of
it is in the system's memory by then: what a disk or a network would add is not measured.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import statistics
import tarfile
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.data_scaling import STORED, write_images
from benchmarks.machine import describe_machine
from subclass_kd.config import Study
from subclass_kd.data.findings import Findings
from subclass_kd.data.samples import READERS, load_samples
from subclass_kd.files import write_json
from subclass_kd.study_file import make_study

IN_A_SHARD = 1_000
BATCH = 64


def write_shards(files: Path, shards: Path) -> None:
    """Write the images of folders of classes and subclasses into shards, in the order in which the folders are read."""
    shards.mkdir()
    paths = sorted(files.rglob("*.jpeg"))
    for start in range(0, len(paths), IN_A_SHARD):
        with tarfile.open(shards / f"{start // IN_A_SHARD:06}.tar", "w") as archive:
            for number, path in enumerate(paths[start : start + IN_A_SHARD]):
                labels = json.dumps({"class": path.parts[-3], "subclass": path.parts[-2]}).encode()
                for suffix, content in ((".jpeg", path.read_bytes()), (".json", labels)):
                    member = tarfile.TarInfo(f"{number:06}{suffix}")
                    member.size = len(content)
                    archive.addfile(member, io.BytesIO(content))


def seconds_of_rows(study: Study) -> float:
    """Read the samples table."""
    begun = time.perf_counter()
    READERS[study.data.kind](study, Findings())
    return time.perf_counter() - begun


def measure(folder: Path, count: int, rounds: int) -> dict[str, list[float]]:
    """Give, of each round, seconds of rows and images a second."""
    write_images(folder / "files", count)
    write_shards(folder / "files", folder / "shards")
    kinds = {"files": "folder", "shards": "webdataset"}
    studies = {
        name: make_study(
            {"data": {"kind": kind, "root": str(folder / name), "size": STORED, "channels": 1, "store_limit": 0}}
        )
        for name, kind in kinds.items()
    }
    images = {name: load_samples(study).images for name, study in studies.items()}
    assert np.array_equal(*(each[np.arange(BATCH)] for each in images.values()))
    order = np.random.default_rng(0).permutation(count)
    found: dict[str, list[float]] = {
        f"{what}_{name}": [] for what in ("rows", "decode", "decode_cpu") for name in kinds
    } | {"rows_shards_anew": []}
    for number in range(rounds + 1):  # the first is a rehearsal
        for name in [*kinds] if number % 2 else [*kinds][::-1]:
            seconds = seconds_of_rows(studies[name])
            begun, cpu = time.perf_counter(), time.process_time()
            for start in range(0, count, BATCH):
                images[name][order[start : start + BATCH]]
            rate, cpu_rate = count / (time.perf_counter() - begun), count / (time.process_time() - cpu)
            if number:
                found[f"rows_{name}"].append(seconds)
                found[f"decode_{name}"].append(rate)
                found[f"decode_cpu_{name}"].append(cpu_rate)
        shutil.rmtree(Path(os.environ["SUBCLASS_KD_CACHE"]) / "shards")
        anew = seconds_of_rows(studies["shards"])
        if number:
            found["rows_shards_anew"].append(anew)
    return found


def spread(values: list[float]) -> dict[str, float]:
    """Give median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        os.environ["SUBCLASS_KD_CACHE"] = f"{name}/cache"
        found = measure(Path(name), arguments.images, arguments.rounds)
    result = {key: spread(values) for key, values in found.items()}
    for what in ("rows", "decode", "decode_cpu"):
        pairs = zip(found[f"{what}_shards"], found[f"{what}_files"], strict=True)
        result[f"{what}_shards_over_files"] = spread([shards / files for shards, files in pairs])
    for key, numbers in result.items():
        print(f"{key}: {numbers['median']:.4g} ({numbers['least']:.4g} to {numbers['most']:.4g})")
    if arguments.json:
        about = {"machine": describe_machine(), "images": arguments.images, "rounds": arguments.rounds}
        write_json(arguments.json, about | {"results": result})


if __name__ == "__main__":
    main()

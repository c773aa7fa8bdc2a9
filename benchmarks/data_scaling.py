"""How time and memory grow with the images: decoding, opening, an epoch, prediction, for 1,000, 10,000 and 60,000.

    python -m benchmarks.data_scaling [--rounds N] [--json FILE]

Images are JPEG files of 80 x 80 pixels, made for this, in folders of two classes of two subclasses; the study wants
them at 64 x 64. ``decode``: the study's samples are loaded into an empty cache, on all cores. ``open``: they are loaded
again, in a new process; every stored image is held against its digest. ``epoch``: the default small student learns from
the training images (64 %) on one thread, and is judged on the validation images (16 %). ``predict``: its answers to all
images. Times are those of a clock on the wall, medians over rounds in which the sizes take turns; CPU seconds, which
other work on the machine disturbs less, stand beside them.

Memory is read from /proc (Linux) twenty times a second, the most in a step above what it was before: ``anonymous`` is
the process's own, after a rehearsal on 4,000 other images, which fill the batches; ``file`` is what of the store is
mapped into the process, and given back when the system needs room.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import describe_machine
from subclass_kd.files import write_json

SIZES = (1_000, 10_000, 60_000)
REHEARSAL = 4_000
STEPS = ("decode", "open", "epoch", "predict")
SIDE, STORED = 80, 64
BATCH = 64


def write_images(folder: Path, count: int) -> None:
    """Write so many different images into folders of classes and subclasses."""
    from PIL import Image

    random = np.random.default_rng(count)
    subclasses = [folder / path for path in ("a/p", "a/q", "b/r", "b/s")]
    for path in subclasses:
        path.mkdir(parents=True)
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (10, 10), np.uint8))
        image = coarse.resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        image.save(subclasses[number % 4] / f"{number}.jpeg", quality=85)


def read_memory() -> dict[str, float]:
    """Give the megabytes of this process's own and of files that are in memory."""
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return {name: int(lines[key].split()[0]) / 1024 for name, key in (("anonymous", "RssAnon"), ("file", "RssFile"))}


@contextmanager
def measured(result: dict[str, Any], step: str) -> Iterator[None]:
    """Note seconds, CPU seconds and the most memory of a step, the latter above what it was before."""
    before, most, done = read_memory(), read_memory(), threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for name, megabytes in read_memory().items():
                most[name] = max(most[name], megabytes)

    watcher = threading.Thread(target=watch)
    watcher.start()
    cpu, clock = time.process_time(), time.perf_counter()
    yield
    seconds, cpu_seconds = time.perf_counter() - clock, time.process_time() - cpu
    done.set()
    watcher.join()
    result[step] = {"seconds": seconds, "cpu_seconds": cpu_seconds}
    result[step] |= {name: max(most[name], now) - before[name] for name, now in read_memory().items()}


def load(root: str) -> Any:
    from subclass_kd.data.samples import load_samples
    from subclass_kd.study_file import make_study

    return load_samples(make_study({"data": {"kind": "folder", "root": root, "size": STORED, "channels": 1}}))


def decode(root: str, rehearsal: str) -> dict[str, Any]:
    """Load images into a cache that does not have them."""
    result: dict[str, Any] = {}
    load(rehearsal)
    with measured(result, "decode"):
        load(root)
    return result


def use(root: str, rehearsal: str) -> dict[str, Any]:
    """Open a store, train for an epoch, predict."""
    import torch

    from subclass_kd.device import keep_freed_memory

    result: dict[str, Any] = {}
    torch.set_num_threads(1)
    keep_freed_memory()  # as a run does
    _learn_and_predict(load(rehearsal), {})
    with measured(result, "open"):
        samples = load(root)
    _learn_and_predict(samples, result)
    return result


def _learn_and_predict(samples: Any, result: dict[str, Any]) -> None:
    import torch

    from subclass_kd.augment import Views
    from subclass_kd.config import Augment, Student
    from subclass_kd.device import make_fabric
    from subclass_kd.feeding import Feed
    from subclass_kd.models import build_model
    from subclass_kd.study_file import make_study
    from subclass_kd.training import Lesson, Pixels, predict, train

    network, fabric = Student(epochs=1, batch_size=BATCH), make_fabric(make_study({"device": "cpu"}))
    mean, std = (torch.from_numpy(statistic) for statistic in samples.mean_and_std)
    torch.manual_seed(0)
    model = build_model(network, 4, 1, mean, std)
    lesson = Lesson(samples.hierarchy, torch.from_numpy(samples.subclass_labels))
    train_rows, validation = torch.from_numpy(samples.train), torch.from_numpy(samples.validation)
    pixels = Pixels(samples.images, train_rows, validation, samples.positive)
    layout = torch.channels_last
    with measured(result, "epoch"):
        train(model, lesson, pixels, Views(0, 4, Augment()), network, fabric, 0, layout=layout)
    learner = fabric.setup_module(model)
    with measured(result, "predict"):
        predict(learner, Feed(samples.images, torch.arange(len(samples.images)), fabric), fabric, layout=layout)


def run(what: Callable[[str, str], dict[str, Any]], root: Path, rehearsal: Path, cache: Path) -> dict[str, Any]:
    """Measure in a process of its own."""
    code = "import json, sys; from benchmarks import data_scaling as its; "
    code += f"print(json.dumps(its.{what.__name__}(*sys.argv[1:])))"
    environment = {**os.environ, "SUBCLASS_KD_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code, str(root), str(rehearsal)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return dict(json.loads(done.stdout))


def table(rows: dict[str, Any]) -> list[str]:
    """Give the lines of the table, of medians, with the largest size against the one before."""
    sizes = list(rows)
    ratio = f"{int(sizes[-1]):,} / {int(sizes[-2]):,}"
    heads = [f"{int(size):,}: s (CPU s)" for size in sizes] + [f"{ratio}, s (CPU s)"]
    heads += [f"{int(size):,}: anonymous, file MB" for size in sizes]
    lines = [f"| step | {' | '.join(heads)} |", "|---" * (len(heads) + 1) + "|"]
    for step in STEPS:
        of = [rows[size][step] for size in sizes]
        cells = [f"{row['seconds']:.2f} ({row['cpu_seconds']:.2f})" for row in of]
        cells.append(f"{_ratio(of, 'seconds'):.2f} ({_ratio(of, 'cpu_seconds'):.2f})")
        cells += [f"{row['anonymous']:.0f}, {row['file']:.0f}" for row in of]
        lines.append(f"| {step} | {' | '.join(cells)} |")
    return lines


def _ratio(of: list[dict[str, float]], key: str) -> float:
    return of[-1][key] / of[-2][key]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="ascending, at least two")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs: dict[str, list[dict[str, Any]]] = {str(size): [] for size in arguments.sizes}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for size in arguments.sizes:
            write_images(folder / str(size), size)
        write_images(folder / "rehearsal", REHEARSAL)
        for number in range(arguments.rounds):
            for size in arguments.sizes:
                cache = folder / f"cache-{number}-{size}"
                root, rehearsal = folder / str(size), folder / "rehearsal"
                runs[str(size)].append(run(decode, root, rehearsal, cache) | run(use, root, rehearsal, cache))
                print(f"round {number + 1}, {size:,} images", file=sys.stderr)
    rows = {
        size: {step: {key: statistics.median(one[step][key] for one in of) for key in of[0][step]} for step in STEPS}
        for size, of in runs.items()
    }
    print("\n".join(table(rows)))
    if arguments.json:
        write_json(arguments.json, {"machine": describe_machine(), "medians": rows, "runs": runs})


if __name__ == "__main__":
    main()

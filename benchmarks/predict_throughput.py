"""How fast files are predicted, against bare decoding by Pillow and bare onnxruntime on the decoded arrays.

    python -m benchmarks.predict_throughput FOLDER [--images N] [--side PIXELS] [--json FILE]

Both see the same files in the same run, in turns of 512 images, so that what else the machine does hits both. The
throughput is that of all together and of the median turn; CPU seconds of this process are given beside it, since other
work on the machine changes them less. ``ours`` is what ``skd predict`` does, to a CSV file; ``bare`` decodes in as many
threads as there are cores (Pillow: open, grey, resize), then runs the same session on batches of 32. The student is an
untrained small:convnet: what it knows costs nothing.
"""

import argparse
import json
import statistics
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from benchmarks.machine import describe_machine
from subclass_kd.bundle import INPUT, Bundle, make_session
from subclass_kd.bundle_files import describe_files, seal
from subclass_kd.cores import count_cores
from subclass_kd.deployed import Deployed, to_onnx
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.networks import Normalised, SmallConvNet
from subclass_kd.predict import BATCH, columns, find_images, predict_files
from subclass_kd.prediction_files import writing

TURN = 512


def make_bundle(folder: Path, side: int) -> Bundle:
    """Make a bundle of an untrained student that takes grey images of a size."""
    hierarchy = SubclassHierarchy(["a", "b"], {"a1": "a", "b1": "b", "b2": "b"})
    torch.manual_seed(0)
    network = Normalised(SmallConvNet(3), torch.tensor([0.5]), torch.tensor([0.25]))
    to_onnx(Deployed(network, hierarchy, 1.0), (1, side, side), folder / "model.onnx")
    stated = {
        "schema": 1,
        "hierarchy": hierarchy.to_dict(),
        "positive": "b",
        "preprocessing": {"channels": 1, "height": side, "width": side, "resize": True, "white": 65535},
        "outputs": ["class_probabilities", "subclass_probabilities"],
        "temperature": {"value": 1.0},
        "decision": {"threshold": 0.5},
        "files": describe_files(folder),
    }
    (folder / "bundle.json").write_text(json.dumps(stated))
    seal(folder)
    return Bundle(folder, threads=1)


def bare_decode(path: str, side: int) -> np.ndarray:
    """Decode a file as few lines would."""
    with Image.open(path) as image:
        return np.asarray(image.convert("L").resize((side, side), Image.Resampling.BILINEAR))[None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder")
    parser.add_argument("--images", type=int, default=1_000_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    paths = list(find_images([arguments.folder]))
    paths = paths[:: max(1, -(-len(paths) // arguments.images))]
    ratios, cpu = [], {"ours": 0.0, "bare": 0.0}
    spent = {"ours": 0.0, "decode": 0.0, "onnxruntime": 0.0}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(count_cores()) as pool:
        bundle = make_bundle(Path(name), arguments.side)
        session = make_session(Path(name) / "model.onnx", count_cores())
        for turn, start in enumerate(range(0, len(paths), TURN)):
            some = paths[start : start + TURN]
            for path in some:
                Path(path).read_bytes()  # from memory for both
            before = dict(spent)
            for who in ("ours", "bare") if turn % 2 else ("bare", "ours"):
                begun, cpu_begun = time.perf_counter(), time.process_time()
                if who == "ours":
                    with writing(Path(name) / f"{turn}.csv", *columns(bundle)) as write:
                        done = predict_files(bundle, some, write)
                    assert done.errors == 0
                    spent["ours"] += time.perf_counter() - begun
                    cpu["ours"] += time.process_time() - cpu_begun
                    continue
                decoded = np.stack(list(pool.map(lambda path: bare_decode(path, arguments.side), some)))
                spent["decode"] += time.perf_counter() - begun
                begun = time.perf_counter()
                for first in range(0, len(decoded), BATCH):
                    session.run(None, {INPUT: decoded[first : first + BATCH]})
                spent["onnxruntime"] += time.perf_counter() - begun
                cpu["bare"] += time.process_time() - cpu_begun
            of_turn = {key: spent[key] - before[key] for key in spent}
            ratios.append((of_turn["decode"] + of_turn["onnxruntime"]) / of_turn["ours"])
    bare = spent["decode"] + spent["onnxruntime"]
    result = {
        "machine": describe_machine(),
        "images": len(paths),
        "side": arguments.side,
        "seconds": spent,
        "cpu_seconds": cpu,
        "images_per_second": {"ours": len(paths) / spent["ours"], "bare": len(paths) / bare},
        "ours_over_bare": {"all": bare / spent["ours"], "median_turn": statistics.median(ratios), "turns": ratios},
    }
    print(
        f"{len(paths):,} images: ours {len(paths) / spent['ours']:.1f} a second, bare {len(paths) / bare:.1f}; ", end=""
    )
    print(f"throughput {bare / spent['ours']:.3f} of bare (median turn {statistics.median(ratios):.3f}; ", end="")
    print(f"by CPU seconds {cpu['bare'] / cpu['ours']:.3f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()

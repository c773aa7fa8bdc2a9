"""What students of finished runs lose on their way out: from PyTorch to ONNX, and from float32 to 8 bits.

    python -m benchmarks.parity --runs RUN [RUN ...] [--json [FILE]]

Of each arm's best student, as ``skd export`` makes it: the largest difference of a probability and the decisions
changed on up to 500 of the run's test images, and the change of F1 by 8 bits on all validation and all test images.
``--json`` alone prints JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.machine import describe_machine
from subclass_kd.bundle_statement import state
from subclass_kd.candidates import best_student, deployed_student, open_run
from subclass_kd.deployed import to_onnx
from subclass_kd.parity import agreement, eight_bits, int8_lines, measure_parity
from subclass_kd.run_files import read_run


def measure(folder: Path, arm: str) -> dict[str, Any]:
    """Measure the best student of an arm."""
    run = open_run(folder, *read_run(folder, arm), lambda done, total: None)
    students = best_student(run, arm)
    stated = state(run, students, "youden")
    threshold = stated["decision"]["threshold"]
    model = deployed_student(run, students[0], stated["temperature"]["value"])
    with tempfile.TemporaryDirectory() as name:
        onnx = Path(name) / "model.onnx"
        to_onnx(model, run.shape, onnx)
        parity = measure_parity(run, model, onnx, threshold)
        int8 = eight_bits(run, onnx, Path(name) / "model-int8.onnx", threshold)
    pairs = {split: (int8[split]["f1"]["float32"], int8[split]["f1"]["int8"]) for split in ("validation", "test")}
    change = {split: None if None in pair else pair[1] - pair[0] for split, pair in pairs.items()}
    row = {"run": folder.name, "arm": arm, "seed": students[0].seed, "parity": parity}
    return row | {"int8": int8, "int8_change_of_f1": change}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, nargs="+", required=True)
    parser.add_argument("--json", nargs="?", const="-")
    arguments = parser.parse_args()
    rows = []
    for folder in arguments.runs:
        for arm in json.loads((folder / "results.json").read_text("utf-8"))["arms"]:
            row = measure(folder, arm)
            rows.append(row)
            if arguments.json != "-":
                print(f"{folder.name}, {arm}, seed {row['seed']}: {agreement(row['parity'])}.")
                print("\n".join(int8_lines(row["int8"])))
    content = json.dumps({"machine": describe_machine(), "students": rows}, indent=2)
    if arguments.json == "-":
        print(content)
    elif arguments.json:
        Path(arguments.json).write_text(f"{content}\n")


if __name__ == "__main__":
    main()

"""What a study of many images costs, in bytes, operations, hours and money; held against what was measured of fewer.

    python -m benchmarks.scale [--images N]... [--KEY VALUE]... [--json FILE]

The model is arithmetic. Bytes: the store is N x 3 x side x side, targets are V x N x K x 4. Operations: a forward pass
takes twice a network's multiply-adds, a step of training three times that. A pass over the images takes as long as the
slowest of three things that go on at once: the card's operations, its steps where the network is too small to keep it
busy, and the images' way to it (read from the store if that fits the disk, else decoded each time). The rates and the
price are assumptions, not measurements of ours: every one is an option.

``check`` takes the time of an image from 10,000 in docs/data-scaling.json and says what 1,000 and 60,000 would take,
divided by what they took: 1 where time is in proportion to images. Bytes of the store are held against what a process
had mapped of it.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from subclass_kd.files import write_json

IMAGES = (10**5, 10**7, 10**9)
MEASURED = Path(__file__).parent.parent / "docs/data-scaling.json"
ROW = 900  # bytes of memory that a process needs for an image's row, labels and losses: docs/performance.md
# Multiply-adds of one image of 224 x 224, as torch counts them: tests/test_scale.py does.
TEACHER, STUDENT = 61_554_712_576, 24_188_688


@dataclass(frozen=True)
class Setting:
    """One seed: a trained ViT-L/16 is asked, and one MobileNetV3-small (0.5) learns from it, on one card.

    Args:
        side: height and width of the images, in pixels; three channels.
        subclasses: outputs of the teacher.
        views: stored answers to each image.
        teacher_epochs: passes to train the teacher as well; 0 where a trained one is taken over.
        student_epochs: passes of the student.
        gpu_rate: operations a second that a card keeps up in bfloat16.
        student_rate: images a second that a card trains of a network too small to keep it busy.
        gpu_price: of a card's hour with its cores and disk, in any currency.
        cores: that decode beside the card.
        decode_rate: JPEG files a second and core.
        file_bytes: of a JPEG file.
        disk: bytes beside the card for the store.
        disk_rate: bytes a second that it reads.
    """

    side: int = 224
    subclasses: int = 100
    views: int = 1
    teacher_epochs: int = 0
    student_epochs: int = 30
    gpu_rate: float = 3e14
    student_rate: float = 10_000.0
    gpu_price: float = 3.0
    cores: int = 16
    decode_rate: float = 300.0
    file_bytes: float = 110e3
    disk: float = 4e12
    disk_rate: float = 3e9


def cost(images: int, setting: Setting) -> dict[str, Any]:
    """Give bytes, operations, hours of one card, and money.

    >>> row = cost(10**7, Setting())
    >>> row["store_bytes"], row["targets_bytes"], row["stored"]
    (1505280000000, 4000000000, True)
    >>> round(row["hours"]["targets"], 2)
    1.14
    """
    store = images * 3 * setting.side**2
    stored = store <= setting.disk
    decoded = images / (setting.cores * setting.decode_rate)
    brought = store / setting.disk_rate if stored else decoded  # seconds of a pass
    operations = {
        "teacher": 6 * TEACHER * images * setting.teacher_epochs,
        "targets": 2 * TEACHER * images * setting.views,
        "student": 6 * STUDENT * images * setting.student_epochs,
    }
    computed = {name: count / setting.gpu_rate for name, count in operations.items()}
    seconds = {
        "decode": decoded if stored else 0.0,
        "teacher": max(computed["teacher"], setting.teacher_epochs * brought),
        "targets": max(computed["targets"], brought),
        "student": max(computed["student"], setting.student_epochs * max(brought, images / setting.student_rate)),
    }
    hours = {name: taken / 3600 for name, taken in seconds.items()}
    targets = images * setting.views * setting.subclasses * 4
    return {
        "images": images,
        "file_bytes": images * setting.file_bytes,
        "store_bytes": store,
        "stored": stored,
        "targets_bytes": targets,
        "memory_bytes": images * ROW + 2 * targets,  # targets are written from a copy
        "operations": operations,
        "hours": hours,
        "total_hours": sum(hours.values()),
        "money": sum(hours.values()) * setting.gpu_price,
    }


def check(measured: dict[str, Any]) -> dict[str, Any]:
    """Hold the model against the medians of data_scaling: predicted by measured, for each step and number of images."""
    medians = measured["medians"]
    of_one = {step: medians["10000"][step]["seconds"] / 10_000 for step in medians["10000"]}
    return {
        "seconds": {
            count: {step: of_one[step] * int(count) / row[step]["seconds"] for step in row}
            for count, row in medians.items()
        },
        "store_bytes": {count: int(count) * 64 * 64 / (row["open"]["file"] * 2**20) for count, row in medians.items()},
    }


def table_row(row: dict[str, Any]) -> str:
    """Give a row of the table in docs/scale.md: bytes in GB, operations in 10^18."""
    size = {key: f"{row[key] / 1e9:,.1f}" for key in ("file_bytes", "store_bytes", "targets_bytes", "memory_bytes")}
    hours = [f"{row['hours'][step]:,.2f}" for step in ("decode", "targets", "student")]
    store = size["store_bytes"] + ("" if row["stored"] else " (not made)")
    cells = [f"{row['images']:,}", size["file_bytes"], store, size["targets_bytes"], size["memory_bytes"]]
    cells += [f"{sum(row['operations'].values()) / 1e18:,.2f}", *hours, f"{row['money']:,.0f}"]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, action="append")
    for field in fields(Setting):
        option = f"--{field.name.replace('_', '-')}"
        parser.add_argument(option, type=type(field.default), default=field.default)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    setting = Setting(**{field.name: getattr(arguments, field.name) for field in fields(Setting)})
    rows = [cost(images, setting) for images in arguments.images or IMAGES]
    print("\n".join(map(table_row, rows)))
    held = check(json.loads(MEASURED.read_text("utf-8")))
    print(json.dumps(held, indent=2))
    if arguments.json:
        write_json(arguments.json, {"setting": asdict(setting), "rows": rows, "check": held})


if __name__ == "__main__":
    main()

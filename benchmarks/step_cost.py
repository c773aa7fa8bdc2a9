"""What a student's epoch costs: with a teacher's stored targets, without a teacher, and in a loop written by hand.

    python -m benchmarks.step_cost [--rounds N] [--json FILE]

Three trainings of the same student on the same images take turns, on one thread: ``skd`` and ``scratch`` by this
package's loop, and ``bare``, a plain PyTorch loop over tensors in memory with the same network, batch size, optimiser,
schedule, augmentation, layout and validation, and nothing else. The images are noise, which costs what images cost.
Times are CPU seconds of this process, so that what else the machine does counts less. Ratios are of the median epochs
of one round, medians over the rounds, with their range; the first epoch of each training is not counted.
"""

import argparse
import copy
import itertools
import json
import math
import statistics
import time
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.machine import describe_machine
from subclass_kd.arithmetic import Arithmetic
from subclass_kd.augment import Views
from subclass_kd.config import Augment, Student, Study, Teacher
from subclass_kd.device import keep_freed_memory, make_fabric
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.measuring import choose
from subclass_kd.models import build_model
from subclass_kd.training import Lesson, Pixels, train

# Student, side of the images, training images: the demo's, a usual small network, a large one.
CASES = (("small:convnet", 28, 2400), ("timm:mobilenetv3_small_050", 64, 320), ("timm:resnet18", 64, 128))
EPOCHS, BATCH, VIEWS, SUBCLASSES = 4, 64, 4, 10
HIERARCHY = SubclassHierarchy.from_parent([k % 2 for k in range(SUBCLASSES)])


def bare_epochs(
    model: nn.Module, images: Tensor, labels: Tensor, held_out: Tensor, network: Student, arithmetic: Arithmetic
) -> list[float]:
    """Train as one would by hand, and give the seconds of each epoch, each with a look at the held-out images."""
    layout = arithmetic.memory_format
    model.to(memory_format=layout)
    optimizer = torch.optim.AdamW(model.parameters(), lr=network.learning_rate, fused=True)
    count, channels, side, _ = images.shape
    steps = math.ceil(count / network.batch_size)
    reach, place, channel = int(0.08 * side), torch.arange(side), torch.arange(channels)[None, :, None, None]
    seconds, step, half = [], 0, arithmetic.precision == "bfloat16"
    for _ in range(network.epochs):
        started = time.process_time()
        model.train()
        total = torch.zeros(())
        for batch in torch.randperm(count).tensor_split(steps):
            for group in optimizer.param_groups:
                group["lr"] = network.learning_rate * 0.5 * (1 + math.cos(math.pi * step / (network.epochs * steps)))
            down, across = torch.randint(-reach, reach + 1, (2, len(batch), 1))  # (B, 1) each
            rows = (place + down).clamp(0, side - 1)  # (B, H)
            columns = (place + across).clamp(0, side - 1)  # (B, W)
            columns = torch.where(torch.rand(len(batch), 1) < 0.5, columns.flip(1), columns)
            seen = images[batch[:, None, None, None], channel, rows[:, None, :, None], columns[:, None, None]]
            inputs = seen.to(dtype=torch.float32, memory_format=layout) / 255  # (B, C, H, W)
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                logits = model(inputs)  # (B, K)
            loss = F.cross_entropy(logits.float(), labels[batch])
            loss.backward()
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            total += loss.detach() * len(batch)
            step += 1
        model.eval()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=half):
            for part in held_out.split(512):
                model(part.to(dtype=torch.float32, memory_format=layout) / 255)
        seconds.append(time.process_time() - started)
    return seconds


def measure(name: str, side: int, count: int, rounds: int) -> dict[str, object]:
    """Time one student in all three ways, in turns."""
    network = Student(model=name, epochs=EPOCHS, batch_size=BATCH, learning_rate=0.001)
    study = Study(student=network, teacher=Teacher(**network.model_dump()), device="cpu")
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (count + count // 4, 1, side, side), dtype=torch.uint8, generator=generator)
    labels = torch.arange(len(images)) % SUBCLASSES
    rows = torch.arange(len(images)).split([count, count // 4])
    pixels = Pixels(images.numpy(), rows[0], rows[1], positive=1)
    targets = torch.randn(VIEWS, count, SUBCLASSES, generator=generator)
    views = Views(0, VIEWS, Augment())
    lessons = {"scratch": Lesson(HIERARCHY, labels), "skd": Lesson(HIERARCHY, labels, targets, alpha=0.9)}
    student = build_model(network, SUBCLASSES, 1, torch.tensor([0.5]), torch.tensor([0.3]))
    arithmetic = choose(study, lambda role: copy.deepcopy(student), (1, side, side)).student.chosen
    each: dict[str, list[float]] = {"bare": [], "scratch": [], "skd": []}
    for _ in range(rounds):
        seconds = bare_epochs(
            copy.deepcopy(student), images[rows[0]], labels[rows[0]], images[rows[1]], network, arithmetic
        )
        each["bare"].append(statistics.median(seconds[1:]))
        for arm, lesson in lessons.items():
            fabric = make_fabric(study, arithmetic.precision)
            layout = arithmetic.memory_format
            marks: list[float] = []
            note = lambda epoch, marks=marks: marks.append(time.process_time())  # noqa: E731
            train(copy.deepcopy(student), lesson, pixels, views, network, fabric, 0, note, layout)
            each[arm].append(statistics.median(after - before for before, after in itertools.pairwise(marks)))
    steps = math.ceil(count / BATCH)
    return {
        "student": name,
        "pixels": side,
        "images": count,
        "arithmetic": str(arithmetic),
        "milliseconds_a_step": {arm: 1000 * statistics.median(seconds) / steps for arm, seconds in each.items()},
        "skd_over_scratch": [skd / scratch for skd, scratch in zip(each["skd"], each["scratch"], strict=True)],
        "scratch_over_bare": [scratch / bare for scratch, bare in zip(each["scratch"], each["bare"], strict=True)],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    print(f"batch {BATCH}, one thread, {options.rounds} rounds of {EPOCHS} epochs; {describe_machine()}")
    print(f"{'student':28}{'px':>4}{'images':>8}{'bare':>9}{'scratch':>9}{'skd':>9}  skd/scratch        scratch/bare")
    cases = []
    for name, side, count in CASES:
        case = measure(name, side, count, options.rounds)
        cases.append(case)
        ms = case["milliseconds_a_step"]
        shown = "  ".join(
            f"{statistics.median(case[key]):.3f} ({min(case[key]):.3f} to {max(case[key]):.3f})"
            for key in ("skd_over_scratch", "scratch_over_bare")
        )
        times = "".join(f"{ms[arm]:9.2f}" for arm in ("bare", "scratch", "skd"))
        print(f"{name:28}{side:4}{count:8}{times}  {shown}", flush=True)
    print("bare, scratch, skd: CPU milliseconds a step, validation included")
    if options.json:
        # The first student's: the smaller the network, the more the loop around it weighs.
        headline = {key: statistics.median(cases[0][key]) for key in ("skd_over_scratch", "scratch_over_bare")}
        content = {"machine": describe_machine(), "rounds": options.rounds, **headline, "cases": cases}
        options.json.write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""What ``benchmarks.peers`` needs before it can train: the peers' environment, images, a trained teacher."""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import venv
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch.nn import functional as F

from benchmarks.peers_common import SEED, SPLITS, Task, build, read
from benchmarks.peers_online import Augmented
from subclass_kd.cache import cache_folder

PEERS = ["torchdistill==1.1.5", "timm==1.0.31"]
XRAYS = Path(__file__).parents[2] / "shared/data/chest_xray/train"
SUBCLASSES = ("normal", "bacteria", "virus")
SIZE = 64
TEACHER_EPOCHS = 15

Arrays = dict[str, NDArray[np.generic]]


def environment(folder: Path | None) -> Path:
    """Make the peers' environment if it is not there, and give its Python.

    torch and torchvision are of the versions that run ours, so that arithmetic is the same.

    Args:
        folder: of the environment; in the user's cache if None.
    """
    same = [f"{name}=={importlib.metadata.version(name).partition('+')[0]}" for name in ("torch", "torchvision")]
    wanted = [*same, *PEERS]
    folder = folder or cache_folder() / "benchmarks" / "peers"
    python, marker = folder / "bin/python", folder / "peers.json"
    if marker.exists() and json.loads(marker.read_text()) == wanted:
        return python
    print(f"Installing {', '.join(wanted)} into {folder}: minutes, and about 5 GB.", flush=True)
    venv.create(folder, with_pip=True)
    subprocess.run([python, "-m", "pip", "install", "--quiet", *wanted], check=True)
    marker.write_text(json.dumps(wanted))
    return python


def load_images(train: int) -> tuple[Arrays, str]:
    """Give images (n, 1, 64, 64) uint8 and labels (n,) of three subclasses for each split, and where they come from.

    Args:
        train: how many training images; a quarter as many validate, as many as train are held out.
    """
    random = np.random.default_rng(SEED)
    counts = dict(zip(SPLITS, (train, train // 4, train), strict=True))
    total = sum(counts.values())
    if XRAYS.exists():
        images, labels = _xrays(random, total)
        source = "chest X-rays (Kermany et al.): normal, bacteria, virus"
    else:
        labels = random.integers(0, len(SUBCLASSES), total)
        images = random.integers(0, 256, (total, 1, SIZE, SIZE), np.uint8) // 2
        for number, label in enumerate(labels):
            images[number, :, 16 * label : 16 * label + 16] += 20  # a brighter band tells the subclass
        source = "noise with a brighter band for each subclass, as no chest X-rays are at ../shared/data/chest_xray"
    arrays: Arrays = {}
    for name, rows in zip(SPLITS, np.split(np.arange(total), np.cumsum(list(counts.values()))[:-1]), strict=True):
        arrays |= {f"{name}_images": images[rows], f"{name}_labels": labels[rows]}
    return arrays, source


def _xrays(random: np.random.Generator, count: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Give so many X-rays, drawn without regard to patients, which a measurement of time can do without."""
    from PIL import Image

    paths = np.array(sorted(XRAYS.glob("*/*.jpeg")))
    chosen = paths[random.permutation(len(paths))[:count]]
    pixels = [
        np.asarray(Image.open(path).convert("L").resize((SIZE, SIZE), Image.Resampling.BILINEAR)) for path in chosen
    ]
    names = [path.name for path in chosen]
    labels = [1 if "bacteria" in name else 2 if "virus" in name else 0 for name in names]
    return np.stack(pixels)[:, None], np.array(labels)


def write_networks(task: Task, channels: int = 1) -> None:
    """Write the student's first weights and those of a teacher that has been trained for a few epochs."""
    torch.manual_seed(SEED)
    student, teacher = (build(name, task.outputs, channels) for name in (task.student, task.teacher))
    save_file(student.state_dict(), task.student_weights)
    if Path(task.teacher_weights).exists():
        return
    save_file(teacher.state_dict(), task.teacher_weights)
    splits, teacher, _ = read(task)
    images, labels = Augmented(splits["train"].images, task.shift), splits["train"].labels
    teacher.requires_grad_(True).train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(teacher.parameters(), lr=1e-3, fused=True)
    for epoch in range(TEACHER_EPOCHS):
        for rows in task.order(epoch).split(task.batch_size):
            loss = F.cross_entropy(teacher(images.batch(rows)), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    save_file({name: tensor.contiguous() for name, tensor in teacher.state_dict().items()}, task.teacher_weights)

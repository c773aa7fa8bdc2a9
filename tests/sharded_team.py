"""What one of two processes does that hold a network in shares; tests/test_sharding.py starts both."""

import json
import os
import sys
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn

from subclass_kd import SubclassHierarchy, store, targets
from subclass_kd.augment import Views
from subclass_kd.checkpoint import Checkpoint
from subclass_kd.config import Augment, Study, Teacher
from subclass_kd.device import make_fabric, teacher_fabric
from subclass_kd.feeding import Feed
from subclass_kd.team import Team, current, enter
from subclass_kd.training import Lesson, Pixels, predict, train_together

STUDY = Study(device="cpu", teacher=Teacher(epochs=3, batch_size=8, learning_rate=0.01, weight_decay=0.1, shard=True))
VIEWS = Views(seed=3, count=2, augment=Augment(flip=True, shift=0.1))
LESSON = Lesson(SubclassHierarchy.from_parent([0, 0, 1, 1]), torch.arange(48) % 4, select_by="log_loss")
IMAGES = np.random.default_rng(0).integers(0, 256, (48, 1, 8, 8), dtype=np.uint8)
PIXELS = Pixels(IMAGES, torch.arange(30), torch.arange(30, 48), positive=1)
STOP = 5  # steps of 12


class Block(nn.Module):
    """Batch normalisation, and 7 channels, which two processes cannot halve."""

    def __init__(self):
        super().__init__()
        self.layer, self.norm = nn.Conv2d(7, 7, 3, padding=1, bias=False), nn.BatchNorm2d(7)

    def forward(self, x):
        return x + self.norm(self.layer(x)).relu()


class Net(nn.Module):
    """Six blocks between two layers, and a weight of which one process has all, in float64."""

    def __init__(self, seed=0):
        super().__init__()
        torch.manual_seed(seed)
        self.shift, self.stem = nn.Parameter(torch.zeros(1, 8, 8)), nn.Conv2d(1, 7, 3, stride=2)
        self.blocks = nn.Sequential(*(Block() for _ in range(6)))
        self.head = nn.Linear(7, 4)
        self.double()

    def forward(self, images):
        return self.head(self.blocks(self.stem(images.double() + self.shift)).mean((2, 3)))


class Kept(Checkpoint):
    """Writes one at each step, is gone after so many, and knows how much of what it writes lies in this process."""

    def __init__(self, path, left=-1):
        super().__init__(path, "r", seconds=0.0, writes=current().leads)
        self.left, self.bytes = left, {}

    def write(self, tensors, place):
        if self.left == 0:
            raise InterruptedError
        super().write(tensors, place)
        self.left -= 1
        own = {name: getattr(tensor, "to_local", lambda tensor=tensor: tensor)() for name, tensor in tensors.items()}
        for kind in ("model", "optimizer"):
            weights = [
                tensor for name, tensor in own.items() if name.startswith(kind) and tensor.dtype == torch.float64
            ]
            self.bytes[kind] = sum(tensor.nbytes for tensor in weights)


def fit(kept=None, network=None):
    """Train the network by this process's team, and give its best weights and history."""
    fabric, team = make_fabric(STUDY), current()
    abreast = teacher_fabric(STUDY) if team.count > 1 else None
    [trained] = train_together(
        [network or Net()], [LESSON], PIXELS, VIEWS, STUDY.teacher, fabric, 1, checkpoint=kept, abreast=abreast
    )
    return trained


def answered():
    """Give targets (2, 30, 4) of two teachers for 21 and 9 images, 6 and 3 batches, and logits of an image."""
    fabric, team = teacher_fabric(STUDY), current()
    teachers = [fabric.setup_module(Net(seed)) for seed in (1, 2)]
    member_of = (torch.arange(30) % 10 > 6).long()
    feed = Feed(IMAGES, PIXELS.train, fabric)
    made = targets.compute(teachers, feed, VIEWS, fabric, 4, member_of=member_of, team=team)
    share = team.share(1)
    one = predict(teachers[0], Feed(IMAGES, PIXELS.train[:1][share], fabric), fabric)
    return {"targets": made, "one": team.whole(one, share, 1)}


def main(rank, folder):
    os.environ |= {"LOCAL_RANK": str(rank), "NODE_RANK": "0"}
    meeting = distributed.FileStore(str(folder / "store"), 2)
    distributed.init_process_group("gloo", store=meeting, rank=rank, world_size=2)
    team = Team(rank, 2, rank)
    enter(team)
    network, at_once = Net(), []

    def count(*_):
        at_once.append(sum(weight.numel() for weight in network.parameters() if not hasattr(weight, "full_tensor")))

    for block in network.blocks:
        block.register_forward_hook(count)
    kept = Kept(folder / "from-two", left=STOP)
    try:
        fit(kept, network)
    except InterruptedError:
        (folder / f"held-{rank}.json").write_text(json.dumps(kept.bytes | {"at_once": max(at_once)}))
    results = {"whole": fit(Kept(folder / "whole")), "went-on": fit(Kept(folder / "from-one"))}
    made = answered()
    if team.leads:
        for name, (weights, history) in results.items():
            losses = [[epoch.loss, epoch.validation_log_loss, epoch.validation_f1] for epoch in history]
            store.save(folder / f"{name}.safetensors", weights, "r", {"losses": losses})
        store.save(folder / "made.safetensors", made, "r", {})
    distributed.barrier()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

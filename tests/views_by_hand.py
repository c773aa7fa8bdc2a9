"""What the tests of augmentations share: pictures, and a view's draws by numpy's documented generator."""

import math

import numpy as np
import torch

from subclass_kd.augment import GROUPS

OFF = {"flip": False, "shift": 0.0}
SAMPLES = torch.arange(4000)


def pictures(count, channels=3, size=24, seed=0):
    """Give noise with some structure: blocks of 4 pixels, in 16 of the 256 values at the ends too."""
    values = np.random.default_rng(seed).integers(0, 256, (count, channels, size // 4, size // 4))
    blocks = np.repeat(np.repeat(values, 4, axis=2), 4, axis=3)
    noise = np.random.default_rng(seed + 1).integers(-20, 21, blocks.shape)
    return torch.from_numpy(np.clip(blocks + noise, 0, 255).astype(np.uint8))


def draws_of(views, group, view=1, samples=SAMPLES):
    """Give a group's draws from numpy's documented generator: Philox, the group's number in the counter's last word."""
    counter = [0, 0, 0, list(GROUPS).index(group)]
    stream = np.random.Generator(np.random.Philox(key=[views.seed, view], counter=counter))
    table = stream.random((int(samples.max()) + 1, GROUPS[group]), dtype=np.float32)
    return table[samples.numpy()].astype(np.float64)


def within_4_errors(values, mean):
    values = np.asarray(values, dtype=np.float64)
    return abs(values.mean() - mean) < 4 * values.std() / math.sqrt(len(values))

"""What one epoch of training did. Apart from training.py, so that a process that only hears of it needs no torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """What one epoch did: mean training loss and its parts, validation log loss (nats) and F1 (0 to 1)."""

    epoch: int
    loss: float
    hard: float
    soft: float
    validation_log_loss: float
    validation_f1: float
    seconds: float

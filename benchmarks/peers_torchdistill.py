"""torchdistill's ``DistillationBox``, configured as its examples are; a contender of ``benchmarks.peers``.

Conventions: ``KDLoss`` is alpha CE + (1 - alpha) T^2 KL, so its alpha is 1 less ours; at its alpha 0 it would drop T^2.
``reduction="batchmean"`` makes both parts the mean over the batch. Version 1.1.5 leaves the teacher in the mode that it
came in, so it is put into evaluation mode before. It keeps no teacher's outputs: the teacher runs at each step.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn
from torch.utils.data import SequentialSampler
from torchdistill.core.distillation import get_distillation_box

from benchmarks.peers_common import Best, Split, Task, Trained, layout, run
from benchmarks.peers_loader import InTaskOrder, SoftPart, Transformed, log_loss


def configuration(task: Task) -> dict[str, Any]:
    """Give what the YAML file of an example holds under "train"."""
    logits = {f"{role}_module_{key}": value for role in ("student", "teacher") for key, value in LOGITS.items()}
    loss = {"temperature": task.temperature, "alpha": 1 - task.alpha, "reduction": "batchmean"}
    in_order = functools.partial(InTaskOrder, task=task)
    optimizer = {"lr": task.learning_rate, "weight_decay": task.weight_decay, "fused": True}
    forward = {"forward_proc": "forward_batch_only", "sequential": [], "frozen_modules": []}
    return {
        "num_epochs": task.epochs,
        "train_data_loader": {
            "dataset_id": "train",
            "sampler": {"class_or_func": in_order},
            "kwargs": {"batch_size": task.batch_size, "num_workers": 0},
        },
        "val_data_loader": {
            "dataset_id": "validation",
            "sampler": {"class_or_func": SequentialSampler},
            "kwargs": {"batch_size": 256, "num_workers": 0},
        },
        "teacher": {**forward, "requires_grad": False},
        "student": {**forward, "requires_grad": True},
        "optimizer": {"key": "AdamW", "kwargs": optimizer},
        "scheduler": {"key": "LambdaLR", "kwargs": {"lr_lambda": task.rate}, "scheduling_step": 1},
        "criterion": {
            "key": "WeightedSumLoss",
            "kwargs": {
                "sub_terms": {"kd": {"criterion": {"key": "KDLoss", "kwargs": {**logits, **loss}}, "weight": 1.0}}
            },
        },
    }


LOGITS = {"path": ".", "io": "output"}


def train(task: Task, splits: dict[str, Split], teacher: nn.Module, student: nn.Module) -> Trained:
    """Train the student in torchdistill's box, as its example image_classification.py does."""
    for network in (teacher, student):
        network.to(memory_format=layout(task))
    images = {"train": Transformed(splits["train"], task.shift), "validation": Transformed(splits["validation"])}
    box = get_distillation_box(teacher, student, images, configuration(task), torch.device("cpu"), None, False, 1)
    soft_part = None if task.shift else SoftPart(student, task)
    best, history = Best(), []
    for epoch in range(box.num_epochs):
        box.pre_epoch_process(epoch=epoch)
        losses = []
        for batch, labels, supplement in box.train_data_loader:
            loss = box.forward_process(batch, labels, supplement)
            soft = soft_part.of(loss, labels) if soft_part else loss
            losses.append(torch.stack([loss, soft]).detach())
            box.post_forward_process(loss=loss)
        total, soft = torch.stack(losses).mean(0).tolist()
        history.append((total, soft if soft_part else None))
        best.see(student, log_loss(student, box.val_data_loader))
        box.post_epoch_process()
    return Trained(best.weights, history)


if __name__ == "__main__":
    run(train)

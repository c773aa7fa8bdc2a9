"""timm's ``LogitDistillationTask``, in a loop like that of its train.py; a contender of ``benchmarks.peers``.

Conventions: ``task_loss_weight`` is 1 - alpha, and alone it makes ``distill_loss_weight`` alpha; the soft part is
T^2 KL, the mean over the batch, as ours. The task brings the student's normalisation to the teacher's by their
``pretrained_cfg``; here both networks normalise inside, so both are said to have mean 0 and spread 1. ``timm.optim``
spares biases and norms from weight decay unless told not to, as here.
"""

from __future__ import annotations

import torch
from timm.optim import create_optimizer_v2
from timm.task import DistillationTeacher, LogitDistillationTask
from torch import nn
from torch.utils.data import DataLoader

from benchmarks.peers_common import Best, Split, Task, Trained, layout, run
from benchmarks.peers_loader import InTaskOrder, Transformed, log_loss


def train(task: Task, splits: dict[str, Split], teacher: nn.Module, student: nn.Module) -> Trained:
    """Train the student with timm's task."""
    channels = splits["train"].images.shape[1]
    for network in (teacher, student):
        network.pretrained_cfg = {"mean": (0.0,) * channels, "std": (1.0,) * channels}  # type: ignore[assignment]
        network.to(memory_format=layout(task))
    distillation = LogitDistillationTask(
        student,
        DistillationTeacher(teacher),
        nn.CrossEntropyLoss(),
        task_loss_weight=1 - task.alpha,
        temperature=task.temperature,
    )
    optimizer = create_optimizer_v2(
        student, "adamw", lr=task.learning_rate, weight_decay=task.weight_decay, filter_bias_and_bn=False, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, task.rate)
    trained_on = Transformed(splits["train"], task.shift)
    loader = DataLoader(trained_on, task.batch_size, sampler=InTaskOrder(trained_on, task))
    validation = DataLoader(Transformed(splits["validation"]), 256)
    best, history = Best(), []
    for _ in range(task.epochs):
        distillation.train()
        losses = []
        for images, labels in loader:
            result = distillation(images.contiguous(memory_format=layout(task)), labels)
            optimizer.zero_grad()
            result["loss"].backward()
            optimizer.step()
            schedule.step()
            losses.append(torch.stack([result["loss"], result["kd_loss"]]).detach())
        history.append(tuple(torch.stack(losses).mean(0).tolist()))
        best.see(student, log_loss(student, validation))
    return Trained(best.weights, history)


if __name__ == "__main__":
    run(train)

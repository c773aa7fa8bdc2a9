"""A plain loop with the teacher in it, written by hand for speed; a contender of ``benchmarks.peers``.

Images lie in memory as one tensor and are augmented a batch at a time; the teacher runs without gradients; AdamW is
fused; nothing waits for a value within an epoch.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.peers_common import Best, Split, Task, Trained, layout, run, score


def distillation_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, temperature: float, alpha: float
) -> tuple[Tensor, Tensor]:
    """Give the batch's mean of alpha T^2 KL + (1 - alpha) CE, and of its soft part, T^2 KL, in nats."""
    student = (student_logits / temperature).log_softmax(-1)  # (B, K)
    teacher = (teacher_logits / temperature).log_softmax(-1)  # (B, K)
    soft = temperature**2 * F.kl_div(student, teacher, reduction="batchmean", log_target=True)
    return alpha * soft + (1 - alpha) * F.cross_entropy(student_logits, labels), soft


class Augmented:
    """Images (n, C, H, W) uint8 that are moved by whole pixels and mirrored a batch at a time; borders are repeated."""

    def __init__(self, images: Tensor, shift: int) -> None:
        self.shift = shift
        padded = F.pad(images.float(), [shift] * 4, mode="replicate").to(torch.uint8)
        height, width = images.shape[2:]
        self.windows = padded.unfold(2, height, 1).unfold(3, width, 1)  # (n, C, 2 shift + 1, 2 shift + 1, H, W), a view

    def batch(self, rows: Tensor) -> Tensor:
        """Give images (B, C, H, W) in [0, 1] of rows (B,)."""
        down, right = torch.randint(0, 2 * self.shift + 1, (2, len(rows)))
        images = self.windows[rows, :, down, right]  # (B, C, H, W)
        if self.shift:
            images = torch.where(torch.rand(len(rows), 1, 1, 1) < 0.5, images.flip(-1), images)
        return images.float() / 255


def train(task: Task, splits: dict[str, Split], teacher: nn.Module, student: nn.Module) -> Trained:
    """Train the student beside its teacher."""
    labels, images = splits["train"].labels, Augmented(splits["train"].images, task.shift)
    teacher.to(memory_format=layout(task))
    student.to(memory_format=layout(task))
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay, fused=True
    )
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, task.rate)
    best, history = Best(), []
    for epoch in range(task.epochs):
        student.train()
        losses = []
        for rows in task.order(epoch).split(task.batch_size):
            seen = images.batch(rows).contiguous(memory_format=layout(task))
            with torch.no_grad():
                taught = teacher(seen)  # (B, K)
            total, soft = distillation_loss(student(seen), taught, labels[rows], task.temperature, task.alpha)
            optimizer.zero_grad(set_to_none=True)
            total.backward()
            optimizer.step()
            schedule.step()
            losses.append(torch.stack([total, soft]).detach())
        history.append(tuple(torch.stack(losses).mean(0).tolist()))
        best.see(student, score(student, splits["validation"])[1])
    return Trained(best.weights, history)


if __name__ == "__main__":
    run(train)

"""One loop that trains teachers and the students of every arm; they differ in what they are taught."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from subclass_kd import curriculum
from subclass_kd.augment import Views
from subclass_kd.batch_norm import OverGlobalBatch
from subclass_kd.checkpoint import Checkpoint, part, restore, state_of
from subclass_kd.config import Network
from subclass_kd.criterion import Criterion
from subclass_kd.data.rows import Images
from subclass_kd.ensemble import Ensemble
from subclass_kd.epoch import Epoch
from subclass_kd.errors import UserError
from subclass_kd.feeding import Feed
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.schedule import warmup_cosine
from subclass_kd.sharding import check_passes, gathered, in_step, is_shared_out
from subclass_kd.team import ALONE, Team, current

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class Lesson:
    """What a network is taught: labels, and a teacher's targets or none.

    Args:
        hierarchy: of the network's outputs; its identity for a network that predicts classes.
        labels: (N,) int64 into the outputs, for every sample of the data.
        targets: what the teacher says: its logits (V, n, K) for each view of each training image, in the order of
            ``train``; or a function that gives them, (B, K), for images (B, C, H, W) in [0, 1]; or None.
        temperature, alpha, hard_target, within_class: as in :func:`subclass_kd.losses.subclass_distillation`.
        weights: (N,) how much each sample counts, a mean of 1 over the training images; None for all alike.
        stage: (N,) the stage of a curriculum in which each training image enters; None for all at once.
        select_by: what chooses the best epoch on the validation split: "f1" of the positive class for a network that
            decides, "log_loss" of its own labels for one whose probabilities are passed on.
    """

    hierarchy: SubclassHierarchy
    labels: Tensor
    targets: Tensor | Callable[[Tensor], Tensor] | None = None
    temperature: float = 1.0
    alpha: float = 0.0
    hard_target: Literal["subclass", "class"] = "subclass"
    weights: Tensor | None = None
    stage: NDArray[np.int64] | None = None
    select_by: Literal["f1", "log_loss"] = "f1"
    within_class: float = 1.0


@dataclass(frozen=True)
class Pixels:
    """The images and the rows that a training may see: no test row is among them.

    Args:
        images: (N, C, H, W) uint8.
        train, validation: row numbers, (n,) int64.
        positive: number of the class that F1 speaks of.
        unlabelled: (u,) row numbers of images of which only a teacher speaks, or None.
    """

    images: Images
    train: Tensor
    validation: Tensor
    positive: int
    unlabelled: Tensor | None = None

    @property
    def rows(self) -> Tensor:
        """Row numbers of all images to learn from, (n + u,), those with a label first."""
        return self.train if self.unlabelled is None else torch.cat([self.train, self.unlabelled])


@dataclass(frozen=True)
class Place:
    """Where a training is: the epoch that it is in, from 0, how many of its steps are done, and what went before.

    Args:
        epoch, step: as said.
        seconds: that the epoch took so far.
        histories: of each network, the epochs that are over, as plain values.
    """

    epoch: int = 0
    step: int = 0
    seconds: float = 0.0
    histories: list[list[dict[str, Any]]] = field(default_factory=list)


def train(
    model: nn.Module,
    lesson: Lesson,
    pixels: Pixels,
    views: Views,
    network: Network,
    fabric: Fabric,
    seed: int,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    layout: torch.memory_format = torch.contiguous_format,
) -> tuple[dict[str, Tensor], list[Epoch]]:
    """Train a network and give the weights of its best epoch by validation, with the history of all.

    As :func:`train_together` with one network; see there.
    """
    trained = train_together(
        [model], [lesson], pixels, views, network, fabric, seed, lambda _, epoch: on_epoch(epoch), layout
    )
    return trained[0]


def train_together(
    models: Sequence[nn.Module],
    lessons: Sequence[Lesson],
    pixels: Pixels,
    views: Views,
    network: Network,
    fabric: Fabric,
    seed: int,
    on_epoch: Callable[[int, Epoch], None] = lambda number, epoch: None,
    layout: torch.memory_format = torch.contiguous_format,
    checkpoint: Checkpoint | None = None,
    abreast: Fabric | None = None,
) -> list[tuple[dict[str, Tensor], list[Epoch]]]:
    """Train networks on the same images, and give of each the weights of its best epoch, with the history of all.

    Several learn as one :class:`subclass_kd.ensemble.Ensemble`, each as if alone.

    Epoch e sees view e mod V of every training image, in an order fixed by (seed, e): all arms of a seed see the same
    images in the same order and take the same number of steps. With a curriculum the early epochs see the easy images
    only, several times each, in as many steps. AdamW (Loshchilov, Hutter 2017,
    https://arxiv.org/abs/1711.05101), the learning rate rising over the first 5 % of the steps and falling to zero
    along a cosine.

    Args:
        models: M networks, of one form if more than one; each gives logits (B, K) for images (B, C, H, W) in [0, 1].
        lessons: what each is taught; of one stage, if any, and with the same sample weights.
        pixels: the images.
        views: their augmentations.
        network: epochs, batch size, learning rate, weight decay, compile.
        fabric: device and precision.
        seed: fixes order and dropout.
        on_epoch: called after each epoch with the number of each network.
        layout: in which weights and images lie in memory; changes speed, and the last digits.
        checkpoint: keeps how far this is, and says where to go on; the result is that of a training without a stop.
        abreast: the devices of this process's team, of which ``fabric`` is this process's own; each computes its share
            of every batch. None for one device.

    Returns:
        Of each network, the weights of the best epoch on the CPU, by name, in a team's first process alone; and what
        each epoch did.

    Raises:
        UserError: a loss is no longer finite, or there are more devices than images in a batch.
    """
    team = current() if abreast else ALONE
    # Stacked weights have five dimensions, for which channels last means something else.
    model = models[0].to(memory_format=layout) if len(models) == 1 else Ensemble(models)
    rows, steps = pixels.rows, math.ceil(len(pixels.train) / network.batch_size)
    rate = warmup_cosine(network.epochs * steps)
    _check_shares(team, len(pixels.train), steps, network)
    learner, decay = (abreast or fabric).setup_module(model), network.weight_decay
    optimizer = torch.optim.AdamW(model.parameters(), lr=network.learning_rate, weight_decay=decay, fused=True)
    learning: Any = (abreast or fabric).setup_optimizers(optimizer)
    # Alone: validation is no step of a team, but where each process has a part of the weights.
    judged = fabric.setup_module(model) if abreast and not is_shared_out(model) else learner
    normalised = OverGlobalBatch() if abreast else nullcontext()
    if network.compile:
        torch._dynamo.reset()  # what this process trained before must not decide what is compiled now
    forward = torch.compile(learner, dynamic=False) if network.compile else learner

    # Everything that a step reads lies on the device before the first, so that no step waits for the host.
    share = team.share(len(pixels.validation))
    feed, validation = (Feed(pixels.images, own, fabric) for own in (rows, pixels.validation[share]))
    if is_shared_out(model):
        check_passes(model, as_input(feed.blank(), layout))
    criteria = [Criterion(lesson, rows, len(pixels.train), fabric) for lesson in lessons]
    given = lessons[0].weights
    weights = None if given is None else fabric.to_device(given[rows])  # (n + u,)
    histories: list[list[Epoch]] = [[] for _ in models]
    kept: list[dict[str, Tensor]] = [{} for _ in models]
    torch.manual_seed(seed)  # dropout
    device, place = fabric.device, Place()
    earlier = checkpoint.read() if checkpoint else None
    _check_same(team, Place(**earlier[1]) if earlier else place)
    if earlier:
        tensors, place = earlier[0], Place(**earlier[1])
        restore(tensors, model, optimizer, device)
        if team.leads:
            kept = [part(tensors, f"kept.{member}.") for member in range(len(models))]
        before = tensors["parts"]
        del tensors, earlier  # whole weights, which a process that holds a share need not keep
        histories = [[Epoch(**epoch) for epoch in history] for history in place.histories]
        for member, history in enumerate(histories):
            for epoch in history:
                on_epoch(member, epoch)

    def keep(checkpoint: Checkpoint, place: Place, parts: Tensor) -> None:
        best = {f"kept.{member}.{name}": own for member in range(len(models)) for name, own in kept[member].items()}
        told = [[asdict(epoch) for epoch in history] for history in histories]
        tensors = state_of(model, optimizer, device) | best | {"parts": team.total(parts.clone())}
        checkpoint.write(tensors, asdict(replace(place, histories=told)))

    for number in range(place.epoch, network.epochs):
        started = time.perf_counter() - place.seconds
        learner.train()
        view = number if views.count is None else number % views.count
        draws = views.draws(rows, view)
        draws = None if draws is None else fabric.to_device(draws)  # (n + u, D)
        for criterion in criteria:
            criterion.begin(view)
        order = _order(lessons[0], pixels, seed * 1_000_003, number, network.epochs)  # (n,)
        # Batches of nearly one size: a last batch of one image would break batch normalisation.
        batches = order.tensor_split(steps)
        seen_rows = fabric.to_device(order)  # (n,)
        shares = [team.share(len(batch)) for batch in batches]
        # Read once an epoch, and kept in one piece: small ones between what each step takes and gives back would let
        # memory grow with the steps.
        parts = torch.zeros(2 * len(lessons), len(order), device=fabric.device)  # total and hard of each network
        done = sum(len(batch) for batch in batches[: place.step])
        if done and team.leads:  # the others' are added up
            parts[:, :done] = before.to(device)
        own_batches = [batch[share] for batch, share in zip(batches, shares, strict=True)]
        left = zip(seen_rows.tensor_split(steps)[place.step :], feed.batches(own_batches[place.step :]), strict=True)
        for step, (every, images) in enumerate(left, place.step):
            share = shares[step]
            batch = every[share]  # of which this device computes so many, B
            for group in optimizer.param_groups:
                group["lr"] = network.learning_rate * rate(number * steps + step)
            if abreast:  # dropout: other numbers on each device, and after a stop the same
                torch.manual_seed((seed + number * steps + step) * team.count + team.rank)
            seen = as_input(images if draws is None else views.render(images, draws[batch]), layout)
            with normalised:
                logits = forward(seen)  # (M, B, K), or (B, K) of one
            found = [ask(own, batch, seen) for ask, own in zip(criteria, _by_model(logits), strict=True)]
            # Each network's gradient is that of its own mean.
            means = [(loss.total if weights is None else loss.total * weights[batch]).mean() for loss in found]
            # Gradients are averaged over devices: weighed so, the mean of theirs is that of the whole batch.
            weight = len(batch) * team.count / len(every)
            (abreast or fabric).backward(weight * sum(means[1:], means[0]))
            learning.step()
            learning.zero_grad(set_to_none=True)
            own = slice(done + share.start, done + share.stop)
            parts[:, own] = torch.stack([part.detach() for loss in found for part in loss])
            done += len(every)
            if checkpoint and step + 1 < steps and checkpoint.due_in(team):
                keep(checkpoint, Place(number, step + 1, time.perf_counter() - started), parts[:, :done])
        answers = predict(judged, validation, fabric, layout=layout)
        predicted = _by_model(
            team.whole(answers, team.share(len(pixels.validation)), len(pixels.validation))
        )  # (n, K) each
        team.total(parts)
        seconds = time.perf_counter() - started
        for member, (lesson, history) in enumerate(zip(lessons, histories, strict=True)):
            log_loss, f1 = _judge(predicted[member], lesson, pixels)
            total, hard, soft = criteria[member].means(parts[2 * member], parts[2 * member + 1], seen_rows)
            _check_finite(total + log_loss, network, number + 1)
            history.append(Epoch(number + 1, total, hard, soft, log_loss, f1, seconds))
            if best_epoch(history, lesson) is history[-1]:
                state = model.member_state(member) if isinstance(model, Ensemble) else model.state_dict()
                kept[member] = gathered(state, team.leads)
            on_epoch(member, history[-1])
        place = Place(number + 1)
        if checkpoint and number + 1 < network.epochs and checkpoint.due_in(team):
            keep(checkpoint, place, parts[:, :0])
    return list(zip(kept, histories, strict=True))


def _check_shares(team: Team, images: int, steps: int, network: Network) -> None:
    if team.count > images // steps:
        where = f'key "{type(network).__name__.lower()}.batch_size"'
        found = f"{network.batch_size}, and with it {images // steps} images in a batch for {team.count} devices"
        raise UserError(where, found, "an image for each device at least", "Take fewer devices.")


def _check_same(team: Team, place: Place) -> None:
    """Refuse a checkpoint that other processes of the team do not see: they would wait for each other without end."""
    if any(team.largest(number) != -team.largest(-number) for number in (place.epoch, place.step)):
        raise UserError("a checkpoint", "another on another machine", "a run folder that all nodes see alike")


def _by_model(logits: Tensor) -> tuple[Tensor, ...]:
    """Part logits (M, B, K) by network; (B, K) are those of one."""
    return logits.unbind() if logits.ndim == 3 else (logits,)


class Diverged(UserError):  # noqa: N818 - as UserError says it
    """The loss is no longer finite: the learning rate is too large."""


def _check_finite(loss: float, network: Network, epoch: int) -> None:
    if not math.isfinite(loss):
        where = f'key "{type(network).__name__.lower()}.learning_rate"'
        found = f"{network.learning_rate}, with which the loss is no longer finite in epoch {epoch}"
        raise Diverged(where, found, "a rate at which training converges", "Lower it.")


def _order(lesson: Lesson, pixels: Pixels, seed: int, number: int, epochs: int) -> Tensor:
    """Give the order (n,) in which epoch ``number`` sees images; a curriculum repeats the easy ones.

    Images without labels make no epoch longer: all are seen in one order, which goes on from epoch to epoch.
    """
    count, total = len(pixels.train), len(pixels.rows)
    if lesson.stage is not None:
        stage = lesson.stage[pixels.train.numpy()]
        # A member of a cross-fitted teacher may have no image of the first stage: it begins with the first that it has.
        admitted = curriculum.admitted(stage - stage.min(), number, epochs)
        return torch.from_numpy(curriculum.order(admitted, seed + number))
    first, last = number * count // total, ((number + 1) * count - 1) // total  # rounds through all images
    rounds = [
        torch.randperm(total, generator=torch.Generator().manual_seed(seed + each)) for each in range(first, last + 1)
    ]
    return torch.cat(rounds)[number * count - first * total :][:count]


def best_epoch(history: list[Epoch], lesson: Lesson) -> Epoch:
    """Give the epoch whose weights were kept; the first of equals."""
    return max(history, key=lambda epoch: _merit(epoch, lesson))


def _merit(epoch: Epoch, lesson: Lesson) -> tuple[float, float]:
    by_loss = -epoch.validation_log_loss
    return (by_loss, epoch.validation_f1) if lesson.select_by == "log_loss" else (epoch.validation_f1, by_loss)


def _judge(logits: Tensor, lesson: Lesson, pixels: Pixels) -> tuple[float, float]:
    """Give (log loss of the outputs' labels in nats, F1 of the positive class) of logits (n, K) on validation."""
    labels = lesson.labels[pixels.validation]
    log_loss = F.cross_entropy(logits, labels).item()
    decided = lesson.hierarchy.class_log_probs(logits).argmax(-1) == pixels.positive
    truly = lesson.hierarchy.class_labels(labels) == pixels.positive
    hits = int((decided & truly).sum())
    return log_loss, 2 * hits / max(1, int(decided.sum()) + int(truly.sum()))


@torch.no_grad()
def predict(
    model: nn.Module,
    feed: Feed,
    fabric: Fabric,
    batch_size: int = 512,
    layout: torch.memory_format = torch.contiguous_format,
) -> Tensor:
    """Give a network's logits for some images as they are, and leave it in evaluation mode.

    Args:
        model: on the fabric's device.
        feed: of the n images.
        fabric: device and precision.
        batch_size: images at once.
        layout: in which images lie in memory.

    Returns:
        (n, K) float32 on the CPU; of an ensemble, (M, n, K).
    """
    model.eval()
    order = torch.split(torch.arange(len(feed)), batch_size)
    logits, done = torch.empty(0), 0
    with in_step(model, len(order), as_input(feed.blank(), layout)):
        for images in feed.batches(order):
            part = model(as_input(images, layout)).float()  # (B, K), or (M, B, K)
            if done == 0:
                logits = part.new_empty(
                    *part.shape[:-2], len(feed), part.shape[-1]
                )  # in one piece, as the losses above
            logits[..., done : done + len(images), :] = part
            done += len(images)
    return logits.cpu()


def as_input(images: Tensor, layout: torch.memory_format = torch.contiguous_format) -> Tensor:
    """Turn pixels (B, C, H, W), 0 to 255, into [0, 1]."""
    return images.to(dtype=torch.float32, memory_format=layout) / 255

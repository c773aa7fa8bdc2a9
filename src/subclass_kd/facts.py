"""What a diagnosis needs to know and only the files of a run can tell: small numbers for results.json."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn

from subclass_kd import store
from subclass_kd.build import seeded_model
from subclass_kd.hierarchy import as_labels

if TYPE_CHECKING:
    from subclass_kd.config import Study
    from subclass_kd.data.rows import Samples
    from subclass_kd.hierarchy import SubclassHierarchy

LEAST_ALPHA = 0.5  # with less, the student follows the labels more than the targets
SURE = 0.99  # a target whose largest probability is above this says hardly more than a label


class Part(Protocol):
    """A run folder with the samples that its networks learned from: all of a study, or a fold."""

    @property
    def samples(self) -> Samples:
        """Labels and splits."""

    @property
    def out(self) -> Path:
        """The run folder."""


def facts(study: Study, parts: Sequence[Part]) -> dict[str, Any]:
    """Measure what :func:`subclass_kd.diagnosis.diagnose` needs beside results.json, for the arm ``skd``.

    Args:
        study: the resolved study.
        parts: one, or a fold each, with the files of ``skd`` and its teacher.

    Returns:
        ``networks``: how many teachers and students were looked at, seeds times parts; ``temperature``; ``targets``, as
        of :func:`target_facts`; ``embedding`` (:func:`embedding_width` of the student); ``unlearned``, the share of
        what the targets tell that the student does not give back at its end, on the images it was trained on: its mean
        divergence from them in the last epoch, over ``targets.information``. It is None where that is 0, where
        ``distillation.within_class`` weights the divergence, where ``distillation.alpha`` is below 0.5, and where there
        are ``distillation.unlabelled`` images.
        All are means over the networks. Empty without ``skd``.
    """
    if "skd" not in study.arms:
        return {}
    study = study.of_arm("skd")
    temperature = study.distillation.temperature
    found, shares = [], []
    for part in parts:
        samples = part.samples
        labels = torch.from_numpy(samples.subclass_labels[samples.train])
        for seed in study.seeds:
            stored = store.load(part.out / f"targets/subclass-seed{seed}.safetensors")["logits"]  # (V, n, K)
            logits = stored[0, : len(labels)]  # the image itself, and none without a label
            found.append(target_facts(logits, labels, samples.hierarchy, temperature))
            last = store.notes(part.out / f"students/skd-seed{seed}.safetensors")["history"][-1]
            # Stored in nats and with the square of the temperature, which keeps the size of gradients
            divergence = last["soft"] / temperature**2 / math.log(2)
            if found[-1]["information"] > 0:
                shares.append(divergence / found[-1]["information"])
    # What the student is asked to match is another thing where these say so
    other = study.distillation.within_class != 1.0 or study.distillation.alpha < LEAST_ALPHA
    other |= study.distillation.unlabelled  # the divergence is then of more images than the information
    samples = parts[0].samples
    outputs = samples.hierarchy.num_subclasses
    # Which weights it starts from is nothing to its shape, and may have to be downloaded
    student = study.student.model_copy(update={"pretrained": False})
    return {
        "networks": len(found),
        "temperature": temperature,
        "targets": _means(found),
        "embedding": embedding_width(seeded_model(student, outputs, samples, 0), outputs),
        "unlearned": None if other or not shares else statistics.mean(shares),
    }


def target_facts(
    logits: Tensor, labels: Tensor, hierarchy: SubclassHierarchy, temperature: float = 1.0
) -> dict[str, float]:
    r"""What a teacher's targets tell a student beside the labels, at the temperature at which they are told.

    With :math:`p_n = \mathrm{softmax}(z_n / T)`, H the entropy in bits and c the true class of image n,

    - ``sure``: share of the images with :math:`\max_k p_{nk} > 0.99`, whose targets are nearly one-hot;
    - ``within_class``: mean of :math:`H(p_n(s|c))`, how open the subclass stays where the class is known;
    - ``entropy``: mean of :math:`H(p_n)`; log2 K would be a guess;
    - ``information``: :math:`H(\bar p) - \mathrm{mean}\, H(p_n)`, what the targets tell about each image.

    Args:
        logits: (N, K), finite.
        labels: (N,) true subclasses.
        hierarchy: of the K subclasses.
        temperature: T > 0.

    Returns:
        ``images`` (N), and the four: a share, and bits >= 0.

    Raises:
        ValueError: shapes disagree.

    >>> from subclass_kd import SubclassHierarchy
    >>> logits = torch.tensor([[0.5, 0.25, 0.25], [0.998, 0.001, 0.001]]).log()
    >>> found = target_facts(logits, torch.tensor([0, 0]), SubclassHierarchy.from_parent([0, 0, 1]))
    >>> found["sure"], round(found["entropy"], 3)
    (0.5, 0.761)
    """
    hierarchy.check_logits(logits)
    if labels.shape != logits.shape[:1] or logits.ndim != 2 or not len(labels):
        raise ValueError(
            f"found targets of shape {tuple(logits.shape)} and labels of {tuple(labels.shape)}, but (N, K) and (N,) "
            "with N >= 1 were expected. Give one label a row."
        )
    log_probs = (logits.double() / temperature).log_softmax(-1)  # (N, K)
    in_class = hierarchy.parent == hierarchy.class_labels(as_labels(labels)).unsqueeze(-1)  # (N, K)
    within = torch.where(in_class, log_probs, -torch.inf).log_softmax(-1)  # (N, K)
    entropy = _entropy(log_probs.exp()).mean()
    return {
        "images": len(labels),
        "sure": (log_probs.exp().amax(-1) > SURE).double().mean().item(),
        "within_class": _entropy(within.exp()).mean().item(),
        "entropy": entropy.item(),
        "information": max(0.0, (_entropy(log_probs.exp().mean(0)) - entropy).item()),  # rounding alone is below
    }


def embedding_width(model: nn.Module, outputs: int) -> int | None:
    """Give how many numbers the last layer makes its logits of, or None where no such layer is found.

    That layer is the last ``Linear`` or 1x1 convolution of the network that has as many outputs as there are logits:
    the head of the small networks and of timm's.

    >>> embedding_width(nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10)), outputs=10)
    32
    """
    widths = [
        layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        for layer in model.modules()
        if (isinstance(layer, nn.Linear) and layer.out_features == outputs)
        or (isinstance(layer, nn.Conv2d) and layer.out_channels == outputs and layer.kernel_size == (1, 1))
    ]
    return widths[-1] if widths else None


def _entropy(probabilities: Tensor) -> Tensor:
    """Entropy in bits over the last dimension."""
    bits: Tensor = torch.special.entr(probabilities).sum(-1) / math.log(2)
    return bits


def _means(rows: Sequence[Mapping[str, float]]) -> dict[str, float]:
    return {name: statistics.mean(row[name] for row in rows) for name in rows[0]}

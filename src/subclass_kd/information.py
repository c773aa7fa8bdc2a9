"""Label bits: how much a teacher's subclass predictions tell beyond the class, in bits a sample.

On the data that a student learns from, this is what subclasses add to the channel from teacher to student.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import torch

from subclass_kd.hierarchy import as_labels

if TYPE_CHECKING:
    from torch import Tensor

    from subclass_kd.hierarchy import SubclassHierarchy


class LabelBits(NamedTuple):
    """Label bits by three estimators, their ceiling, and the accuracy; ``label_bits`` defines each."""

    symmetric: float
    mutual_information: float
    soft: float
    ceiling: float
    accuracy: float


def symmetric_label_bits(num_subclasses: int, accuracy: float) -> float:
    r"""Bits beyond the class from a teacher that errs evenly: the capacity of a symmetric channel with s symbols.

    .. math:: \log_2 s + P \log_2 P + (1 - P) \log_2 \frac{1 - P}{s - 1}

    With :math:`0 \log 0 = 0` it is log2 s at P = 1, 0 at P = 1/s, log2(s / (s - 1)) at P = 0 (to be always wrong tells
    something, too), and 0 for s = 1. Müller, Kornblith, Hinton 2020, Subclass Distillation, section 4.1.1, https://arxiv.org/abs/2002.03936

    Args:
        num_subclasses: s >= 1, those of one class.
        accuracy: P from 0 to 1, the share of samples whose subclass is named rightly, given the right class.

    Returns:
        Bits a sample, from 0 to log2 s.

    Raises:
        ValueError: num_subclasses below 1, or accuracy outside 0 to 1.

    >>> round(symmetric_label_bits(5, 0.73), 5), round(symmetric_label_bits(2, 0.8782), 5)
    (0.94046, 0.46549)
    """
    if num_subclasses < 1:
        raise ValueError(f"found {num_subclasses} subclasses, but a class has at least 1. Count those of one class.")
    if not 0 <= accuracy <= 1:
        raise ValueError(
            f"found accuracy {accuracy}, but a share from 0 to 1 was expected. Divide a percentage by 100."
        )
    if num_subclasses == 1:
        return 0.0
    shares = [(accuracy, accuracy), (1 - accuracy, (1 - accuracy) / (num_subclasses - 1))]
    bits = math.log2(num_subclasses) + sum(share * math.log2(each) for share, each in shares if share > 0)
    return max(0.0, bits)  # rounding alone brings it below


def label_bits(subclass_log_probs: Tensor, subclass_labels: Tensor, hierarchy: SubclassHierarchy) -> LabelBits:
    r"""Bits that subclass predictions carry about the true subclass when the true class is known, by three estimators.

    .. math:: p(s|c,x) = \frac{p(s|x)}{\sum_{k \in c} p(k|x)}, \quad \hat s = \mathrm{argmax}_{s \in c} \, p(s|c,x)

    c is the true class, p(s|c) the frequency of a label in it. The results are

    - ``symmetric``: ``symmetric_label_bits`` of each class (its :math:`s_c` from the hierarchy, its share of
      :math:`\hat s` that are right), averaged by class frequency (Müller, Kornblith, Hinton 2020, section 4.1.1, https://arxiv.org/abs/2002.03936);
    - ``mutual_information``: :math:`I(S; \hat S | C)` of the confusion matrix, no symmetry assumed, not corrected for
      the upward bias of few samples (our definition);
    - ``soft``: the mean of :math:`\mathrm{KL}(p(s|c,x) \| p(s|c))`, what the soft posterior claims; a teacher too sure
      of itself takes it above the ceiling (our definition);
    - ``ceiling``: :math:`H(S|C)` of the labels, which ``mutual_information`` cannot pass;
    - ``accuracy``: the share of all :math:`\hat s` that are right, from 0 to 1, no bits.

    A tie goes to the first subclass. A posterior of zero on the whole true class says nothing of its subclasses and is
    taken for p(s|c), which carries 0 soft bits. A subclass without a sample is left out of ``soft`` (the posterior is
    renormalised over the others); a class without a sample weighs nothing.

    Args:
        subclass_log_probs: (N, K), log-probabilities or logits, which renormalising within the class makes the same;
            -inf is a probability of zero. Computed in float64 on the CPU.
        subclass_labels: (N,), integers from 0 to K-1, N >= 1.
        hierarchy: of the K subclasses.

    Returns:
        Named tuple of floats, all but the accuracy in bits a sample and >= 0.

    Raises:
        ValueError: no samples, shapes or K differ, labels not integers or out of range, or a NaN or +inf among the
            log-probabilities.

    >>> from subclass_kd import SubclassHierarchy
    >>> hierarchy = SubclassHierarchy.from_parent([0, 0, 1, 1])
    >>> label_bits(torch.eye(4).log(), torch.arange(4), hierarchy)
    LabelBits(symmetric=1.0, mutual_information=1.0, soft=1.0, ceiling=1.0, accuracy=1.0)
    """
    hierarchy.check_logits(subclass_log_probs)
    if (
        subclass_labels.shape != subclass_log_probs.shape[:1]
        or subclass_log_probs.ndim != 2
        or not len(subclass_labels)
    ):
        raise ValueError(
            f"found log-probabilities of shape {tuple(subclass_log_probs.shape)} and labels of "
            f"{tuple(subclass_labels.shape)}, but (N, K) and (N,) with N >= 1 were expected. Give one label a row."
        )
    log_probs = subclass_log_probs.detach().to("cpu", torch.float64)  # (N, K)
    refused = (log_probs.isnan() | log_probs.isposinf()).any(-1)  # (N,)
    if refused.any():
        raise ValueError(
            f"found NaN or +inf in {int(refused.sum())} of {len(refused)} rows of log-probabilities, the first in row "
            f"{int(refused.int().argmax())}, but numbers or -inf were expected. Did the teacher's training diverge?"
        )

    labels = as_labels(subclass_labels.cpu())  # (N,)
    class_labels = hierarchy.class_labels(labels)  # (N,)
    in_class = hierarchy.parent == class_labels.unsqueeze(-1)  # (N, K)
    counts = labels.bincount(minlength=hierarchy.num_subclasses)  # (K,)
    class_counts = class_labels.bincount(minlength=hierarchy.num_classes)  # (C,)
    log_prior = (counts.double() / class_counts[hierarchy.parent]).log()  # (K,) log p(s|c), -inf without a sample

    prediction = _posterior(log_probs, in_class, log_prior).argmax(-1)  # (N,)
    right = prediction == labels  # (N,)
    right_counts = class_labels[right].bincount(minlength=hierarchy.num_classes)  # (C,)
    symmetric = sum(
        found * symmetric_label_bits(hierarchy.parent_indices.count(c), named / found)
        for c, (found, named) in enumerate(zip(class_counts.tolist(), right_counts.tolist(), strict=True))
        if found
    )

    # S determines C, and so does the prediction: to condition on C is to take H(C) from the entropy of each.
    ceiling = _entropy_bits(counts) - _entropy_bits(class_counts)
    pairs = (labels * hierarchy.num_subclasses + prediction).bincount()  # (up to K*K,) the confusion matrix
    mutual_information = ceiling + _entropy_bits(prediction.bincount()) - _entropy_bits(pairs)

    posterior = _posterior(log_probs, in_class & (counts > 0), log_prior)  # (N, K)
    divergence = torch.where(posterior > 0, posterior * (posterior.log() - log_prior), 0).sum(-1)  # (N,) nats
    return LabelBits(
        symmetric=symmetric / len(labels),
        mutual_information=max(0.0, mutual_information),  # here and below, rounding alone brings it below
        soft=max(0.0, divergence.mean().item() / math.log(2)),
        ceiling=max(0.0, ceiling),
        accuracy=right.double().mean().item(),
    )


def _posterior(log_probs: Tensor, kept: Tensor, log_prior: Tensor) -> Tensor:
    """Probabilities (N, K) renormalised over the subclasses kept (N, K), or the prior (K,) where none is left."""
    shut = torch.where(kept, log_probs, -torch.inf)  # (N, K)
    nothing = shut.isneginf().all(-1, keepdim=True)  # (N, 1)
    return torch.where(kept & nothing, log_prior, shut).softmax(-1)


def _entropy_bits(counts: Tensor) -> float:
    """Entropy of the distribution that counts, of any shape, stand for."""
    return float(torch.special.entr(counts.double() / counts.sum()).sum()) / math.log(2)

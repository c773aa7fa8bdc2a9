"""The losses, as pure functions: tensors in, one value per sample out; the mean is the caller's.

All are computed in float32 or wider, so they may be called under autocast with half-precision logits. None looks at the
values of a tensor, so none makes the host wait for a GPU.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple

from subclass_kd.hierarchy import as_labels, centred

if TYPE_CHECKING:
    from torch import Tensor

    from subclass_kd.hierarchy import SubclassHierarchy


class DistillationLoss(NamedTuple):
    """A distillation loss and its two parts, each (N,) in nats: total = alpha * soft + (1 - alpha) * hard."""

    total: Tensor
    hard: Tensor
    soft: Tensor


class SoftParts(NamedTuple):
    """The two parts of ``distillation`` on subclasses, each (N,) in nats: they add up to it."""

    of_class: Tensor
    within_class: Tensor


class MixedTargets(NamedTuple):
    """Targets (N, K) of one cross-entropy, and how much it exceeds the distillation loss, (N,) in nats."""

    probs: Tensor
    excess: Tensor


def distillation(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Divergence of the student's softened prediction from the teacher's, per sample.

    .. math:: T^2 \sum_k p^t_k (\log p^t_k - \log p^s_k), \quad p = \mathrm{softmax}(z / T)

    The factor :math:`T^2` keeps gradients of one size when T changes (Hinton, Vinyals, Dean 2015, Distilling the
    Knowledge in a Neural Network, section 2, https://arxiv.org/abs/1503.02531).

    Args:
        student_logits: (N, K), any float dtype, finite.
        teacher_logits: (N, K), finite; no gradient flows into it.
        temperature: T > 0; 1 keeps the teacher's own probabilities.

    Returns:
        (N,) in nats, >= 0 up to rounding.

    Raises:
        ValueError: shapes differ, or temperature is not above 0.

    >>> import torch
    >>> distillation(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log(), temperature=1.0)
    tensor([0.1308])
    """
    return _divergence(*_softened(student_logits, teacher_logits, temperature), temperature)  # (N,)


def soft_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> Tensor:
    r"""Cross-entropy of the student's softened prediction under the teacher's, per sample.

    .. math:: -T^2 \sum_k p^t_k \log p^s_k, \quad p = \mathrm{softmax}(z / T)

    It exceeds ``distillation`` by the teacher's entropy times :math:`T^2`, so its gradient is the same (Hinton,
    Vinyals, Dean 2015, section 2, https://arxiv.org/abs/1503.02531).

    Args:
        student_logits: (N, K), any float dtype, finite.
        teacher_logits: (N, K), finite; no gradient flows into it.
        temperature: T > 0; 1 keeps the teacher's own probabilities.

    Returns:
        (N,) in nats, >= 0.

    Raises:
        ValueError: shapes differ, or temperature is not above 0.

    >>> import torch
    >>> soft_cross_entropy(torch.tensor([[0.0, 0.0]]), torch.tensor([[0.75, 0.25]]).log(), temperature=1.0)
    tensor([0.6931])
    """
    student, teacher = _softened(student_logits, teacher_logits, temperature)  # (N, K) each
    return -(temperature**2) * (teacher.exp() * student).sum(-1)  # (N,)


def distillation_parts(
    student_logits: Tensor, teacher_logits: Tensor, hierarchy: SubclassHierarchy, temperature: float
) -> SoftParts:
    r"""What the divergence of the student's softened subclasses says of the class, and of the subclass inside it.

    By the chain rule of relative entropy (Cover, Thomas 2006, Elements of Information Theory, theorem 2.5.3,
    https://doi.org/10.1002/047174882X), with p the softened probabilities of ``distillation``:

    .. math:: T^2 \sum_k p^t_k \log \frac{p^t_k}{p^s_k}
        = \underbrace{T^2 \sum_c p^t(c) \log \frac{p^t(c)}{p^s(c)}}_{\text{of class}}
        + \underbrace{T^2 \sum_c p^t(c) \sum_{k \in c} p^t(k|c) \log \frac{p^t(k|c)}{p^s(k|c)}}_{\text{within class}}

    where p(c) is the sum of the class's softened subclass probabilities. The first part is ``distillation`` through the
    class channel alone; the second is what subclasses add.

    Args:
        student_logits: (N, K), any float dtype, finite.
        teacher_logits: (N, K), finite; no gradient flows into it.
        hierarchy: of the K subclasses.
        temperature: T > 0; subclasses are softened first and then summed to classes.

    Returns:
        Named tuple of ``of_class`` and ``within_class``, each (N,) in nats, >= 0 up to rounding.

    Raises:
        ValueError: shapes or K differ, or temperature is not above 0.

    >>> import torch
    >>> from subclass_kd import SubclassHierarchy
    >>> teacher, student = torch.tensor([[0.4, 0.2, 0.4]]).log(), torch.tensor([[0.25, 0.25, 0.5]]).log()
    >>> distillation_parts(student, teacher, SubclassHierarchy.from_parent([0, 0, 1]), temperature=1.0)
    SoftParts(of_class=tensor([0.0201]), within_class=tensor([0.0340]))
    """
    hierarchy.check_logits(student_logits)
    return _parts(*_softened(student_logits, teacher_logits, temperature), hierarchy, temperature)


def class_cross_entropy(subclass_logits: Tensor, class_labels: Tensor, hierarchy: SubclassHierarchy) -> Tensor:
    r"""Cross-entropy of the class label, whose probability is that of its subclasses together.

    .. math:: -\log p(y|x) = \log \sum_k e^{z_k} - \log \sum_{k \in y} e^{z_k}

    Müller, Kornblith, Hinton 2020, Subclass Distillation, equation 1, https://arxiv.org/abs/2002.03936

    Args:
        subclass_logits: (N, K), any float dtype, finite.
        class_labels: (N,), integers from 0 to C-1.
        hierarchy: of K subclasses in C classes.

    Returns:
        (N,) in nats, >= 0.

    Raises:
        ValueError: logits do not have K columns, or labels are not (N,) or not integers.

    >>> import torch
    >>> from subclass_kd import SubclassHierarchy
    >>> hierarchy = SubclassHierarchy.from_parent([0, 0, 1])
    >>> class_cross_entropy(torch.tensor([[0.25, 0.5, 0.25]]).log(), torch.tensor([0]), hierarchy).exp()
    tensor([1.3333])
    """
    return _cross_entropy(hierarchy.class_log_probs(subclass_logits), class_labels)


def subclass_distillation(
    student_logits: Tensor,
    teacher_logits: Tensor,
    subclass_labels: Tensor,
    hierarchy: SubclassHierarchy,
    *,
    temperature: float,
    alpha: float,
    hard_target: Literal["subclass", "class"] = "subclass",
    within_class: float = 1.0,
) -> DistillationLoss:
    r"""Subclass knowledge distillation: the teacher's softened subclasses and the true label, weighted.

    .. math:: \alpha \, T^2 \mathrm{KL}(p^t \| p^s) + (1 - \alpha) \, \mathrm{CE}(y, z^s)

    The soft term is ``distillation``: the cross-entropy of soft targets less a constant of the teacher, so of the same
    gradient and 0 when student and teacher agree. The hard term is the cross-entropy of the subclass label, or of its
    class through ``class_cross_entropy``. With ``SubclassHierarchy.identity`` it is conventional distillation. With
    ``within_class`` other than 1 the soft term is the first of ``distillation_parts`` and that multiple of the second.
    Sajedi, Plataniotis 2021, On the Efficiency of Subclass Knowledge Distillation in Classification Tasks,
    https://arxiv.org/abs/2109.05587 (its equations reconstructed, its hard target an open point); the class target is
    that of Müller, Kornblith, Hinton 2020, https://arxiv.org/abs/2002.03936

    Args:
        student_logits: (N, K), any float dtype, finite.
        teacher_logits: (N, K), finite; no gradient flows into it.
        subclass_labels: (N,), integers from 0 to K-1.
        hierarchy: of the K subclasses.
        temperature: T > 0, of the soft term only.
        alpha: weight of the soft term, 0 to 1.
        hard_target: what the hard term asks for, the "subclass" or the "class".
        within_class: weight, at least 0, of the soft term's part about subclasses inside a class; 0 leaves the class.

    Returns:
        Named tuple of ``total``, ``hard`` and ``soft``, each (N,) in nats; ``soft`` already carries :math:`T^2`.

    Raises:
        ValueError: shapes or K differ, temperature, alpha, hard_target or within_class out of range, or labels not
            integers.

    >>> import torch
    >>> from subclass_kd import SubclassHierarchy
    >>> hierarchy, logits = SubclassHierarchy.from_parent([0, 0, 1, 1]), torch.zeros(1, 4)
    >>> subclass_distillation(logits, logits, torch.tensor([3]), hierarchy, temperature=4.0, alpha=0.5)
    DistillationLoss(total=tensor([0.6931]), hard=tensor([1.3863]), soft=tensor([0.]))
    """
    hierarchy.check_logits(student_logits)
    _check_alpha(alpha)
    if not 0 <= within_class < math.inf:
        raise ValueError(
            f"found within_class {within_class}, but a finite weight of at least 0 was expected. Choose 0 to 10, say."
        )
    student, teacher = _softened(student_logits, teacher_logits, temperature)  # (N, K) each
    if within_class == 1 or hierarchy.num_subclasses == hierarchy.num_classes:  # no class has anything within
        soft = _divergence(student, teacher, temperature)  # (N,), as ``distillation``
    else:
        of_class, within = _parts(student, teacher, hierarchy, temperature)  # (N,) each
        soft = of_class + within_class * within
    if hard_target == "subclass":
        # At a temperature of 1 the student's prediction is already there.
        log_probs = student if temperature == 1 else centred(student_logits).log_softmax(-1)
        hard = _cross_entropy(log_probs, subclass_labels)
    elif hard_target == "class":
        class_labels = hierarchy.class_labels(subclass_labels, check_range=False)  # (N,)
        hard = class_cross_entropy(student_logits, class_labels, hierarchy)
    else:
        raise ValueError(
            f'found hard_target {hard_target!r}, but "subclass" or "class" was expected. Choose one of the two.'
        )
    return DistillationLoss(alpha * soft + (1 - alpha) * hard, hard, soft)


def mixed_targets(teacher_logits: Tensor, subclass_labels: Tensor, alpha: float) -> MixedTargets:
    r"""The teacher's prediction and the label as one target, whose cross-entropy is subclass distillation at T = 1.

    .. math:: q = \alpha \, p^t + (1 - \alpha) \, e_y, \quad
        -\sum_k q_k \log p^s_k = \alpha \, \mathrm{KL}(p^t \| p^s) + (1 - \alpha) \, \mathrm{CE}(y, z^s)
        + \alpha \, \mathrm{H}(p^t)

    with :math:`e_y` the one-hot label. The last term, the excess, is a constant of the teacher, so the gradient is that
    of ``subclass_distillation`` with a temperature of 1 and the "subclass" as hard target, for about half of the work
    (linearity of cross-entropy in its target; Hinton, Vinyals, Dean 2015, section 2,
    https://arxiv.org/abs/1503.02531).

    Args:
        teacher_logits: (N, K), finite; no gradient flows into it.
        subclass_labels: (N,), integers from 0 to K-1.
        alpha: weight of the teacher, 0 to 1.

    Returns:
        Named tuple of ``probs`` (N, K), rows that add up to 1, and ``excess`` (N,) in nats, >= 0.

    Raises:
        ValueError: alpha out of range, or labels not (N,) or not integers.

    >>> import torch
    >>> mixed_targets(torch.tensor([[0.5, 0.5]]).log(), torch.tensor([1]), alpha=0.5)
    MixedTargets(probs=tensor([[0.2500, 0.7500]]), excess=tensor([0.3466]))
    """
    _check_alpha(alpha)
    log_probs = centred(teacher_logits.detach()).log_softmax(-1)  # (N, K)
    _check_labels(log_probs, subclass_labels)
    probs = log_probs.exp()
    excess = -alpha * (probs * log_probs).sum(-1)  # (N,)
    rest = probs.new_full((*probs.shape[:-1], 1), 1 - alpha)  # (N, 1)
    return MixedTargets((alpha * probs).scatter_add_(-1, as_labels(subclass_labels).unsqueeze(-1), rest), excess)


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(
            f"found alpha {alpha}, but it weights the soft term and must be from 0 to 1. Choose such a weight."
        )


def _divergence(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Divergence (N,) of log-probabilities (N, K), times the temperature squared."""
    divergence = (teacher.exp() * (teacher - student)).sum(-1)  # (N,)
    return divergence if temperature == 1 else temperature**2 * divergence


def _parts(student: Tensor, teacher: Tensor, hierarchy: SubclassHierarchy, temperature: float) -> SoftParts:
    """Part the divergence of log-probabilities (N, K); what is not of the class is within it."""
    whole = _divergence(student, teacher, temperature)  # (N,)
    of_class = _divergence(hierarchy.class_log_probs(student), hierarchy.class_log_probs(teacher), temperature)
    return SoftParts(of_class, whole - of_class)


def _softened(student_logits: Tensor, teacher_logits: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Log-probabilities at the temperature, the student's and the teacher's, the latter cut off from its gradient."""
    if student_logits.shape != teacher_logits.shape:
        raise ValueError(
            f"found student logits of shape {tuple(student_logits.shape)} and teacher logits of shape "
            f"{tuple(teacher_logits.shape)}, but the two must be equal. Take both from one hierarchy and one batch."
        )
    if not 0 < temperature < math.inf:
        raise ValueError(
            f"found temperature {temperature}, but a finite number above 0 was expected. Choose 1 to 10, say."
        )
    # At a temperature of 1, the default, a step that is small enough to feel it is spared the division.
    student, teacher = (
        (centred(logits) if temperature == 1 else centred(logits) / temperature).log_softmax(-1)
        for logits in (student_logits, teacher_logits.detach())
    )
    return student, teacher


def _cross_entropy(log_probs: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy (N,) of labels (N,); unlike torch's, it knows no label that is silently left out (-100)."""
    _check_labels(log_probs, labels)
    return -log_probs.gather(-1, as_labels(labels).unsqueeze(-1)).squeeze(-1)


def _check_labels(log_probs: Tensor, labels: Tensor) -> None:
    if labels.shape != log_probs.shape[:-1]:
        raise ValueError(
            f"found labels of shape {tuple(labels.shape)} with logits of {tuple(log_probs.shape)}, "
            f"but {tuple(log_probs.shape[:-1])} was expected. Give one label a sample."
        )

"""Metrics of one model's predictions on one split, and their summary over seeds.

Each metric comes from scikit-learn or torchmetrics; what is decided here is which columns it sees and what it says when
it is not defined: ``None``, which JSON writes as null, never NaN.
"""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats
from sklearn.metrics import accuracy_score, f1_score, recall_score, roc_auc_score
from torchmetrics.functional.classification import multiclass_calibration_error


def class_metrics(
    class_probs: NDArray[np.floating], class_labels: NDArray[np.integer], positive: int
) -> dict[str, float | None]:
    r"""Metrics of results.json at class level; the decision is the class of the highest probability.

    With :math:`p_{nc}` the probabilities, :math:`y_n` the labels, :math:`\hat y_n = \arg\max_c p_{nc}`, and tp, fp, fn
    the counts of the positive class against the rest:

    - ``f1``: 2 tp / (2 tp + fp + fn) of the positive class; 0 where it is neither present nor predicted.
      ``f1_macro``: mean F1 of the classes that are present or predicted.
    - ``auroc``: C = 2, of the positive class's probability; C > 2, mean of the C one-against-rest areas.
    - ``accuracy``; ``balanced_accuracy``: mean recall of the classes present.
    - ``sensitivity``: recall of the positive class; ``specificity``: recall of "not the positive class".
    - ``brier``: C = 2, mean :math:`(p_{n,\text{positive}} - [y_n = \text{positive}])^2`, in [0, 1]; C > 2, mean of
      :math:`\sum_c (p_{nc} - [y_n = c])^2`, in [0, 2] (Brier 1950,
      https://doi.org/10.1175/1520-0493(1950)078%3C0001:VOFEIT%3E2.0.CO;2).
    - ``ece``: :math:`\sum_b \frac{n_b}{N} |\text{accuracy}_b - \text{confidence}_b|` over 15 bins of equal width of the
      highest probability (Guo et al. 2017, https://arxiv.org/abs/1706.04599).

    Args:
        class_probs: (N, C), in [0, 1], rows sum to 1; C >= 2, N >= 1.
        class_labels: (N,), integers in [0, C).
        positive: index of the positive class, in [0, C).

    Returns:
        Metric name -> value in [0, 1] (``brier`` as above), all but ``brier`` and ``ece`` better when higher. ``None``
        where the labels leave it undefined: ``auroc`` if a class is absent, ``sensitivity`` without a positive,
        ``specificity`` without a negative.

    Raises:
        ValueError: shapes disagree, a label or ``positive`` is no class, or the rows are not probabilities.

    >>> probs = np.array([[0.9, 0.1], [0.4, 0.6], [0.7, 0.3], [0.2, 0.8]])
    >>> metrics = class_metrics(probs, np.array([0, 0, 1, 1]), positive=1)
    >>> {name: round(value, 4) for name, value in metrics.items() if name in ("f1", "auroc", "brier")}
    {'f1': 0.5, 'auroc': 0.75, 'brier': 0.225}
    """
    _check_scores(class_probs, class_labels, "class_probs", "class_labels")
    num_classes = class_probs.shape[1]
    if not 0 <= positive < num_classes:
        raise ValueError(f"positive: found {positive}, expected a class index from 0 to {num_classes - 1}.")
    # float32 softmax rows miss 1 by about 1e-7; logits and log-probabilities miss it by far more than 1e-3
    if (class_probs < 0).any() or (abs(class_probs.sum(axis=1) - 1) > 1e-3).any():
        raise ValueError("class_probs: found rows that are not probabilities, expected values >= 0 that sum to 1.")

    predictions = class_probs.argmax(axis=1)  # (N,)
    is_positive, called_positive = class_labels == positive, predictions == positive  # (N,) each
    present = np.unique(class_labels)
    # With two classes the second column repeats the first, so only the positive one counts
    columns = [positive] if num_classes == 2 else list(range(num_classes))
    scores = class_probs[:, columns]  # (N, 1) or (N, C)
    truth = class_labels[:, None] == columns  # likewise
    auroc = (
        np.mean([roc_auc_score(*pair) for pair in zip(truth.T, scores.T, strict=True)])
        if len(present) == num_classes
        else math.nan
    )
    ece = multiclass_calibration_error(
        # torchmetrics takes values outside [0, 1], even by one rounding error, for logits and applies a softmax
        torch.from_numpy(class_probs.clip(0, 1)),
        torch.from_numpy(class_labels),
        num_classes=num_classes,
        n_bins=15,
    )
    metrics = {
        "f1": f1_score(is_positive, called_positive, zero_division=0),
        "f1_macro": f1_score(class_labels, predictions, average="macro", zero_division=0),
        "auroc": auroc,
        "accuracy": accuracy_score(class_labels, predictions),
        # recall_score, because balanced_accuracy_score warns when a class is predicted but absent
        "balanced_accuracy": recall_score(class_labels, predictions, labels=present, average="macro"),
        "sensitivity": recall_score(is_positive, called_positive, zero_division=math.nan),
        "specificity": recall_score(~is_positive, ~called_positive, zero_division=math.nan),
        "brier": ((scores - truth) ** 2).sum(axis=1).mean(),
        "ece": ece,
    }
    return {name: _number(value) for name, value in metrics.items()}


def subclass_accuracy(subclass_log_probs: NDArray[np.floating], subclass_labels: NDArray[np.integer]) -> float:
    """Share of samples whose highest of all K subclass scores, whatever its class, is the true subclass's.

    Args:
        subclass_log_probs: (N, K); probabilities or logits give the same answer. N >= 1.
        subclass_labels: (N,), integers in [0, K).

    Returns:
        Accuracy in [0, 1].

    Raises:
        ValueError: shapes disagree, a label is no subclass, or a score is NaN.

    >>> subclass_accuracy(np.log([[0.7, 0.2, 0.1], [0.1, 0.2, 0.7]]), np.array([0, 1]))
    0.5
    """
    _check_scores(subclass_log_probs, subclass_labels, "subclass_log_probs", "subclass_labels")
    return float(accuracy_score(subclass_labels, subclass_log_probs.argmax(axis=1)))


def summarise(per_seed: Sequence[float | None]) -> dict[str, Any]:
    r"""Mean of a metric over seeds, with Student's interval.

    .. math:: \bar x \pm t_{0.975,\, S-1} \; s / \sqrt{S}, \quad s^2 = \tfrac{1}{S-1} \sum_j (x_j - \bar x)^2

    The interval tells where the mean over many more seeds would lie **on these same test images**; it knows nothing of
    other images and it is not cut at 0 or 1. Arms are compared by :mod:`subclass_kd.comparison`, never by looking
    whether two of these intervals overlap (Student 1908, https://doi.org/10.1093/biomet/6.1.1).

    Args:
        per_seed: S >= 1 values, any unit; ``None`` where the metric is undefined.

    Returns:
        ``mean``, ``std``, ``ci95`` [low, high] and ``per_seed``. ``std`` and ``ci95`` are ``None`` with one seed; all
        three are ``None`` if any value is.

    Raises:
        ValueError: no values.

    >>> summarise([0.80, 0.82, 0.84])["ci95"]
    [0.77031..., 0.86968...]
    """
    if not per_seed:
        raise ValueError("per_seed: found no values, expected one for each seed.")
    summary: dict[str, Any] = {"mean": None, "std": None, "ci95": None, "per_seed": list(per_seed)}
    values = [value for value in per_seed if value is not None]
    seeds = len(values)
    if seeds < len(per_seed):
        return summary
    mean = float(np.mean(values))
    summary["mean"] = mean
    if seeds > 1:
        std = float(np.std(values, ddof=1))
        half_width = float(stats.t.ppf(0.975, seeds - 1)) * std / math.sqrt(seeds)
        summary |= {"std": std, "ci95": [mean - half_width, mean + half_width]}
    return summary


def _number(value: Any) -> float | None:
    """A plain float, ``None`` for NaN."""
    number = float(value)
    return None if math.isnan(number) else number


def _check_scores(
    scores: NDArray[np.floating], labels: NDArray[np.integer], scores_name: str, labels_name: str
) -> None:
    """Refuse scores (N, columns) and labels (N,) that do not belong together."""
    if scores.ndim != 2 or scores.shape[1] < 2 or labels.shape != scores.shape[:1] or len(labels) == 0:
        raise ValueError(
            f"{scores_name} and {labels_name}: found shapes {scores.shape} and {labels.shape}, "
            "expected (N, columns) and (N,) with N >= 1 and at least 2 columns."
        )
    if np.isnan(scores).any():
        raise ValueError(f"{scores_name}: found NaN in {np.isnan(scores).any(axis=1).sum()} of {len(scores)} rows.")
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(f"{labels_name}: found {labels.min()} to {labels.max()}, expected 0 to {scores.shape[1] - 1}.")

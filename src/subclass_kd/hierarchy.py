"""Which subclass belongs to which class, and what subclass logits say about the classes.

This is the only room that indexes subclasses. It names torch in annotations only: the command line refuses a wrong
hierarchy before torch is loaded, so torch is imported in the one place that makes tensors.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from operator import index
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    import torch
    from torch import Tensor


@dataclass(frozen=True, init=False, repr=False)
class SubclassHierarchy:
    """Classes, their subclasses, and the way from one to the other; immutable and compared by value.

    The order of the subclasses is the order of a model's outputs; those of one class need not stand together.

    Args:
        classes: names of the C >= 2 classes, in the order of the class labels.
        subclasses: subclass name -> class name, in the order of the subclass labels; each class has at least one.

    Raises:
        ValueError: fewer than two classes, a name given twice, a class without a subclass, or a subclass of an unknown
            class.

    >>> SubclassHierarchy(["upper", "lower"], {"shirt": "upper", "boot": "lower", "coat": "upper"}).parent
    tensor([0, 1, 0])
    """

    classes: tuple[str, ...]
    subclasses: tuple[str, ...]
    parent_indices: tuple[int, ...]  # (K,) class of each subclass; the same as parent, without torch

    def __init__(self, classes: Sequence[str], subclasses: Mapping[str, str]) -> None:
        _refuse_repeated("class", classes)
        if len(classes) < 2:
            raise ValueError(f"found classes {list(classes)}, but a hierarchy needs at least two. Name the others too.")
        place = {name: position for position, name in enumerate(classes)}
        for subclass, parent in subclasses.items():
            if parent not in place:
                raise ValueError(
                    f"subclass {subclass!r} belongs to class {parent!r}, but the classes are {list(classes)}. "
                    "Correct its class, or add the class."
                )
        for name in classes:
            if name not in subclasses.values():
                raise ValueError(
                    f"class {name!r} has no subclass, but each class needs at least one. "
                    "Give it one (the class itself will do), or remove the class."
                )
        # The dataclass is frozen, so the fields are set past its guard.
        object.__setattr__(self, "classes", tuple(classes))
        object.__setattr__(self, "subclasses", tuple(subclasses))
        object.__setattr__(self, "parent_indices", tuple(place[parent] for parent in subclasses.values()))

    @classmethod
    def from_parent(cls, parent: Sequence[int]) -> Self:
        """Hierarchy with made-up names from the class index of each subclass.

        Args:
            parent: (K,) integers from 0 to C-1, each at least once.

        Raises:
            ValueError: an index left out or below 0, or fewer than two classes; TypeError: not integers.

        >>> SubclassHierarchy.from_parent([0, 1, 0])
        SubclassHierarchy(classes=('class 0', 'class 1'),
          subclasses={'subclass 0': 'class 0', 'subclass 1': 'class 1', 'subclass 2': 'class 0'})
        """
        indices = [index(position) for position in parent]
        classes = [f"class {position}" for position in range(max(indices, default=-1) + 1)]
        return cls(classes, {f"subclass {k}": f"class {position}" for k, position in enumerate(indices)})

    @classmethod
    def identity(cls, classes: Sequence[str]) -> Self:
        """Hierarchy in which each class is its only subclass, for a model whose outputs are the classes.

        Raises:
            ValueError: fewer than two classes, or a name given twice.

        >>> SubclassHierarchy.identity(["upper", "lower"])
        SubclassHierarchy(classes=('upper', 'lower'), subclasses={'upper': 'upper', 'lower': 'lower'})
        """
        return cls(classes, {name: name for name in classes})

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        """Hierarchy from what ``to_dict`` gave, or from the same read back from JSON.

        Raises:
            ValueError: as the class, and a subclass name given twice; KeyError: a key is missing.

        >>> hierarchy = SubclassHierarchy.from_parent([0, 1, 0])
        >>> SubclassHierarchy.from_dict(hierarchy.to_dict()) == hierarchy
        True
        """
        rows = content["subclasses"]
        _refuse_repeated("subclass", [row["name"] for row in rows])
        return cls(content["classes"], {row["name"]: row["class"] for row in rows})

    def to_dict(self) -> dict[str, Any]:
        """Lists and strings for JSON; a list of subclasses, so that their order outlives sorted keys.

        >>> SubclassHierarchy.identity(["a", "b"]).to_dict()
        {'classes': ['a', 'b'], 'subclasses': [{'name': 'a', 'class': 'a'}, {'name': 'b', 'class': 'b'}]}
        """
        rows = [{"name": name, "class": parent} for name, parent in self._class_of_each().items()]
        return {"classes": list(self.classes), "subclasses": rows}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(classes={self.classes}, subclasses={self._class_of_each()})"

    def _class_of_each(self) -> dict[str, str]:
        return {name: self.classes[c] for name, c in zip(self.subclasses, self.parent_indices, strict=True)}

    @property
    def num_classes(self) -> int:
        """C, at least 2."""
        return len(self.classes)

    @property
    def num_subclasses(self) -> int:
        """K, at least C: the number of outputs of a model of the subclasses."""
        return len(self.subclasses)

    @property
    def parent(self) -> Tensor:
        """(K,) long tensor on the CPU: the class index of each subclass; a new one each time, so yours to change."""
        return _tensors(self.parent_indices, "cpu")[0].clone()

    def class_log_probs(self, subclass_logits: Tensor) -> Tensor:
        r"""Log-probability of each class: that of its subclasses together.

        .. math:: \log p(c|x) = \log \sum_{k \in c} e^{z_k} - \log \sum_k e^{z_k}

        Müller, Kornblith, Hinton 2020, Subclass Distillation, equation 1, https://arxiv.org/abs/2002.03936

        Args:
            subclass_logits: (..., K), any float dtype, finite; log-probabilities will do.

        Returns:
            (..., C) in nats, <= 0, in float32 or wider.

        Raises:
            ValueError: the last dimension is not K.

        >>> import torch
        >>> hierarchy = SubclassHierarchy.from_parent([0, 1, 0, 1])
        >>> hierarchy.class_log_probs(torch.tensor([[1.0, 3.0, 2.0, 2.0]]).log()).exp()
        tensor([[0.3750, 0.6250]])
        """
        self.check_logits(subclass_logits)
        _, members, gate = _tensors(self.parent_indices, subclass_logits.device)
        # One gather of C*S columns (S: subclasses of the largest class) is many times quicker than a (C, K) mask when
        # K is large. Its padding repeats a column of the class and is shut by the gate, so it has no gradient.
        of_class = centred(subclass_logits).index_select(-1, members)  # (..., C*S)
        # Normalising over the classes, not over the subclasses, keeps each value <= 0 in spite of rounding.
        return (of_class.view(*of_class.shape[:-1], *gate.shape) + gate).logsumexp(-1).log_softmax(-1)  # (..., C)

    def class_labels(self, subclass_labels: Tensor, *, check_range: bool = True) -> Tensor:
        """Class of each subclass label.

        Args:
            subclass_labels: any shape, integers from 0 to K-1.
            check_range: look at the values first. On a GPU this waits for the device, so a training step says False and
                leaves a label out of range to the device's own assertion.

        Returns:
            Class labels, long, of the same shape and on the same device.

        Raises:
            ValueError: labels are not integers, or one is out of range.

        >>> import torch
        >>> SubclassHierarchy.from_parent([0, 1, 0, 1]).class_labels(torch.tensor([2, 3]))
        tensor([0, 1])
        """
        labels = as_labels(subclass_labels)
        if check_range:
            wrong = labels[(labels < 0) | (labels >= self.num_subclasses)]
            if len(wrong):
                raise ValueError(
                    f"found subclass label {wrong[0].item()} ({len(wrong)} of {labels.numel()} out of range), "
                    f"but 0 to {self.num_subclasses - 1} were expected. Correct the labels, or the hierarchy."
                )
        parent = _tensors(self.parent_indices, labels.device)[0]  # (K,)
        # Not parent[labels]: that would take -1 for the last subclass.
        return parent.index_select(0, labels.flatten()).view(labels.shape)

    def check_logits(self, subclass_logits: Tensor) -> None:
        """Refuse logits whose last dimension is not K.

        Raises:
            ValueError: it is not.

        >>> import torch
        >>> SubclassHierarchy.from_parent([0, 1, 0, 1]).check_logits(torch.zeros(8, 3))
        Traceback (most recent call last):
        ValueError: found subclass logits of shape (8, 3), but (..., 4) was expected, one column for each subclass. ...
        """
        if subclass_logits.ndim == 0 or subclass_logits.shape[-1] != self.num_subclasses:
            raise ValueError(
                f"found subclass logits of shape {tuple(subclass_logits.shape)}, but (..., {self.num_subclasses}) was "
                "expected, one column for each subclass. Change the model's outputs, or the hierarchy."
            )


def centred(logits: Tensor) -> Tensor:
    """Logits less the largest of each sample, in float32 or wider: the same probabilities.

    Done first, this keeps the digits that a large common offset, a small temperature or half precision would cost.

    Args:
        logits: (..., K), any float dtype.

    Returns:
        (..., K), <= 0.

    >>> import torch
    >>> centred(torch.tensor([10001.0, 10000.5]))
    tensor([ 0.0000, -0.5000])
    """
    wide = logits.float() if logits.dtype.itemsize < 4 else logits
    # Probabilities do not depend on the offset, so no gradient is lost with it.
    return wide - wide.detach().amax(-1, keepdim=True)


def as_labels(labels: Tensor) -> Tensor:
    """Labels as a long tensor; their values are not looked at.

    Raises:
        ValueError: the dtype is not one of integers.

    >>> import torch
    >>> as_labels(torch.tensor([2, 0], dtype=torch.uint8))
    tensor([2, 0])
    """
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"found labels of dtype {labels.dtype}, but integers were expected. Give indices, as by .long()."
        )
    return labels.long()


def _refuse_repeated(kind: str, names: Iterable[str]) -> None:
    seen = set()
    for name in names:
        if name in seen:
            raise ValueError(f"found {kind} {name!r} twice, but names must differ. Rename or remove one.")
        seen.add(name)


@lru_cache(maxsize=64)
def _tensors(parent: tuple[int, ...], device: torch.device | str) -> tuple[Tensor, Tensor, Tensor]:
    """Parent (K,), columns of each class (C*S,) and their gate (C, S), kept per device so that no step copies them."""
    import torch  # here alone, and late: see the top of the file

    columns = [[k for k, of in enumerate(parent) if of == c] for c in range(max(parent) + 1)]
    longest = max(map(len, columns))
    members = [column + column[:1] * (longest - len(column)) for column in columns]
    gate = [[0.0] * len(column) + [-torch.inf] * (longest - len(column)) for column in columns]
    # Made first under inference_mode, they could not serve a training step later.
    with torch.inference_mode(False):
        return (
            torch.tensor(parent, device=device),
            torch.tensor(members, device=device).flatten(),
            torch.tensor(gate, device=device, dtype=torch.float32),
        )

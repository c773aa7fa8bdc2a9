"""A trained network as it is deployed: from pixels to calibrated probabilities, in one ONNX graph."""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from subclass_kd.bundle import INPUT
from subclass_kd.bundle_manifest import CLASS_OUTPUT, SUBCLASS_OUTPUT
from subclass_kd.hierarchy import SubclassHierarchy
from subclass_kd.training import as_input

OPSET = 18


class Deployed(nn.Module):
    r"""Pixels as files hold them in, calibrated probabilities out.

    With subclass probabilities :math:`p_k`, class probabilities :math:`p_c = \sum_{k \in c} p_k` and temperature T:

    .. math:: q_c = p_c^{1/T} / \sum_j p_j^{1/T}, \qquad q_k = q_{c(k)} \, p_k / p_{c(k)}

    The temperature is the class question's; inside a class, subclasses share as before.

    Args:
        network: logits (N, outputs) for images (N, C, H, W) in [0, 1]; its normalisation is inside.
        hierarchy: of its outputs; an identity for a network of classes.
        temperature: T > 0.

    >>> hierarchy = SubclassHierarchy.from_parent([0, 0, 1])
    >>> head = nn.Sequential(nn.Flatten(), nn.Linear(1, 3))
    >>> classes, subclasses = Deployed(head, hierarchy, 2.0)(torch.zeros(5, 1, 1, 1, dtype=torch.uint8))
    >>> classes.shape, torch.allclose(classes[:, 0], subclasses[:, 0] + subclasses[:, 1])
    (torch.Size([5, 2]), True)
    """

    parent: Tensor

    def __init__(self, network: nn.Module, hierarchy: SubclassHierarchy, temperature: float) -> None:
        super().__init__()
        self.network, self.hierarchy, self.temperature = network, hierarchy, temperature
        self.subclasses = hierarchy.num_subclasses > hierarchy.num_classes or hierarchy.subclasses != hierarchy.classes
        self.register_buffer("parent", hierarchy.parent, persistent=False)

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Give (N, C) and, for a network of subclasses, (N, K) probabilities of pixels (N, C, H, W) uint8."""
        logits = self.network(as_input(pixels)).float()
        class_log_probs = self.hierarchy.class_log_probs(logits)  # (N, C)
        calibrated = (class_log_probs / self.temperature).log_softmax(-1)
        if not self.subclasses:
            return (calibrated.exp(),)
        change = (calibrated - class_log_probs).index_select(-1, self.parent)  # (N, K)
        return calibrated.exp(), (logits.log_softmax(-1) + change).exp()


def to_onnx(model: Deployed, shape: tuple[int, ...], path: Path) -> None:
    """Write a network as ONNX of opset 18: input ``pixels`` (N, C, H, W) uint8 of any N, one file.

    Args:
        model: on the CPU; left in evaluation mode.
        shape: (C, H, W).
        path: the file; any that is there is replaced.

    Raises:
        Exception: torch cannot export the network; which error is the exporter's affair.
    """
    model.eval()
    example = torch.zeros(2, *shape, dtype=torch.uint8)
    names = [CLASS_OUTPUT, SUBCLASS_OUTPUT] if model.subclasses else [CLASS_OUTPUT]
    logger, said = logging.getLogger("torch.onnx"), io.StringIO()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        # Once before: what the hierarchy keeps must be real tensors, not those that stand for them while one traces.
        # The exporter warns and prints of its own works; whether they are right is seen by the check of parity.
        with torch.no_grad(), warnings.catch_warnings(), contextlib.redirect_stdout(said):
            warnings.simplefilter("ignore")
            model(example)
            torch.onnx.export(
                model,
                (example,),
                path,
                input_names=[INPUT],
                output_names=names,
                opset_version=OPSET,
                dynamo=True,
                dynamic_shapes=({0: torch.export.Dim("images", min=1)},),
                external_data=False,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    _strip(path)


def _strip(path: Path) -> None:
    """Remove what the exporter notes beside the graph: lines of source code with paths of this machine."""
    import onnx

    written = onnx.load(path)
    graph = written.graph
    for part in (written, graph, *graph.node, *graph.input, *graph.output, *graph.value_info, *graph.initializer):
        part.doc_string = ""
        del part.metadata_props[:]
    onnx.checker.check_model(written)
    onnx.save(written, path)

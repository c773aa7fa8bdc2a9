"""The small networks: a residual teacher and a student of a few thousand parameters, for images of 28 to 96 pixels."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Normalised(nn.Module):
    """A network that brings its input, (N, C, H, W) in [0, 1], to its own size, zero mean and unit spread first.

    The statistics travel with the weights, so that a deployed student needs no second file. The size is changed by
    bilinear interpolation with antialiasing (Pillow's bilinear filter, without its rounding to whole numbers).

    Args:
        body: gives logits (N, K) for normalised images (N, C, H, W).
        mean: (C,).
        std: (C,), > 0.
        size: height and width that the body gets; None, or the size that images have, changes nothing.

    >>> import torch
    >>> Normalised(nn.Identity(), torch.tensor([0.5]), torch.tensor([0.25]))(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    mean: Tensor
    std: Tensor

    def __init__(self, body: nn.Module, mean: Tensor, std: Tensor, size: int | None = None) -> None:
        super().__init__()
        self.body, self.size = body, size
        self.register_buffer("mean", mean.reshape(-1, 1, 1).float())
        self.register_buffer("std", std.reshape(-1, 1, 1).float())

    def forward(self, images: Tensor) -> Tensor:
        if self.size is not None and images.shape[-2:] != (self.size, self.size):
            # In float32: mixed precision hands over bfloat16, in which CPUs have no antialiased interpolation.
            images = F.interpolate(images.float(), (self.size, self.size), mode="bilinear", antialias=True)
        logits: Tensor = self.body((images - self.mean) / self.std)
        return logits


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    """Convolution and batch normalisation, which makes a bias needless."""
    layer = nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs))


class _ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut (He et al. 2015, https://arxiv.org/abs/1512.03385)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, 3, stride)
        self.second = _convolution(outputs, outputs, 3)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1)
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        # Every second pixel by slicing, not by the 1x1 convolution's stride, which is the same: oneDNN 3.13 writes past
        # its memory when it trains that with fewer than 8 or 16 channels (github.com/uxlfoundation/oneDNN/issues/6035).
        kept = x[:, :, :: self.stride, :: self.stride]
        return F.relu_(self.second(F.relu_(self.first(x))) + self.shortcut(kept))


class SmallResNet(nn.Module):
    """A residual network for small images: three stages, each half as large and twice as wide as the one before.

    The stem halves the image, so that the widest feature maps, which cost most, are a quarter of its pixels.

    Args:
        num_classes: number of logits.
        in_chans: channels of the images.
        width: channels of the first stage; the embedding has four times as many.
        blocks: residual blocks a stage.
        drop_rate: dropout before the head, 0 to 1.

    With 10 outputs, 1 channel and the defaults it has 173,842 parameters and takes 5.72 million multiply-adds for an
    image of 28x28 pixels, 27.35 million for 64x64, 61.55 million for 96x96.

    >>> import torch
    >>> SmallResNet(num_classes=10)(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """

    def __init__(
        self, num_classes: int, in_chans: int = 1, width: int = 24, blocks: int = 1, drop_rate: float = 0.0
    ) -> None:
        super().__init__()
        widths = [width, width, 2 * width, 4 * width]
        self.stem = _convolution(in_chans, width, 3, stride=2)
        self.stages = nn.Sequential(
            *(
                _ResidualBlock(widths[stage] if block == 0 else widths[stage + 1], widths[stage + 1], stride)
                for stage in range(3)
                for block in range(blocks)
                for stride in [2 if stage and block == 0 else 1]
            )
        )
        self.dropout = nn.Dropout(drop_rate)
        self.head = nn.Linear(widths[-1], num_classes)

    def forward(self, x: Tensor) -> Tensor:
        features = self.stages(F.relu_(self.stem(x)))  # (N, 4 * width, H / 8, W / 8)
        logits: Tensor = self.head(self.dropout(features.mean((2, 3))))  # (N, num_classes)
        return logits


class SmallConvNet(nn.Module):
    """A student of a few thousand parameters: three 3x3 convolutions, each halving the image and doubling the width.

    Args:
        num_classes: number of logits.
        in_chans: channels of the images.
        width: channels of the first convolution; the embedding has four times as many, since subclasses need room to
            lie apart.

    With 10 outputs, 1 channel and the defaults it has 6,274 parameters and takes 0.14 million multiply-adds for an
    image of 28x28 pixels, 0.66 million for 64x64, 1.49 million for 96x96.

    >>> student = SmallConvNet(num_classes=10)
    >>> sum(parameter.numel() for parameter in student.parameters())
    6274
    """

    def __init__(self, num_classes: int, in_chans: int = 1, width: int = 8) -> None:
        super().__init__()
        self.stem = _convolution(in_chans, width, 3, stride=2)
        self.second = _convolution(width, 2 * width, 3, stride=2)
        self.third = _convolution(2 * width, 4 * width, 3, stride=2)
        self.head = nn.Linear(4 * width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu_(self.second(F.relu_(self.stem(x))))  # (N, 2 * width, H / 4, W / 4)
        x = F.relu_(self.third(x))  # (N, 4 * width, H / 8, W / 8)
        logits: Tensor = self.head(x.mean((2, 3)))  # (N, num_classes)
        return logits

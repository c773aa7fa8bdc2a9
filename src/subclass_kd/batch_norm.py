"""Batch normalisation over the global batch, whatever the number of devices that it is split over."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, distributed
from torch.autograd import Function
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode


class OverGlobalBatch(TorchFunctionMode):
    """Makes every batch normalisation inside it take its statistics from the batches of all processes together.

    torch.nn.SyncBatchNorm does the same on GPUs alone, and is put in a layer's place, which layers with more in them
    than batch normalisation, timm's with their activation say, do not survive. Here it is the function that all of them
    call which changes, so that networks stay as they are, on every device.

    Processes may have parts of different size; each must call the same layers in the same order.
    """

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        return _normalise(*args, **kwargs) if function is F.batch_norm else function(*args, **kwargs)


def _normalise(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """Do what torch.nn.functional.batch_norm does."""
    if not training:
        return F.batch_norm(input, running_mean, running_var, weight, bias, False, momentum, eps)
    normalised, mean, variance, count = _Normalisation.apply(input, weight, bias, eps)
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean.to(running_mean.dtype), momentum)
            running_var.lerp_((variance * (count / (count - 1))).to(running_var.dtype), momentum)
    result: Tensor = normalised
    return result


class _Normalisation(Function):
    """Normalisation of (n, C, ...) by mean and variance (C,) of all processes' images.

    Ioffe, Szegedy 2015, https://arxiv.org/abs/1502.03167. The variance of all is that inside the parts and that between
    them, which loses no digits (Chan, Golub, LeVeque 1979, Stanford STAN-CS-79-773).
    """

    @staticmethod
    def forward(ctx: Any, images: Tensor, weight: Tensor | None, bias: Tensor | None, eps: float) -> Any:
        # The kernel that one device would use, which is several times faster than torch.var_mean.
        wide = torch.promote_types(images.dtype, torch.float32)
        own_mean, own_variance = torch.batch_norm_update_stats(images.to(wide), None, None, 0.0)  # (C,) each
        own_count = own_mean.new_tensor([images.numel() / images.shape[1]])
        rank, size = distributed.get_rank(), distributed.get_world_size()
        every = own_mean.new_zeros(size, 2 * len(own_mean) + 1)
        every[rank] = torch.cat([own_mean, own_variance, own_count])
        distributed.all_reduce(every)
        means, variances, counts = every.double().split([len(own_mean), len(own_mean), 1], dim=1)  # type: ignore[no-untyped-call]
        count = counts.sum()
        mean = (counts * means).sum(0) / count
        variance = (counts * (variances + (means - mean) ** 2)).sum(0) / count
        mean, variance = mean.to(wide), variance.to(wide)
        ctx.save_for_backward(images, weight, mean, variance, count)
        ctx.eps = eps
        ctx.mark_non_differentiable(mean, variance, count)
        return F.batch_norm(images, mean, variance, weight, bias, False, 0.0, eps), mean, variance, count

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Any) -> Any:
        images, weight, mean, variance, count = ctx.saved_tensors
        # Sums over this process's part: they are its gradients of weight and bias, which DDP averages.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            gradient, images, weight, mean, variance, None, None, False, ctx.eps, [False, True, True]
        )
        sums = torch.stack([of_weight, of_bias]).to(mean.dtype)  # (2, C)
        distributed.all_reduce(sums)
        slope, shift = sums / count
        inverse = (variance + ctx.eps).rsqrt()
        scale = inverse if weight is None else inverse * weight
        shape = [1, -1, *[1] * (images.ndim - 2)]
        # scale * (gradient - shift - (images - mean) * inverse * slope), in three passes
        of_images = gradient * scale.view(shape)
        of_images -= images * (scale * inverse * slope).view(shape)
        of_images += (scale * (mean * inverse * slope - shift)).view(shape)
        return (
            of_images.to(images.dtype),
            of_weight if ctx.needs_input_grad[1] else None,
            (of_bias if ctx.needs_input_grad[2] else None),
            None,
        )

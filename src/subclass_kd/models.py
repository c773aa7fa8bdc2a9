"""Networks by name: small ones for small images, any of timm's, or a callable of the user's."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subclass_kd.config import Network
from subclass_kd.errors import UserError, nearest
from subclass_kd.files import fingerprint

if TYPE_CHECKING:
    from torch import Tensor, nn

SMALL = ("resnet", "convnet")


def check_model_name(network: Network, key: str) -> None:
    """Refuse a model that cannot be built, before torch is loaded.

    Args:
        network: the study's teacher or student.
        key: "teacher" or "student", for the message.

    Raises:
        UserError: unknown prefix, small network, timm model or module.

    >>> from subclass_kd.config import Student
    >>> check_model_name(Student(model="small:resnett"), "student")
    Traceback (most recent call last):
    subclass_kd.errors.UserError: key "student.model": found "small:resnett"; ... Did you mean "small:resnet"?
    """
    where = f'key "{key}.model"'
    kind, _, name = network.model.partition(":")
    if not name:
        small, known = [f"small:{small}" for small in SMALL], timm_names()
        remedy = f'Write "timm:{network.model}".' if network.model in known else nearest(network.model, small)
        raise UserError(where, f'"{network.model}"', f"{', '.join(small)}, timm:NAME or module:callable", remedy)
    if kind == "small" and name not in SMALL:
        small = [f"small:{small}" for small in SMALL]
        raise UserError(where, f'"{network.model}"', " or ".join(small), nearest(network.model, small))
    if kind == "timm" and name.partition(".")[0] not in (known := timm_names()):
        remedy = f"{nearest(name, known)} The names are listed by timm.list_models()."
        raise UserError(where, f'"{network.model}"', "a model that the installed timm knows", remedy.strip())
    if kind not in ("small", "timm"):
        with _current_folder_importable():
            try:
                found = importlib.util.find_spec(kind)
            except Exception:  # "a.b" imports the user's "a", which may raise anything
                found = None
        if found is None:
            remedy = "Run skd in the folder that holds it, or install it."
            raise UserError(where, f'no module "{kind}"', "module:callable", remedy)
    if network.pretrained and kind != "timm":
        raise UserError(f'key "{key}.pretrained"', "true", f'false for "{network.model}"', "Only timm has weights.")


def model_version(network: Network) -> str:
    """Give what tells apart two models of one name: the content of the user's module, or timm's version.

    >>> from subclass_kd.config import Student
    >>> model_version(Student(model="small:convnet"))
    ''
    """
    kind = network.model.partition(":")[0]
    if kind == "small":
        return ""
    if kind == "timm":
        return importlib.metadata.version("timm")
    with _current_folder_importable():
        spec = importlib.util.find_spec(kind)
    return fingerprint(Path(spec.origin).read_bytes()) if spec and spec.origin and Path(spec.origin).exists() else ""


def timm_names() -> list[str]:
    """List timm's models without importing timm, which would cost seconds: its files mark each with a decorator.

    Returns:
        Sorted names without a weights tag, as of ``timm.list_models()``; none if timm is not installed.

    >>> "mobilenetv3_small_050" in timm_names()
    True
    """
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return []
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    pattern = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
    return sorted({name for file in files for name in pattern.findall(file.read_text("utf-8"))})


def build_model(network: Network, outputs: int, channels: int, mean: Tensor, std: Tensor) -> nn.Module:
    """Build a network with its input's size and normalisation inside.

    The result takes (N, C, H, W) in [0, 1], brought to ``network.size`` where that is given, and gives logits
    (N, ``outputs``). Weights come from torch's random state, or from timm's pretrained ones with ``pretrained``.

    Args:
        network: the study's teacher or student.
        outputs: number of logits.
        channels: C.
        mean: (C,) of the training images, for a network that brings no normalisation with its weights.
        std: (C,) likewise, > 0.

    Raises:
        UserError: the builder refuses its options or fails, gives no module, or its pretrained weights cannot be had.

    >>> import torch
    >>> from subclass_kd.config import Student
    >>> build_model(Student(), 10, 1, torch.zeros(1), torch.ones(1))(torch.zeros(2, 1, 28, 28)).shape
    torch.Size([2, 10])
    """
    from torch import nn

    from subclass_kd import networks

    kind, _, name = network.model.partition(":")
    where = f'model "{network.model}"'
    options = network.options
    body: Any
    try:
        if kind == "small":
            body = {"resnet": networks.SmallResNet, "convnet": networks.SmallConvNet}[name](
                num_classes=outputs, in_chans=channels, **options
            )
        elif kind == "timm":
            import timm

            pretrained = network.pretrained
            body = timm.create_model(name, pretrained=pretrained, num_classes=outputs, in_chans=channels, **options)
            if pretrained and len(body.pretrained_cfg["mean"]) == channels:
                mean, std = (mean.new_tensor(body.pretrained_cfg[key]) for key in ("mean", "std"))
        else:
            body = _users_callable(kind, name, where)(num_classes=outputs, in_chans=channels, **options)
    except UserError:
        raise
    except Exception as error:  # what a builder raises at wrong options or in the user's own code is its own affair
        if network.pretrained and isinstance(error, OSError | RuntimeError):
            remedy = "Connect once, or set pretrained: false."
            raise UserError(where, f"no pretrained weights ({error})", "weights to download", remedy) from None
        remedy = 'Mend its "options", or the callable.'
        raise UserError(where, f"{type(error).__name__}: {error}", "a model that can be built", remedy) from error
    if not isinstance(body, nn.Module):
        raise UserError(where, f"a {type(body).__name__}", "a torch.nn.Module", "Mend the callable.")
    return networks.Normalised(body, mean, std, network.size)


def _users_callable(module: str, name: str, where: str) -> Callable[..., Any]:
    with _current_folder_importable():
        found = getattr(importlib.import_module(module), name, None)
    if not callable(found):
        raise UserError(where, f'no callable "{name}" in "{module}"', "module:callable")
    return found  # type: ignore[no-any-return]


class _current_folder_importable:  # noqa: N801  (used as a context manager, reads as a phrase)
    """Let a module beside the study be imported, as ``python -m`` would."""

    def __enter__(self) -> None:
        sys.path.insert(0, "")

    def __exit__(self, *_: object) -> None:
        sys.path.remove("")

"""Networks by name: small ones for small images, any of timm's, or a callable of the user's."""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from subclass_kd.config import Network
from subclass_kd.errors import UserError, nearest

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
    """
    where = f'key "{key}.model"'
    kind, _, name = network.model.partition(":")
    if not name:
        small, known = [f"small:{small}" for small in SMALL], timm_names()
        remedy = f'Write "timm:{network.model}".' if network.model in known else nearest(network.model, small)
        raise UserError(where, f'"{network.model}"', f"{', '.join(small)}, timm:NAME or module:callable", remedy)
    if kind == "small" and name not in SMALL:
        raise UserError(where, f'"{network.model}"', f"small:{' or small:'.join(SMALL)}", nearest(name, SMALL))
    if kind == "timm" and name.partition(".")[0] not in (known := timm_names()):
        remedy = f"{nearest(name, known)} The names are listed by timm.list_models()."
        raise UserError(where, f'"{network.model}"', "a model that the installed timm knows", remedy.strip())
    if kind not in ("small", "timm"):
        with _current_folder_importable():
            try:
                found = importlib.util.find_spec(kind)
            except (ImportError, ValueError):
                found = None
        if found is None:
            remedy = "Run skd in the folder that holds it, or install it."
            raise UserError(where, f'no module "{kind}"', "module:callable", remedy)
    if network.pretrained and kind != "timm":
        raise UserError(f'key "{key}.pretrained"', "true", f'false for "{network.model}"', "Only timm has weights.")


def timm_names() -> list[str]:
    """List timm's models without importing timm, which would cost seconds: its files mark each with a decorator."""
    spec = importlib.util.find_spec("timm")
    if spec is None or not spec.submodule_search_locations:
        return []
    files = Path(spec.submodule_search_locations[0], "models").glob("*.py")
    pattern = re.compile(r"^@register_model\s+def (\w+)\(", re.MULTILINE)
    return sorted({name for file in files for name in pattern.findall(file.read_text("utf-8"))})


def build_model(network: Network, outputs: int, channels: int, mean: Tensor, std: Tensor) -> nn.Module:
    """Build a network with its input normalisation inside.

    The result takes (N, C, H, W) in [0, 1] and gives logits (N, ``outputs``). Weights come from torch's random state,
    or from timm's pretrained ones with ``pretrained``.

    Args:
        network: the study's teacher or student.
        outputs: number of logits.
        channels: C.
        mean: (C,) of the training images, for a network that brings no normalisation with its weights.
        std: (C,) likewise.

    Raises:
        UserError: the builder refuses its options, or gives no module.
    """
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
    except (TypeError, ValueError, AssertionError) as error:
        expected = "arguments that the model accepts"
        raise UserError(where, f"{type(error).__name__}: {error}", expected, 'Mend its "options".') from None
    except (OSError, RuntimeError) as error:
        if not network.pretrained:
            raise
        remedy = "Connect once, or set pretrained: false."
        raise UserError(where, f"no pretrained weights ({error})", "weights to download", remedy) from None
    return networks.Normalised(body, mean, std)


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

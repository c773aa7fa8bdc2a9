"""What of the package's optional parts is installed, asked without importing any of it."""

from __future__ import annotations

from importlib.util import find_spec

from subclass_kd.errors import UserError

# Extra of pyproject.toml -> modules that come with it and are asked for.
MODULES = {
    "train": (
        "torch",
        "torchvision",
        "timm",
        "lightning_fabric",
        "torchmetrics",
        "safetensors",
        "scipy",
        "sklearn",
        "jinja2",
    ),
    "export": ("torch", "timm", "lightning_fabric", "safetensors", "scipy", "onnx", "onnxscript", "onnxruntime"),
    "predict": ("onnxruntime",),
    "serve": ("onnxruntime", "fastapi", "uvicorn", "python_multipart", "prometheus_client"),
    "tables": ("pyarrow",),
    "ray": ("ray",),
}


def demand(command: str, extra: str) -> None:
    """Refuse a command whose packages are not installed, at once and in one message.

    Args:
        command: as the user gave it, for the message.
        extra: of pyproject.toml; ``export`` comes with ``train``.

    Raises:
        UserError: a module is missing.

    >>> demand("skd predict", "predict")
    """
    missing = [name for name in MODULES[extra] if not _is_there(name)]
    if missing:
        install = "train" if extra == "export" else extra
        remedy = f"Install them: pip install 'subclass-kd[{install}]'."
        raise UserError(command, f"no {', '.join(missing)} in this Python", f"the packages of [{install}]", remedy)


def _is_there(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # one that a test has put there without a specification
        return True

"""Subclass Knowledge Distillation: hierarchy, losses and label bits as plain functions, and the study that judges them.

The core (``SubclassHierarchy``, ``losses``, ``information``) needs torch only and is loaded on first use, so that the
command line answers at once when nothing has to be computed.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from subclass_kd import information, losses
    from subclass_kd.hierarchy import SubclassHierarchy

__version__ = "0.1.0"
__all__ = ["SubclassHierarchy", "__version__", "information", "losses"]


def __getattr__(name: str) -> Any:
    """Load a public name on first use (PEP 562)."""
    if name == "SubclassHierarchy":
        return importlib.import_module("subclass_kd.hierarchy").SubclassHierarchy
    if name in {"information", "losses"}:
        return importlib.import_module(f"subclass_kd.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

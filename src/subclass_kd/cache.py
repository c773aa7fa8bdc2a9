"""The folder of what can be made again: decoded images, and what was measured of this machine."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_folder() -> Path:
    """Give the cache's folder: what --cache or SUBCLASS_KD_CACHE says, or one where the system keeps caches."""
    given = os.environ.get("SUBCLASS_KD_CACHE")
    return Path(given).expanduser() if given else platformdirs.user_cache_path("subclass-kd")

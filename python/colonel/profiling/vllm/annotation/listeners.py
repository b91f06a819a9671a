"""Whether somebody listens to ranges just now."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable

OPEN_WINDOWS = "COLONEL_OPEN_WINDOWS"
"""The guest's own count of its open windows."""


def listener() -> Callable[[], bool]:
    """True while a window of this process's guest is open; always, where others record or ranges open windows."""
    if os.environ.get("COLONEL_GATE", "").startswith("nvtx:"):
        return _always
    try:
        windows = ctypes.c_uint32.in_dll(ctypes.CDLL(None), OPEN_WINDOWS)
    except ValueError:
        return _always
    return lambda: windows.value != 0


def _always() -> bool:
    return True

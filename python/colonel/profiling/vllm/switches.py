"""Variables of the environment that are on or off."""

from __future__ import annotations

import os
import warnings

from colonel.errors import CaptureWarning

_OFF = ("", "0", "false", "no", "off")
_ON = ("1", "true", "yes", "on")


def is_on(name: str, stacklevel: int = 2) -> bool:
    """Whether the variable is set to anything but 0, false, no or off. What is neither 0 nor 1 is told."""
    value = os.environ.get(name, "").strip().lower()
    if value not in (*_OFF, *_ON):
        warnings.warn(f"{name}={value} is neither 0 nor 1: taken for 1", CaptureWarning, stacklevel=stacklevel + 1)
    return value not in _OFF

"""Errors of an engine (v1/engine/exceptions.py)."""

from typing import Any


class EngineGenerateError(Exception):
    """`AsyncLLM.generate` failed; the engine lives."""


class EngineDeadError(Exception):
    """EngineCore is gone for good."""

    def __init__(self, *args: Any) -> None:
        message = "EngineCore encountered an issue. See stack trace (above) for the root cause."
        super().__init__(message, *args)

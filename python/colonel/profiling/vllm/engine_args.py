"""Settings for engines that are made later in this process, and a look at their configuration.

`EngineArgs.create_engine_config` is the one public method that every way of making an engine goes through (LLM,
AsyncLLM, `vllm serve`), and what it returns travels to the workers under fork and spawn.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

_defaults: dict[str, Any] = {}
_checks: list[Callable[[Any], None]] = []


def default_to(field: str, value: Any) -> None:
    """Lets an engine take `value` for an argument that is false or empty, which is how an unset one looks.

    Raises:
        ImportError: vLLM can't be imported.
        AttributeError: this vLLM has no such engine argument.
    """
    if field not in _engine_args().__dataclass_fields__:
        raise AttributeError(f"vLLM's EngineArgs has no `{field}`")
    _defaults[field] = value


def after_config(check: Callable[[Any], None]) -> None:
    """Calls `check` with each engine's `VllmConfig`, once a function."""
    _engine_args()
    if check not in _checks:
        _checks.append(check)


def _engine_args() -> Any:
    """`EngineArgs`, its method wrapped once."""
    from vllm.engine.arg_utils import EngineArgs

    if not hasattr(EngineArgs.create_engine_config, "_colonel"):
        EngineArgs.create_engine_config = _wrap(EngineArgs.create_engine_config)
    return EngineArgs


def _wrap(create_engine_config: Any) -> Any:
    @functools.wraps(create_engine_config)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        for field, value in _defaults.items():
            # Another value that a caller gave stays.
            if not getattr(self, field):
                setattr(self, field, value)
        config = create_engine_config(self, *args, **kwargs)
        for check in _checks:
            check(config)
        return config

    wrapper._colonel = True  # type: ignore[attr-defined]
    return wrapper

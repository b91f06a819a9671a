"""Environment variables, read when asked for (envs.py): only what this fake or colonel look at."""

import functools
import os
from collections.abc import Callable
from typing import Any


def _flag(name: str, default: str) -> Callable[[], bool]:
    return lambda: bool(int(os.environ.get(name, default)))


def _optional_flag(name: str) -> Callable[[], bool | None]:
    return lambda: bool(int(os.environ[name])) if name in os.environ else None


# VLLM_USE_V1 is not among them: 0.26.0 doesn't know it any more.
environment_variables: dict[str, Callable[[], Any]] = {
    "VLLM_ALLOW_INSECURE_SERIALIZATION": _flag("VLLM_ALLOW_INSECURE_SERIALIZATION", "0"),
    "VLLM_ENABLE_V1_MULTIPROCESSING": _flag("VLLM_ENABLE_V1_MULTIPROCESSING", "1"),
    "VLLM_PLUGINS": lambda: os.environ["VLLM_PLUGINS"].split(",") if "VLLM_PLUGINS" in os.environ else None,
    "VLLM_USE_V2_MODEL_RUNNER": _optional_flag("VLLM_USE_V2_MODEL_RUNNER"),
    "VLLM_WORKER_MULTIPROC_METHOD": lambda: os.environ.get("VLLM_WORKER_MULTIPROC_METHOD", "fork"),
    "VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS": lambda: int(os.environ.get("VLLM_WORKER_SHUTDOWN_TIMEOUT_SECONDS", "5")),
}


def __getattr__(name: str) -> Any:
    if name in environment_variables:
        return environment_variables[name]()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return list(environment_variables)


def is_set(name: str) -> bool:
    if name in environment_variables:
        return name in os.environ
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def enable_envs_cache() -> None:
    """From now on values stay as they are. EngineCore and workers call it once started (v1/engine/core.py)."""
    global __getattr__
    if hasattr(__getattr__, "cache_clear"):
        return
    __getattr__ = functools.cache(__getattr__)
    for name in environment_variables:
        __getattr__(name)

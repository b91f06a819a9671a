"""How the ranges get into vLLM's workers: `WorkerWrapperBase.init_device`, which each of them goes through."""

from __future__ import annotations

import functools
import sys
from typing import Any

from colonel.profiling.vllm.annotation.ranges import tell
from colonel.profiling.vllm.annotation.worker import annotate
from colonel.profiling.vllm.engine_args import after_config
from colonel.profiling.vllm.switches import is_on

ENABLE = "COLONEL_VLLM_ENABLE_NVTX"
MODULE = "vllm.v1.worker.worker_base"


def install() -> None:
    """Lets the workers that are made in this process and its forks have ranges, where `ENABLE` asks for them."""
    try:
        if not is_on(ENABLE):
            return
        if MODULE in sys.modules:
            _patch()
        else:
            # This process makes no worker yet, and perhaps none at all: it may only look at a model's class.
            after_config(_patch)
    except Exception as error:
        tell(f"there are none: {type(error).__name__}: {error}")


def _patch(_config: Any = None) -> None:
    try:
        from vllm.v1.worker.worker_base import WorkerWrapperBase

        if not hasattr(WorkerWrapperBase.init_device, "_colonel"):
            WorkerWrapperBase.init_device = _wrap(WorkerWrapperBase.init_device)
    except Exception as error:
        tell(f"there are none: vLLM has no {MODULE}.WorkerWrapperBase.init_device: {type(error).__name__}: {error}")


def _wrap(init_device: Any) -> Any:
    @functools.wraps(init_device)
    def wrapper(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = init_device(self, *args, **kwargs)
        annotate(self)
        return result

    wrapper._colonel = True  # type: ignore[attr-defined]
    return wrapper

"""vLLM's plugin of the group `vllm.general_plugins`.

vLLM calls it wherever an engine is made, in sessions and out of them. Under `fork` that is the parent only: what it
wants of the workers must travel in the engine's configuration.
"""

from __future__ import annotations

import os

from colonel.profiling.vllm.engine_args import default_to
from colonel.profiling.vllm.profiler_calls import WORKER_EXTENSION


def register() -> None:
    """Under nsys and ncu, gives the workers the methods that call the CUDA profiler API. Else does nothing."""
    if not os.environ.get("COLONEL_SESSION"):
        return
    if os.environ.get("COLONEL_EVALUATOR", "cupti") != "cupti":
        default_to("worker_extension_cls", WORKER_EXTENSION)

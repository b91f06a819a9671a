"""vLLM's plugin of the group `vllm.general_plugins`.

vLLM calls it wherever an engine is made, in sessions and out of them. Under `fork` that is the parent only: what it
wants of the workers must travel in the engine's configuration, or be patched before the fork.
"""

from __future__ import annotations

import os

from colonel.profiling.vllm import annotation
from colonel.profiling.vllm.engine_args import default_to
from colonel.profiling.vllm.profiler_calls import WORKER_EXTENSION


def register() -> None:
    """Gives the workers NVTX ranges where COLONEL_VLLM_ENABLE_NVTX asks for them, and under nsys and ncu the methods
    that call the CUDA profiler API. Else does nothing."""
    annotation.install()
    if not os.environ.get("COLONEL_SESSION"):
        return
    if os.environ.get("COLONEL_EVALUATOR", "cupti") != "cupti":
        default_to("worker_extension_cls", WORKER_EXTENSION)

"""Processes and names (utils/system_utils.py, utils/import_utils.py)."""

import contextlib
import importlib
import logging
import multiprocessing
import os
import signal
from multiprocessing.context import ForkContext, SpawnContext
from pathlib import Path
from typing import Any

import vllm.envs as envs
from vllm import gpu

logger = logging.getLogger(__name__)


def get_mp_context() -> ForkContext | SpawnContext:
    """How processes are started: fork by default, spawn where asked for or where CUDA was already initialised."""
    if envs.VLLM_WORKER_MULTIPROC_METHOD != "spawn" and gpu.is_initialized():
        logger.warning("We must use the `spawn` multiprocessing start method. Reasons: CUDA is initialized")
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"
    context: ForkContext | SpawnContext = multiprocessing.get_context(envs.VLLM_WORKER_MULTIPROC_METHOD)
    return context


def kill_process_tree(pid: int) -> None:
    """SIGKILL to all descendants, then to the process."""
    for descendant in [*_descendants(pid), pid]:
        with contextlib.suppress(ProcessLookupError):
            os.kill(descendant, signal.SIGKILL)


def _descendants(pid: int) -> list[int]:
    # The real one asks psutil.
    found: list[int] = []
    for children in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in children.read_text().split():
                found += [int(child), *_descendants(int(child))]
    return found


def resolve_obj_by_qualname(qualname: str) -> Any:
    module, name = qualname.rsplit(".", 1)
    return getattr(importlib.import_module(module), name)

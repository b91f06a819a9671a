"""Which captured processes do the GPU work of an engine."""

from __future__ import annotations

import os
import warnings
from typing import Any

from colonel.errors import CaptureWarning, NoWorkerError
from colonel.processes import Captured, captured, is_descendant
from colonel.sessions import Session


def workers_of(llm: Any, session: Session) -> list[Captured]:
    """The captured processes of `llm`'s engine that live.

    With one GPU that is the EngineCore process, with tensor parallelism each worker under it, and this process itself
    where vLLM runs the engine in it.

    Raises:
        NoWorkerError: there is none.
    """
    family = engine_pids(llm)
    living = [process for process in captured(session.path) if process.state != "ended" and process.is_alive()]
    workers = [process for process in living if is_descendant(process.pid, family)]
    if not workers:
        others = ", ".join(str(process.pid) for process in living) or "none"
        raise NoWorkerError(
            f"no process of this engine is captured (engine: {', '.join(map(str, sorted(family)))}; captured: "
            f"{others}); an engine on another machine, or one that was started outside this `colonel run`, is out of "
            "its reach"
        )
    return workers


def engine_pids(llm: Any) -> set[int]:
    """The processes of `llm`'s EngineCore, or this one where the engine runs in it."""
    core = getattr(getattr(llm, "llm_engine", llm), "engine_core", None)
    if type(core).__name__ == "InprocClient":
        return {os.getpid()}
    manager = getattr(getattr(core, "resources", None), "engine_manager", None)
    processes = getattr(manager, "processes", None)
    if isinstance(processes, list):
        pids = {process.pid for process in processes if process.pid is not None}
        if pids:
            return pids
    # It has moved since 0.26.0, or the engine was started by somebody else.
    warnings.warn(
        f"{type(llm).__name__} does not say which processes are its engine's (expected "
        "`engine_core.resources.engine_manager.processes`, as in vLLM 0.20 to 0.26): every captured process that this "
        "one started is taken",
        CaptureWarning,
        stacklevel=2,
    )
    return {os.getpid()}

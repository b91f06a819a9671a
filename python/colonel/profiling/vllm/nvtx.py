"""`enable_nvtx`: vLLM's own layerwise NVTX ranges, by its public setting."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from colonel.errors import CaptureWarning
from colonel.profiling.vllm.engine_args import after_config, default_to

SETTING = "enable_layerwise_nvtx_tracing"


def enable_nvtx() -> None:
    """Turns vLLM's layerwise NVTX ranges on for engines made from now on: call it before `LLM(...)`.

    It is what `LLM(..., enable_layerwise_nvtx_tracing=True)` does. vLLM's hooks run when Python calls a module, so
    they say nothing under Model Runner V2, in compiled code, and in CUDA graphs; where that holds for the engine being
    made, a `colonel.CaptureWarning` says so. `colonel run --flavor vllm` has its own ranges, without this call.
    """
    try:
        default_to(SETTING, True)
    except ImportError as error:
        raise ImportError(f"enable_nvtx needs vLLM in this Python, and it can't be imported: {error}") from error
    except AttributeError:
        _warn(f"this vLLM's EngineArgs has no `{SETTING}`: its layerwise NVTX ranges stay off")
        return
    after_config(_check)


def _check(config: Any) -> None:
    """Says what in this engine's configuration keeps the ranges from coming."""
    reasons = silent_because(config)
    if reasons:
        _warn(
            f"vLLM's layerwise NVTX ranges do nothing, or little, in this engine: {'; '.join(reasons)}. Colonel's own "
            "ranges come in any engine: `colonel run --flavor vllm`, or COLONEL_VLLM_ENABLE_NVTX=1"
        )


def silent_because(config: Any) -> list[str]:
    """What in a `VllmConfig` keeps the ranges from coming, each with its remedy. Empty if they all come."""
    reasons = []
    if _is_v2(config):
        reasons.append("Model Runner V2 does not have them (VLLM_USE_V2_MODEL_RUNNER=0 takes V1)")
    compilation = getattr(config, "compilation_config", None)
    mode = getattr(getattr(compilation, "mode", None), "name", "NONE")
    graphs = getattr(getattr(compilation, "cudagraph_mode", None), "name", "NONE")
    if mode == "STOCK_TORCH_COMPILE":
        reasons.append("they are skipped under STOCK_TORCH_COMPILE (enforce_eager=True)")
    elif mode != "NONE":
        reasons.append("compiled code calls no module, only one range for the whole is left (enforce_eager=True)")
    if graphs != "NONE":
        reasons.append("a replay of a CUDA graph calls no module (enforce_eager=True)")
    return reasons


def _is_v2(config: Any) -> bool:
    """As 0.26.0's configuration says; 0.20.2's workers read the variable themselves."""
    said = getattr(config, "use_v2_model_runner", None)
    if said is None:
        envs = sys.modules.get("vllm.envs")
        said = getattr(envs, "VLLM_USE_V2_MODEL_RUNNER", False)
    return bool(said)


def _warn(what: str) -> None:
    warnings.warn(what, CaptureWarning, stacklevel=3)

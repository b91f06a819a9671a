"""`enable_nvtx`, and the settings that reach engines made later."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace as Namespace

import pytest
from colonel.profiling.vllm.nvtx import silent_because
from recorded import environment

SETTING = """
import warnings
from colonel.profiling.vllm import enable_nvtx
{before}
enable_nvtx()
enable_nvtx()
from vllm.engine.arg_utils import AsyncEngineArgs, EngineArgs
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    config = {args}.create_engine_config()
print(config.observability_config.enable_layerwise_nvtx_tracing)
for warning in caught:
    print(warning.category.__name__, warning.message)
"""


def run(args: str, before: str = "", **variables: str) -> list[str]:
    text = SETTING.format(args=args, before=before)
    command = [sys.executable, "-W", "always", "-c", text]
    done = subprocess.run(command, env=environment(**variables), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return [*done.stdout.splitlines(), *done.stderr.splitlines()]


@pytest.mark.parametrize("args", ["EngineArgs(enforce_eager=True)", "AsyncEngineArgs(enforce_eager=True)"])
def test_it_turns_vllms_own_setting_on(args: str) -> None:
    assert run(args, VLLM_USE_V2_MODEL_RUNNER="0") == ["True"]


def test_it_says_that_model_runner_v2_does_not_have_them() -> None:
    on, warning = run("EngineArgs()")
    assert on == "True"
    assert warning.startswith("CaptureWarning vLLM's layerwise NVTX ranges do nothing, or little, in this engine: ")
    assert "VLLM_USE_V2_MODEL_RUNNER=0" in warning


def test_a_vllm_without_the_setting_is_told() -> None:
    before = "from vllm.engine.arg_utils import EngineArgs; del EngineArgs.__dataclass_fields__['{}']"
    lines = run("EngineArgs()", before.format("enable_layerwise_nvtx_tracing"))
    assert lines[0] == "False"
    assert any("EngineArgs has no `enable_layerwise_nvtx_tracing`" in line for line in lines[1:])


def test_without_vllm_it_says_so() -> None:
    variables = environment()
    variables["PYTHONPATH"] = variables["PYTHONPATH"].split(":")[0]
    command = [sys.executable, "-c", "from colonel.profiling.vllm import enable_nvtx; enable_nvtx()"]
    done = subprocess.run(command, env=variables, capture_output=True, text=True)
    assert "enable_nvtx needs vLLM in this Python" in done.stderr


def config(mode: str, graphs: str, *, v2: bool = False) -> Namespace:
    compilation = Namespace(mode=Namespace(name=mode), cudagraph_mode=Namespace(name=graphs))
    return Namespace(use_v2_model_runner=v2, compilation_config=compilation)


def test_an_older_vllms_choice_of_runner_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = config("NONE", "NONE")
    del engine.use_v2_model_runner
    assert silent_because(engine) == []
    monkeypatch.setitem(sys.modules, "vllm.envs", Namespace(VLLM_USE_V2_MODEL_RUNNER=True))
    (reason,) = silent_because(engine)
    assert "Model Runner V2" in reason


@pytest.mark.parametrize(
    ("engine", "reasons"),
    [
        (config("NONE", "NONE"), []),
        (config("VLLM_COMPILE", "NONE"), ["compiled code"]),
        (config("STOCK_TORCH_COMPILE", "NONE"), ["STOCK_TORCH_COMPILE"]),
        (config("NONE", "FULL"), ["CUDA graph"]),
        (config("VLLM_COMPILE", "FULL_AND_PIECEWISE", v2=True), ["Model Runner V2", "compiled code", "CUDA graph"]),
        (Namespace(), []),
    ],
)
def test_what_keeps_them_silent(engine: Namespace, reasons: list[str]) -> None:
    told = silent_because(engine)
    assert len(told) == len(reasons)
    assert all(reason in text for reason, text in zip(reasons, told, strict=True))

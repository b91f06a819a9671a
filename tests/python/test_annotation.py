"""Colonel's own ranges in vLLM, through the real guest: where kernels fall, and when there are none."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as parquet
import pytest
from colonel.profiling.vllm.annotation.worker import step_name
from fake_vllm.harness import SEALED, SEALED_CLOSED, SPAWN, Runner
from recorded import Run, environment, plugin_in

LAYERS = 4
NEWLINE = "\n"
OF_A_LAYER = 11
ON = {"COLONEL_VLLM_ENABLE_NVTX": "1"}
V1 = {"VLLM_USE_V2_MODEL_RUNNER": "0"}
EAGER = "enforce_eager=True"
FULL = 'compilation_config={"mode": 0, "cudagraph_mode": "FULL", "cudagraph_capture_sizes": [4]}'
COMPILED = 'compilation_config={"cudagraph_mode": "NONE"}'
PIECEWISE = 'compilation_config={"cudagraph_mode": "PIECEWISE", "cudagraph_capture_sizes": [4]}'
GRAPHS = 'compilation_config={"cudagraph_capture_sizes": [4]}'

ONE_WINDOW = """
llm = LLM("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}},
          worker_extension_cls="extension.Extension", {engine})
generate(llm)
before = llm.collective_rpc("pushed")
llm.start_profile()
generate(llm)
llm.stop_profile()
within = llm.collective_rpc("pushed")
generate(llm)
after = llm.collective_rpc("pushed")
time.sleep(1.5)
tell(before=before, within=within, after=after)
"""


class Annotated:
    """Runs scripts with colonel's plugin installed, and an extension that says what was pushed so far."""

    def __init__(self, folder: Path) -> None:
        self._run = Runner(folder)
        installed = plugin_in(folder)
        (folder / "sitecustomize.py").write_text(f"import sys\nsys.path.append({str(installed)!r})\n")
        (folder / "extension.py").write_text(
            "class Extension:\n"
            "    def pushed(self):\n"
            "        from torch.cuda import nvtx\n"
            "        assert not nvtx.names, nvtx.names\n"
            "        return nvtx.pushed\n"
        )

    def __call__(self, body: str, *options: str, **variables: str) -> Run:
        return self._run(body, *(options or ("--flavor", "vllm")), env=variables)


@pytest.fixture
def run(tmp_path: Path) -> Annotated:
    return Annotated(tmp_path)


def rows(run: Run, table: str) -> list[dict[str, Any]]:
    return parquet.read_table(run.session / table).to_pylist()


def paths(run: Run) -> Counter[str | None]:
    return Counter(kernel["nvtx_path"] for kernel in rows(run, "kernels"))


def under(run: Run, pattern: str) -> int:
    """Kernels whose path matches."""
    return sum(count for path, count in paths(run).items() if re.search(pattern, path or ""))


PREFILL, DECODE = "prefill batch=1 tokens=4", "decode batch=1 tokens=1"
STEPS = {PREFILL: 1, DECODE: 7}
RUNNERS = pytest.mark.parametrize("runner", [{}, V1], ids=["v2", "v1"])


@RUNNERS
@pytest.mark.parametrize("method", [{}, SPAWN], ids=["fork", "spawn"])
def test_an_eager_step_is_named_down_to_the_modules_of_each_layer(
    run: Annotated, runner: dict[str, str], method: dict[str, str]
) -> None:
    ran = run(ONE_WINDOW.format(engine=EAGER), **runner, **method)
    for step, count in STEPS.items():
        for layer in range(LAYERS):
            within = f"^{step}/forward/model.layers.{layer}/"
            assert under(ran, within) == OF_A_LAYER * count
            assert under(ran, within + "self_attn$") == 6 * count
            assert under(ran, within + "mlp$") == 3 * count
            assert under(ran, within + "(input|post_attention)_layernorm$") == 2 * count
        for part in ("embed_tokens", "norm"):
            assert under(ran, f"^{step}/forward/{part}$") == count
        assert under(ran, f"^{step}/(sampling/)?logits/lm_head$") == count
        assert under(ran, f"^{step}/sampling$") == count
    assert None not in paths(ran)
    assert_quiet(ran)


def assert_quiet(ran: Run) -> None:
    """Nothing is missing, and nothing was pushed while no window was open."""
    assert "CaptureWarning" not in ran.stderr
    (before,), (within,), (after,) = (ran.told[when] for when in ("before", "within", "after"))
    assert before < within == after


@RUNNERS
def test_compiled_code_is_named_by_its_pieces_and_the_attention_between(run: Annotated, runner: dict[str, str]) -> None:
    ran = run(ONE_WINDOW.format(engine=COMPILED), **runner)
    for step, count in STEPS.items():
        for layer in range(LAYERS):
            assert under(ran, f"^{step}/forward/model.layers.{layer}.self_attn.attn$") == 3 * count
        # The end of a layer and the beginning of the next, from the embedding to the last norm.
        of_pieces = [under(ran, f"^{step}/forward/piece {piece}$") for piece in range(LAYERS + 1)]
        assert of_pieces == [4 * count, *[8 * count] * (LAYERS - 1), 6 * count]
        assert under(ran, f"^{step}/(sampling/)?logits/lm_head$") == count
    assert ran.told["before"] == [1], "the one that was tried"
    assert_quiet(ran)


@RUNNERS
def test_graphs_of_pieces_are_named_as_they_are_replayed(run: Annotated, runner: dict[str, str]) -> None:
    ran = run(ONE_WINDOW.format(engine=PIECEWISE), **runner)
    kernels = rows(ran, "kernels")
    in_graphs = Counter(kernel["launch_nvtx_path"] for kernel in kernels if kernel["graph_id"])
    pieces = [in_graphs[f"{DECODE}/forward/piece {piece}"] for piece in range(LAYERS + 1)]
    assert pieces == [4 * 7, *[8 * 7] * (LAYERS - 1), 6 * 7]
    assert sum(pieces) == sum(in_graphs.values())
    assert under(ran, f"^{DECODE}/forward/model.layers.2.self_attn.attn$") == 3 * 7
    assert_quiet(ran)


@RUNNERS
@pytest.mark.parametrize("engine", [GRAPHS, FULL], ids=["compiled", "not compiled"])
def test_one_graph_a_step_is_within_the_models_call(run: Annotated, runner: dict[str, str], engine: str) -> None:
    ran = run(ONE_WINDOW.format(engine=engine), **runner)
    in_graphs = Counter(kernel["launch_nvtx_path"] for kernel in rows(ran, "kernels") if kernel["graph_id"])
    assert in_graphs == {f"{DECODE}/forward": 7 * (OF_A_LAYER * LAYERS + 2)}
    captured = {kernel["nvtx_path"] for kernel in rows(ran, "kernels") if kernel["graph_id"]}
    assert all(path.startswith("capture batch=") for path in captured)
    assert any("model.layers.3" in path for path in captured)
    assert ran.told["before"] > [1], "what was pushed as the graph was captured"
    assert_quiet(ran)


@RUNNERS
@pytest.mark.parametrize(
    ("engine", "within"),
    [
        (FULL, ["model.layers.3/self_attn", "embed_tokens", "norm", "model.layers.0/mlp"]),
        (GRAPHS, ["model.layers.3.self_attn.attn", "piece 0", "piece 4"]),
        (PIECEWISE, ["model.layers.3.self_attn.attn", "piece 0", "piece 4"]),
    ],
    ids=["not compiled", "compiled", "pieces"],
)
def test_ranges_are_open_as_graphs_are_captured(
    run: Annotated, runner: dict[str, str], engine: str, within: list[str]
) -> None:
    ran = run(f"""LLM("fake", skip_tokenizer_init=True, {engine})\n{SEALED}""", "--gate", "process", **ON, **runner)
    seen = {row["path"].replace("/forward", "") for row in rows(ran, "nvtx_ranges")}
    assert {f"capture batch=4/{path}" for path in within} <= seen


@RUNNERS
def test_a_layer_that_raises_leaves_no_range_open(run: Annotated, runner: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, {EAGER})
        mlp = llm.llm_engine.model_executor.driver_worker.model_runner.get_model().model.layers[2].mlp
        mlp.forward = lambda tokens: 1 / 0
        error = error_of(generate, llm)
        del mlp.forward
        from torch.cuda import nvtx
        names = list(nvtx.names)
        generate(llm)
        {SEALED}
        tell(error=error, names=names)
        """,
        "--gate",
        "process",
        VLLM_ENABLE_V1_MULTIPROCESSING="0",
        **ON,
        **runner,
    )
    assert ran.told["error"].startswith("ZeroDivisionError")
    assert ran.told["names"] == []
    assert under(ran, f"^{PREFILL}/forward/model.layers.2/") == OF_A_LAYER - 3
    # The request that failed is tried again beside the next.
    assert under(ran, "^prefill batch=2 tokens=5/forward/model.layers.2/mlp$") == 3
    assert under(ran, "^decode batch=2 tokens=2/forward/model.layers.3/") == 7 * OF_A_LAYER


@RUNNERS
def test_what_has_moved_is_told_and_the_rest_is_there(run: Annotated, runner: dict[str, str]) -> None:
    module = "gpu_model_runner" if runner else "gpu.model_runner"
    ran = run(
        f"""
        from vllm.v1.worker.{module} import GPUModelRunner
        del GPUModelRunner.get_model
        {ONE_WINDOW.format(engine=EAGER).replace(NEWLINE, NEWLINE + " " * 8)}
        """,
        **runner,
    )
    assert ran.stderr.count("`layers` is missing, vLLM has moved: AttributeError") == 1
    assert "`logits` is missing, vLLM has moved" in ran.stderr
    assert under(ran, f"^{DECODE}/forward$") == 7 * (OF_A_LAYER * LAYERS + 2)


@pytest.mark.parametrize("value", ["1", "perhaps"])
def test_warnings_that_are_errors_stop_no_engine(run: Annotated, value: str) -> None:
    ran = run(
        f"""
        from vllm.v1.worker.worker_base import WorkerWrapperBase
        del WorkerWrapperBase.init_device
        llm = LLM("fake", skip_tokenizer_init=True, {EAGER})
        generate(llm)
        tell(pushed=0)
        """,
        "--gate",
        "process",
        PYTHONWARNINGS="error",
        COLONEL_VLLM_ENABLE_NVTX=value,
    )
    assert ran.kernels.count_rows() > 0
    assert not (ran.session / "nvtx_ranges").exists()


@pytest.mark.parametrize("off", [{}, {"COLONEL_VLLM_ENABLE_NVTX": "0"}], ids=["generic", "off"])
def test_without_the_variable_nothing_is_patched(run: Annotated, off: dict[str, str]) -> None:
    flavor = "vllm" if off else "generic"
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True, worker_extension_cls="extension.Extension")
        generate(llm)
        from vllm.v1.worker.worker_base import WorkerWrapperBase
        tell(patched=hasattr(WorkerWrapperBase.init_device, "_colonel"), pushed=llm.collective_rpc("pushed"),
             injection=os.environ.get("NVTX_INJECTION64_PATH"))
        """,
        "--flavor",
        flavor,
        "--gate",
        "process",
        **off,
    )
    assert ran.told["patched"] is False
    assert ran.told["pushed"] == [0]
    assert ran.told["injection"] is None


def test_ranges_that_open_windows_are_always_there(run: Annotated) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, {EAGER})
        generate(llm)
        {SEALED_CLOSED}
        tell()
        """,
        "--flavor",
        "vllm",
        "--gate",
        "nvtx:decode*",
    )
    assert ran.summary["windows"] == 7
    in_windows = Counter(kernel["window"] for kernel in rows(ran, "kernels") if kernel["nvtx_path"].startswith(DECODE))
    assert len(in_windows) == 7
    assert len(set(in_windows.values())) == 1, "of each step all kernels"
    assert set(paths(ran)) >= {f"{DECODE}/sampling"}


@RUNNERS
def test_a_step_is_one_range_from_the_model_to_the_tokens(run: Annotated, runner: dict[str, str]) -> None:
    ran = run(
        f"""generate(LLM("fake", skip_tokenizer_init=True, {EAGER}))\n{SEALED}""", "--gate", "process", **ON, **runner
    )
    opened = Counter(row["path"] for row in rows(ran, "nvtx_ranges"))
    for step, count in STEPS.items():
        for part in ("", "/forward", "/sampling"):
            assert opened[step + part] == count


@RUNNERS
@pytest.mark.parametrize("engine", [EAGER, GRAPHS], ids=["eager", "graphs"])
def test_a_dummy_batch_has_a_range_in_a_window_and_none_after_it(
    run: Annotated, runner: dict[str, str], engine: str
) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}},
                  worker_extension_cls="extension.Extension", {engine})
        def dummies():
            for _ in range(3):
                llm.collective_rpc("execute_dummy_batch")
            return llm.collective_rpc("pushed")
        generate(llm)
        before = llm.collective_rpc("pushed")
        llm.start_profile()
        within = dummies()
        llm.stop_profile()
        after = dummies()
        {SEALED_CLOSED}
        tell(before=before, within=within, after=after)
        """,
        **runner,
    )
    launched = [kernel["launch_nvtx_path"].split("/") for kernel in rows(ran, "kernels")]
    assert all(path[0] == "dummy" for path in launched)
    assert sum(path[1:2] == ["forward"] for path in launched) == 3 * (OF_A_LAYER * LAYERS + 2)
    assert_quiet(ran)


TWO_ENGINES = """
import sys
engines = [LLM("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}},
               worker_extension_cls="extension.Extension", {engine}) for _ in range(2)]
first, second = engines
runners = [llm.llm_engine.model_executor.driver_worker.model_runner for llm in engines]
from vllm.compilation import cuda_graph, piecewise_backend

def placed():
    owners = [sys.modules[type(runners[0]).__module__], cuda_graph.CUDAGraphWrapper, piecewise_backend.PiecewiseBackend]
    for runner in runners:
        model = runner.get_model()
        owners += [model, model.lm_head.quant_method, *(layer.self_attn.attn.impl for layer in model.model.layers)]
        owners += [manager for manager in [getattr(runner, "cudagraph_manager", None)] if manager]
    ours = [name for owner in owners for name, value in vars(owner).items() if hasattr(value, "_colonel_range")]
    hooks = [len(module._pre_hooks) + len(module._hooks) for runner in runners
             for _, module in runner.get_model().named_modules()]
    return len(ours) + sum(hooks)

def pushed():
    return first.collective_rpc("pushed")
"""
INPROC = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
ENGINES = pytest.mark.parametrize(
    "engine", [EAGER, COMPILED, PIECEWISE, GRAPHS], ids=["eager", "compiled", "pieces", "graphs"]
)


@RUNNERS
@ENGINES
def test_two_engines_of_one_process_share_their_ranges_and_leave_none(
    run: Annotated, runner: dict[str, str], engine: str
) -> None:
    ran = run(
        f"""
        {TWO_ENGINES.format(engine=engine).replace(NEWLINE, NEWLINE + " " * 8)}
        in_order = []
        before = pushed()
        at_first = placed()
        for order in [[first, second], [second, first], [first, second, first]]:
            first.start_profile()
            for llm in order:
                generate(llm)
            in_order.append(placed())
            first.stop_profile()
            within = pushed()
            # The other one stays idle.
            generate(order[0])
            assert pushed() == within, "pushed outside of a window"
            in_order.append(placed())
        second.llm_engine.engine_core.shutdown()
        {SEALED_CLOSED}
        tell(at_first=at_first, in_order=in_order)
        """,
        **INPROC,
        **runner,
    )
    assert ran.told["at_first"] == 0
    some, *others = ran.told["in_order"]
    assert some > 0
    assert others == [0, some, 0, some, 0]
    for path in paths(ran):
        assert path is not None
        assert len(set(path.split("/"))) == len(path.split("/")), "a range within its own like"
    assert "CaptureWarning" not in ran.stderr


def test_an_engine_that_ends_in_a_window_leaves_none(run: Annotated) -> None:
    ran = run(
        f"""
        {TWO_ENGINES.format(engine=COMPILED).replace(NEWLINE, NEWLINE + " " * 8)}
        first.start_profile()
        for llm in engines:
            generate(llm)
        both = placed()
        second.llm_engine.engine_core.shutdown()
        left = placed()
        generate(first)
        again = placed()
        first.llm_engine.engine_core.shutdown()
        tell(both=both, left=left, again=again, at_last=placed())
        """,
        **INPROC,
    )
    assert ran.told["left"] == ran.told["at_last"] == 0
    assert 0 < ran.told["again"] < ran.told["both"]


def test_a_torch_without_nvtx_stops_no_engine(run: Annotated) -> None:
    ran = run(
        f"""
        from torch.cuda import nvtx
        def range_push(msg):
            raise RuntimeError("NVTX functions not installed. Are you sure you have a CUDA build?")
        nvtx.range_push = range_push
        llm = LLM("fake", skip_tokenizer_init=True, {GRAPHS})
        generate(llm)
        {SEALED}
        tell()
        """,
        "--gate",
        "process",
        **ON,
    )
    assert ran.stderr.count("there are none: torch has no NVTX: RuntimeError: NVTX functions not installed") == 1
    assert ran.kernels.count_rows() > 0
    assert not (ran.session / "nvtx_ranges").exists()


@pytest.mark.parametrize("method", [{}, SPAWN], ids=["fork", "spawn"])
def test_each_worker_of_tensor_parallelism_has_them(run: Annotated, method: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, tensor_parallel_size=2, {EAGER})
        generate(llm)
        {SEALED}
        tell()
        """,
        "--gate",
        "process",
        **ON,
        **method,
    )
    of_layers = Counter(row["pid"] for row in rows(ran, "nvtx_ranges") if row["name"] == "model.layers.3")
    assert sorted(of_layers.values()) == [8, 8]


def test_without_a_guest_they_are_always_there(tmp_path: Path) -> None:
    """As under nsys: nobody says whether anything is recorded."""
    script = """
from colonel.profiling.vllm.annotation.listeners import listener
print(listener()())
"""
    done = subprocess.run([sys.executable, "-c", script], env=environment(), capture_output=True, text=True)
    assert done.stdout == "True\n", done.stderr


@pytest.mark.parametrize(
    ("scheduled", "name"),
    [
        ({}, None),
        ({"a": 1, "b": 1}, "decode batch=2 tokens=2"),
        ({"a": 1, "new": 90}, "prefill batch=2 tokens=91"),
        ({"a": 1, "chunk": 64}, "prefill batch=2 tokens=65"),
        ({"a": 1, "resumed": 70}, "prefill batch=2 tokens=71"),
    ],
)
def test_a_step_with_a_prompt_in_it_is_one_of_prefill(scheduled: dict[str, int], name: str | None) -> None:
    known = [request for request in scheduled if request != "new"]
    cached = SimpleNamespace(
        num_output_tokens=[0 if request == "chunk" else 5 for request in known],
        resumed_req_ids={"resumed"} & set(known),
    )
    output = SimpleNamespace(
        scheduled_new_reqs=[request for request in scheduled if request == "new"],
        scheduled_cached_reqs=cached,
        num_scheduled_tokens=scheduled,
        total_num_scheduled_tokens=sum(scheduled.values()),
    )
    assert step_name(output) == name

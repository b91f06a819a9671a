"""The fake vLLM under `colonel run --sim`: its counts are the session's, it starts, refuses and ends as vLLM."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from fake_vllm.harness import SEALED, SEALED_CLOSED, SPAWN, Runner

LAYERS = 4


@pytest.fixture
def run(tmp_path: Path) -> Runner:
    return Runner(tmp_path)


@pytest.mark.parametrize("env", [{}, SPAWN], ids=["fork", "spawn"])
def test_engine_core_launches_what_the_session_has_and_the_parent_nothing(run: Runner, env: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True)
        outputs = generate(llm, prompts=4)
        tokens = [len(output.outputs[0].token_ids) for output in outputs]
        {SEALED}
        tell(launched=llm.collective_rpc("launched"), engine=engine_processes(llm)[0].pid, tokens=tokens)
        """,
        env=env,
    )
    assert ran.told["tokens"] == [8] * 4
    assert ran.pids == {ran.told["engine"]}
    assert ran.told["parent"] not in ran.pids
    assert ran.kernels.count_rows() == ran.told["launched"][0] > 0
    # Both ends are seen: `sys.exit` of a spawned EngineCore, and `os._exit` of a forked one, which the guest shadows.
    assert ran.summary["processes"][0]["state"] == "ended"


def test_without_multiprocessing_the_engine_is_the_program_itself(run: Runner) -> None:
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True)
        generate(llm)
        assert not hasattr(llm.llm_engine.engine_core, "resources")
        tell(launched=llm.collective_rpc("launched"))
        """,
        env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"},
    )
    assert ran.pids == {ran.told["parent"]}
    assert ran.kernels.count_rows() == ran.told["launched"][0]


@pytest.mark.parametrize("env", [{}, SPAWN], ids=["fork", "spawn"])
def test_tensor_parallel_workers_lie_under_an_engine_core_without_cuda(run: Runner, env: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, tensor_parallel_size=2, enforce_eager=True)
        generate(llm)
        {SEALED}
        tell(launched=llm.collective_rpc("launched"), engine=engine_processes(llm)[0].pid)
        """,
        env=env,
    )
    assert len(ran.pids) == 2
    assert ran.pids.isdisjoint({ran.told["parent"], ran.told["engine"]})
    assert sorted(ran.count_by("pid").values()) == sorted(ran.told["launched"])
    assert ran.count_by("short_name")["cross_device_reduce_1stage"] == 2 * 2 * LAYERS * 8


@pytest.mark.parametrize("eager", [False, True])
@pytest.mark.parametrize("v2", ["0", "1"])
def test_each_step_runs_each_layer_once(run: Runner, eager: bool, v2: str) -> None:
    sizes = [1, 2, 4]
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager={eager},
                  compilation_config={{"cudagraph_capture_sizes": {sizes}}})
        generate(llm, max_tokens=8)
        tell(launched=llm.collective_rpc("launched"))
        """,
        env={"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_USE_V2_MODEL_RUNNER": v2},
    )
    # A prefill and seven decode steps; before them one warm-up for each graph.
    passes = 8 + (0 if eager else len(sizes))
    kernels = ran.count_by("short_name")
    for name in ["reshape_and_cache_flash_kernel", "flash_fwd_splitkv_kernel", "act_and_mul_kernel"]:
        assert kernels[name] == LAYERS * passes, name
    assert kernels["fused_add_rms_norm_kernel"] == 2 * LAYERS * passes
    assert kernels["nvjet_sm90_tst_384x8_64x4_2x1_v_bz_TNT"] == 8
    assert kernels["_gumbel_sample_kernel"] == (8 if v2 == "1" else 0)
    in_graphs = sum(count for graph, count in ran.count_by("graph_id").items() if graph)
    assert in_graphs == (0 if eager else 7 * (11 * LAYERS + 2))


@pytest.mark.parametrize("env", [{}, SPAWN], ids=["fork", "spawn"])
def test_profiling_opens_and_closes_windows(run: Runner, env: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}})
        launched = lambda: llm.collective_rpc("launched")[0]
        in_windows = []
        for window in range(2):
            generate(llm)
            before = launched()
            llm.start_profile()
            generate(llm, prompts=3)
            llm.stop_profile()
            in_windows.append(launched() - before)
        generate(llm)
        {SEALED_CLOSED}
        tell(in_windows=in_windows)
        """,
        "--flavor",
        "vllm",
        env=env,
    )
    assert ran.summary["windows"] == 2
    assert ran.summary["lost"] == 0
    assert ran.kernels.count_rows() == sum(ran.told["in_windows"]) > 0


def test_delay_and_limit_count_steps(run: Runner) -> None:
    ran = run(
        f"""
        profiler = {{"profiler": "cuda", "delay_iterations": 2, "max_iterations": 3}}
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True, profiler_config=profiler)
        llm.start_profile()
        generate(llm, max_tokens=20)
        llm.start_profile()
        generate(llm, max_tokens=20)
        llm.stop_profile()
        {SEALED_CLOSED}
        tell()
        """,
        "--flavor",
        "vllm",
    )
    # Steps 2 to 4, and the second start is ignored: as in vLLM 0.26.0, the limit leaves the profiler active.
    assert ran.summary["windows"] == 1
    assert ran.count_by("short_name")["_gumbel_sample_kernel"] == 3


def test_a_profiler_must_be_configured(run: Runner) -> None:
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True)
        tell(error=error_of(llm.start_profile), unknown=error_of(llm.collective_rpc, "nothing"))
        """
    )
    assert ran.told["error"].startswith("Exception: Call to profile method failed: Profiling is not enabled.")
    assert ran.told["unknown"].endswith("Call to collective_rpc method failed: Method 'nothing' is not implemented.")


def test_only_plain_data_crosses(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "extension.py").write_text("class Extension:\n    def echo(self, value):\n        return value\n")
    body = """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True, worker_extension_cls="extension.Extension")
        echoed = llm.collective_rpc("echo", args=({1: (b"two", 3.0, None)},))[0]
        assert echoed == {1: [b"two", 3.0, None]}, echoed
        tell(error=error_of(llm.collective_rpc, os.path.basename))
        """
    assert "TypeError: Object of type <class 'function'> is not serializable" in run(body).told["error"]
    insecure = run(body, env={"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}).told["error"]
    assert insecure.startswith("Exception: Call to collective_rpc method failed: expected str")


@pytest.mark.parametrize("env", [{}, SPAWN], ids=["fork", "spawn"])
def test_a_plugin_runs_once_a_process_and_not_in_a_forked_one(run: Runner, tmp_path: Path, env: dict[str, str]) -> None:
    package = tmp_path / "plugin-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[vllm.general_plugins]\nnotes = plugin:note\n")
    notes = tmp_path / "notes"
    (tmp_path / "plugin.py").write_text(
        "import os\n\ndef note():\n    open(os.environ['NOTES'], 'a').write(f'{os.getpid()} ')\n"
    )
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True)
        tell(engine=engine_processes(llm)[0].pid)
        """,
        env=env | {"NOTES": str(notes)},
    )
    expected = [ran.told["parent"], ran.told["engine"]] if env else [ran.told["parent"]]
    assert [int(pid) for pid in notes.read_text().split()] == expected


def test_an_extension_may_not_hide_the_workers_own(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "extension.py").write_text("class Extension:\n    def profile(self):\n        pass\n")
    ran = run('tell(error=error_of(LLM, "fake", skip_tokenizer_init=True, worker_extension_cls="extension.Extension"))')
    assert ran.told["error"] == (
        "RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {'EngineCore': 1}"
    )
    assert "already has an attribute profile, which conflicts with the worker extension class" in ran.stderr


def test_async_requests_run_together(run: Runner) -> None:
    ran = run(
        f"""
        import asyncio
        from vllm.engine.arg_utils import AsyncEngineArgs
        from vllm.v1.engine.async_llm import AsyncLLM

        async def request(llm, number):
            params = SamplingParams(max_tokens=20)
            prompt = TokensPrompt(prompt_token_ids=[1, number])
            return [output async for output in llm.generate(prompt, params, str(number))][-1]

        async def main():
            arguments = AsyncEngineArgs("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}})
            llm = AsyncLLM.from_engine_args(arguments)
            engine = llm.engine_core.resources.engine_manager.processes[0]
            await request(llm, 0)
            before = (await llm.collective_rpc("launched"))[0]
            await llm.start_profile()
            outputs = await asyncio.gather(*(request(llm, number) for number in range(1, 9)))
            async for output in llm.generate([1], SamplingParams(max_tokens=4000), "left"):
                break
            await llm.stop_profile()
            after = (await llm.collective_rpc("launched"))[0]
            {SEALED_CLOSED}
            llm.shutdown()
            tell(tokens=[len(output.outputs[0].token_ids) for output in outputs], launched=after - before,
                 code=engine.exitcode, engine=engine.pid)

        asyncio.run(main())
        """,
        "--flavor",
        "vllm",
    )
    assert ran.told["tokens"] == [20] * 8
    assert ran.told["code"] == 0
    assert ran.count_by("pid").keys() == {ran.told["engine"]}
    # The request that was left runs on for some steps until its abortion arrives, perhaps after the stop.
    assert 0 < ran.kernels.count_rows() <= ran.told["launched"]
    # Together: far fewer steps than 9 requests of 20 tokens have one after the other.
    assert ran.count_by("short_name")["_gumbel_sample_kernel"] < 9 * 20


@pytest.mark.parametrize("env", [{}, SPAWN], ids=["fork", "spawn"])
def test_sigterm_ends_a_running_engine_in_order(run: Runner, env: dict[str, str]) -> None:
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, profiler_config={{"profiler": "cuda"}})
        engine = engine_processes(llm)[0]
        before = llm.collective_rpc("launched")[0]
        llm.start_profile()
        generate(llm, prompts=3)
        launched = llm.collective_rpc("launched")[0] - before
        {"pass" if env else SEALED}
        os.kill(engine.pid, signal.SIGTERM)
        engine.join(10)
        # The thread that reads the engine's outputs sees their end.
        while not llm.llm_engine.engine_core.resources.engine_dead:
            time.sleep(0.01)
        tell(launched=launched, code=engine.exitcode, error=error_of(llm.collective_rpc, "launched"))
        """,
        "--flavor",
        "vllm",
        env=env,
    )
    assert ran.told["code"] == 0
    assert ran.told["error"].startswith("EngineDeadError")
    assert ran.kernels.count_rows() == ran.told["launched"] > 0


def test_generate_waits_for_ever_for_an_engine_that_was_killed(run: Runner) -> None:
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True)
        engine = engine_processes(llm)[0]
        os.kill(engine.pid, signal.SIGSTOP)
        waiting = threading.Thread(target=generate, args=(llm,), daemon=True)
        waiting.start()
        time.sleep(0.5)
        os.kill(engine.pid, signal.SIGKILL)
        while not llm.llm_engine.engine_core.resources.engine_dead:
            time.sleep(0.01)
        waiting.join(1)
        tell(waits=waiting.is_alive(), later=error_of(generate, llm))
        """
    )
    assert ran.told["waits"]
    assert ran.told["later"].startswith("EngineDeadError")


def test_an_engine_that_fails_says_so(run: Runner) -> None:
    ran = run(
        """
        from vllm.v1.engine.core import EngineCore

        def step(self):
            if self.has_requests():
                raise ValueError("out of memory")

        EngineCore.step = step
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True)
        tell(error=error_of(generate, llm))
        """
    )
    assert ran.told["error"].startswith("EngineDeadError")
    assert "ValueError: out of memory" in ran.stderr


def test_sigterm_kills_an_engine_that_starts(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "extension.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n")
    ran = run('tell(error=error_of(LLM, "fake", worker_extension_cls="extension.Extension"))')
    assert ran.told["error"].endswith("Failed core proc(s): {'EngineCore': -15}")


def test_an_engine_that_does_not_end_is_killed(run: Runner, tmp_path: Path) -> None:
    (tmp_path / "extension.py").write_text(
        "import time\nclass Extension:\n    def hang(self):\n        time.sleep(600)\n"
    )
    ran = run(
        f"""
        llm = LLM("fake", skip_tokenizer_init=True, worker_extension_cls="extension.Extension")
        generate(llm)
        {SEALED}
        launched, engine = llm.collective_rpc("launched")[0], engine_processes(llm)[0]
        threading.Thread(target=llm.collective_rpc, args=("hang",), daemon=True).start()
        time.sleep(0.5)
        llm.llm_engine.engine_core.shutdown(timeout=1)
        engine.join()
        tell(launched=launched, code=engine.exitcode)
        """
    )
    assert ran.told["code"] == -9
    assert ran.kernels.count_rows() == ran.told["launched"]


def test_an_engine_ends_with_its_llm(run: Runner) -> None:
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True)
        engine = engine_processes(llm)[0]
        del llm
        tell(code=engine.exitcode)
        """
    )
    assert ran.told["code"] == 0


def test_an_engine_does_not_outlive_a_killed_caller(run: Runner) -> None:
    ran = run(
        """
        llm = LLM("fake", skip_tokenizer_init=True, enforce_eager=True, tensor_parallel_size=2)
        tell(engine=engine_processes(llm)[0].pid)
        os.kill(os.getpid(), signal.SIGKILL)
        """,
        code=128 + 9,
    )
    for _ in range(50):
        if not Path(f"/proc/{ran.told['engine']}").exists():
            return
        time.sleep(0.2)
    pytest.fail("EngineCore still runs")

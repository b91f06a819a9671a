"""Scripts that drive the fake vLLM, run under `colonel run --sim`."""

from __future__ import annotations

import textwrap
from pathlib import Path

from recorded import Run, environment, record

# Until all records are on disk: of a window that is open, and of one that was closed a moment ago. At an end the guest
# waits for the last seal, but 3 s at most, which a loaded machine may exceed.
SEALED = "time.sleep(2.5)"
SEALED_CLOSED = "time.sleep(1.5)"
SPAWN = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}

PRELUDE = """
import json, os, signal, threading, time
from vllm import LLM, SamplingParams, TokensPrompt

def tell(**values):
    print(json.dumps({"parent": os.getpid()} | values), flush=True)

def engine_processes(llm):
    return llm.llm_engine.engine_core.resources.engine_manager.processes

def generate(llm, prompts=1, max_tokens=8):
    tokens = [TokensPrompt(prompt_token_ids=[1, 2, 3, number]) for number in range(prompts)]
    return llm.generate(tokens, SamplingParams(max_tokens=max_tokens, ignore_eos=True), use_tqdm=False)

def error_of(function, *args, **kwargs):
    try:
        function(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {error}"

if __name__ == "__main__":
"""


class Runner:
    """Runs scripts, by default with gate `process`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __call__(self, body: str, *options: str, env: dict[str, str] | None = None, code: int = 0) -> Run:
        script = PRELUDE + textwrap.indent(textwrap.dedent(body), "    ")
        variables = environment(self.folder, **(env or {}))
        done = record(self.folder, script, *(options or ("--gate", "process")), variables=variables)
        assert done.code == code, done.stderr
        return done

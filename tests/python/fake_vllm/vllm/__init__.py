"""A small fake of vLLM 0.26.0 for CI: its processes, start-up, RPC and endings, with work for gpu-sim's stand-in GPU.

It has the import paths that colonel and its demos use, and no more sense than the real one: where vLLM refuses, hangs
or stays silent, so does this. Comments name the file of the real source in which a behaviour was read. Nothing is
computed: tokens are made up from the prompt.

Beyond the real one: `collective_rpc("launched")`, each worker's own count of the kernels it launched.
"""

import importlib
from typing import Any

__version__ = "0.26.0"
__version_tuple__ = (0, 26, 0)

# As the real one: names are imported when they are asked for, so that `import vllm` alone loads no engine.
_HOMES = {
    "AsyncEngineArgs": "vllm.engine.arg_utils",
    "CompletionOutput": "vllm.outputs",
    "EngineArgs": "vllm.engine.arg_utils",
    "LLM": "vllm.entrypoints.llm",
    "LLMEngine": "vllm.v1.engine.llm_engine",
    "RequestOutput": "vllm.outputs",
    "SamplingParams": "vllm.sampling_params",
    "TokensPrompt": "vllm.inputs",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__} has no attribute {name}")

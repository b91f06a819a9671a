"""What the demos share: arguments, an engine, prompts, a session's kernels, a table."""

from __future__ import annotations

import argparse
import functools
import gc
import importlib.util
import os
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa
    from colonel.profiling.vllm.region import ProfileRegion
    from vllm import LLM

MODELS = Path(__file__).resolve().parent / "models"
DEFAULT_MODEL = "Qwen/Qwen2.5-0.5B"

# Without a network, vLLM and what it uses must not look for one.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
}
TEXTS = (
    "The capital of France is",
    "A GPU kernel is",
    "The fastest way to sort a list is",
    "Once upon a time, in a data centre,",
)


class Options(argparse.Namespace):
    """The arguments that every demo takes."""

    model: str
    dummy: bool
    num_prompts: int
    max_tokens: int
    eager: bool
    max_model_len: int
    gpu_memory_utilization: float
    kv_cache_memory_bytes: int | None


def parser(description: str, *, num_prompts: int | None = 4, max_tokens: int = 64) -> argparse.ArgumentParser:
    """Arguments of a demo; one that has more adds them, one that sets the number of prompts itself passes None."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument("--model", default=DEFAULT_MODEL, help="a name on the Hugging Face hub, or a folder")
    result.add_argument("--dummy", action="store_true", help="random weights in the model's shape: no download")
    if num_prompts is not None:
        result.add_argument("--num-prompts", type=positive, default=num_prompts, help="requests at once")
    result.add_argument("--max-tokens", type=positive, default=max_tokens, help="new tokens a request")
    result.add_argument("--eager", action="store_true", help="neither torch.compile nor CUDA graphs")
    result.add_argument("--max-model-len", type=positive, default=2048, help="longest prompt and answer, in tokens")
    result.add_argument("--gpu-memory-utilization", type=share, default=0.3, help="share of the GPU's memory")
    result.add_argument("--kv-cache-memory-bytes", type=positive, help="this much for the KV cache, unmeasured")
    return result


def positive(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"`{text}` is not a count: expected a whole number above 0")
    return int(text)


def share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"`{text}` is not a share: expected a number above 0 and up to 1")
    return value


def stop(message: str) -> SystemExit:
    """To raise where the user has to do something."""
    return SystemExit(f"{Path(sys.argv[0]).name}: {message}")


def prepare(options: Options) -> None:
    """Checks the arguments, and sets what vLLM reads from the environment when it is imported."""
    longest = max(len(ids) for ids in token_prompts(options.num_prompts)) + options.max_tokens
    if longest > options.max_model_len:
        raise stop(f"prompts and answers need {longest} tokens; raise --max-model-len {options.max_model_len}")
    if importlib.util.find_spec("vllm") is None:
        raise stop("this Python has no vllm; `pip install vllm` (docs/vllm_profiling.md has the tested versions)")
    if importlib.util.find_spec("flashinfer") is None:
        os.environ.setdefault("VLLM_USE_FLASHINFER_SAMPLER", "0")
    if options.dummy:
        for name, value in OFFLINE.items():
            os.environ.setdefault(name, value)


def dummy_folder(model: str) -> Path:
    """The folder whose config.json has the model's shape."""
    for folder in (Path(model), MODELS / Path(model).name.lower()):
        if (folder / "config.json").is_file():
            return folder
    known = ", ".join(sorted(path.name for path in MODELS.iterdir()))
    raise stop(f"no shape of `{model}` for --dummy: expected a folder with a config.json, or one of {known}")


def engine(options: Options, **more: Any) -> LLM:
    """An engine of vLLM. Its GPU work happens in a process of its own, EngineCore."""
    prepare(options)
    from vllm import LLM

    model = options.model
    if options.dummy:
        model = str(dummy_folder(model))
        more = {"load_format": "dummy", "skip_tokenizer_init": True, **more}
    if options.kv_cache_memory_bytes:
        more["kv_cache_memory_bytes"] = options.kv_cache_memory_bytes
    return LLM(
        model=model,
        dtype="bfloat16",
        enforce_eager=options.eager,
        max_model_len=options.max_model_len,
        max_num_seqs=max(8, options.num_prompts),
        max_num_batched_tokens=max(2048, options.max_model_len),
        gpu_memory_utilization=options.gpu_memory_utilization,
        enable_prefix_caching=False,  # else the prompts of a second round are no work
        disable_log_stats=True,
        seed=0,
        **more,
    )


def shut_down(llm: LLM) -> None:
    """Ends the engine's process now, so that its memory is free for the next one."""
    llm.llm_engine.engine_core.shutdown()
    gc.collect()


def token_prompts(count: int) -> list[list[int]]:
    """Prompts of token ids: with random weights any will do. 8 to 20 tokens each."""
    return [[(7919 * (i + 1) + 31 * j) % 151000 + 100 for j in range(8 + 4 * (i % 4))] for i in range(count)]


def prompts(options: Options, count: int | None = None) -> list[Any]:
    """What `LLM.generate` takes: token ids for random weights, else text."""
    count = count or options.num_prompts
    if options.dummy:
        from vllm import TokensPrompt

        return [TokensPrompt(prompt_token_ids=ids) for ids in token_prompts(count)]
    return [TEXTS[i % len(TEXTS)] for i in range(count)]


def sampling(options: Options, tokens: int | None = None) -> Any:
    """Exactly so many new tokens, the likeliest ones."""
    from vllm import SamplingParams

    tokens = tokens or options.max_tokens
    return SamplingParams(
        temperature=0.0, max_tokens=tokens, min_tokens=tokens, ignore_eos=True, detokenize=not options.dummy
    )


class Generated:
    """What a `generate` did."""

    def __init__(self, outputs: Sequence[Any], seconds: float) -> None:
        self.outputs = outputs
        self.seconds = seconds
        counts = [len(output.outputs[0].token_ids) for output in outputs]
        self.tokens = sum(counts)
        self.steps = max(counts)  # each step gives each request one token

    @property
    def ms_per_step(self) -> float:
        return self.seconds * 1e3 / self.steps

    def __str__(self) -> str:
        rate = self.tokens / self.seconds
        return f"{self.steps} steps, {self.tokens} tokens, {self.ms_per_step:.3f} ms per step, {rate:,.0f} tokens/s"


def generate(llm: LLM, wanted: Sequence[Any], sampling_params: Any) -> Generated:
    begin = time.perf_counter()
    outputs = llm.generate(wanted, sampling_params, use_tqdm=False)
    return Generated(outputs, time.perf_counter() - begin)


@functools.cache
def say_once(text: str) -> None:
    print(text)


def kernels(region: ProfileRegion, columns: list[str]) -> pa.Table | None:
    """The kernels of a region, of all its workers; None, and why, where there are none to show."""
    if not region.active:
        say_once("nothing was recorded (COLONEL_DISABLE_PROFILE_REGION=1), so there is no table of kernels")
    elif importlib.util.find_spec("pyarrow") is None:
        say_once("the table of kernels needs pyarrow: `pip install pyarrow`; `colonel show` prints one without it")
    elif region.session is None or not region.windows:
        say_once("this region has no window of colonel's, so there is no table of kernels")
    else:
        import pyarrow as pa

        session = region.session
        return pa.concat_tables(
            session.kernels(columns=columns, window=window, pid=pid) for pid, window in region.windows.items()
        )
    return None


def print_table(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    """Columns of text; the first to the left, numbers to the right."""
    lines = [list(head), *([cell if isinstance(cell, str) else f"{cell:,}" for cell in row] for row in rows)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for line in lines:
        cells = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        print("  ".join(cells).rstrip())

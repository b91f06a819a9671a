"""Regions in one engine, one after the other; each prints what was generated in it. Run under `colonel run`.

regions_job.py [demo arguments] [--async]
"""

import argparse
import asyncio
import json
import os
import sys
from pathlib import Path
from typing import Any

from colonel.profiling.vllm import profile_region

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "demos" / "vllm"))
from common import Options, dummy_folder, engine, generate, parser, prepare, prompts, sampling, token_prompts


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


class Planned(Exception):
    """Raised inside a region."""


def one_after_the_other(options: argparse.Namespace) -> None:
    llm = engine(options)
    wanted = prompts(options)

    def step(tokens: int) -> int:
        return generate(llm, wanted, sampling(options, tokens)).steps

    step(4)
    with profile_region(llm, name="first") as region:
        steps = step(8)
    say(region="first", windows=region.windows, at_least=steps)
    step(4)
    with profile_region(llm, name="second") as region:
        steps = step(12)
    say(region="second", windows=region.windows, at_least=steps)

    with profile_region(llm, name="outer") as outer:
        around = step(6)
        with profile_region(llm, name="inner") as inner:
            steps = step(10)
        around += step(6)
    say(region="inner", windows=inner.windows, at_least=steps)
    say(region="outer", windows=outer.windows, at_least=around)

    try:
        with profile_region(llm, name="exception") as region:
            steps = step(5)
            raise Planned
    except Planned:
        say(region="exception", windows=region.windows, at_least=steps)
    step(4)
    with profile_region(llm, name="after the exception") as region:
        steps = step(7)
    say(region="after the exception", windows=region.windows, at_least=steps)
    rows = region.session.kernels(window="after the exception").num_rows if region.session else None
    say(read_in_the_script=rows, pid=os.getpid())


async def overlapping(options: argparse.Namespace) -> None:
    from vllm import AsyncEngineArgs, TokensPrompt
    from vllm.v1.engine.async_llm import AsyncLLM

    arguments = AsyncEngineArgs(
        model=str(dummy_folder(options.model)),
        load_format="dummy",
        skip_tokenizer_init=True,
        dtype="bfloat16",
        enforce_eager=options.eager,
        max_model_len=options.max_model_len,
        max_num_seqs=8,
        max_num_batched_tokens=2048,
        gpu_memory_utilization=options.gpu_memory_utilization,
        kv_cache_memory_bytes=options.kv_cache_memory_bytes,
        enable_prefix_caching=False,
        disable_log_stats=True,
    )
    llm = AsyncLLM.from_engine_args(arguments)
    ids = token_prompts(2)

    async def request(name: str, tokens: int) -> int:
        prompt = TokensPrompt(prompt_token_ids=ids[0])
        count = 0
        async for output in llm.generate(prompt, sampling(options, tokens), request_id=name):
            count = len(output.outputs[0].token_ids)
        return count

    await request("warm-up", 4)
    a_worked, b_opened, a_closed = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def a() -> None:
        async with profile_region(llm, name="a") as region:
            steps = await request("a1", 6)
            a_worked.set()
            await b_opened.wait()
        a_closed.set()
        say(region="a", windows=region.windows, at_least=steps)

    async def b() -> None:
        """Opens within `a` and outlives it."""
        await a_worked.wait()
        async with profile_region(llm, name="b") as region:
            b_opened.set()
            steps = await request("b1", 9)
            await a_closed.wait()
            steps += await request("b2", 9)
        say(region="b", windows=region.windows, at_least=steps)

    await asyncio.gather(a(), b())
    llm.shutdown()


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--async", dest="asynchronous", action="store_true", help="AsyncLLM, overlapping regions")
    options = arguments.parse_args(namespace=Options())
    if options.asynchronous:
        prepare(options)
        asyncio.run(overlapping(options))
    else:
        one_after_the_other(options)


if __name__ == "__main__":
    main()

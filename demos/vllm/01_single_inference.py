#!/usr/bin/env python3
"""One prompt: what does its prefill run, and what does each step of its decode run?

colonel run --flavor vllm -- python demos/vllm/01_single_inference.py --dummy
"""

from __future__ import annotations

from typing import Any

from colonel.profiling.vllm import profile_region
from common import Options, engine, generate, kernels, parser, positive, print_table, prompts, sampling


def table(title: str, region: Any, limit: int) -> None:
    """The kernels of a region, those that take longest first."""
    rows = kernels(region, ["short_name", "start_ns", "end_ns"])
    if rows is None:
        return
    import pyarrow.compute as pc

    rows = rows.append_column("ns", pc.subtract(rows["end_ns"], rows["start_ns"]))
    total = pc.sum(rows["ns"]).as_py() or 0
    found = rows.group_by("short_name").aggregate([("ns", "sum"), ("ns", "count")]).sort_by([("ns_sum", "descending")])
    print(f"\n{title}: {rows.num_rows:,} kernels, {total / 1e6:.3f} ms on the GPU")
    print_table(
        ("kernel", "count", "total us", "share"),
        (
            (one["short_name"], one["ns_count"], f"{one['ns_sum'] / 1e3:,.1f}", f"{one['ns_sum'] / total:.1%}")
            for one in found.slice(0, limit).to_pylist()
        ),
    )


def main() -> None:
    arguments = parser("One prompt: prefill and decode in separate regions.", num_prompts=None, max_tokens=32)
    arguments.add_argument("--limit", type=positive, default=12, help="kernels shown of each region")
    options = arguments.parse_args(namespace=Options())
    options.num_prompts = 1
    llm = engine(options)
    wanted = prompts(options)
    generate(llm, wanted, sampling(options))  # warm-up

    # The first token comes out of the prefill, so a request for one token is a prefill. EngineCore runs ahead of this
    # script, so the second region holds a request from its start: a prefill, then the steps of decode.
    with profile_region(llm, name="prefill") as prefill:
        first = generate(llm, wanted, sampling(options, 1))
    with profile_region(llm, name="decode") as decode:
        rest = generate(llm, wanted, sampling(options))

    print(f"prefill: {first.seconds * 1e3:.2f} ms to the first token")
    if options.max_tokens > 1:
        ms_per_token = (rest.seconds - first.seconds) * 1e3 / (options.max_tokens - 1)
        print(f"decode: {options.max_tokens - 1} steps, {ms_per_token:.3f} ms each")
    table("prefill", prefill, options.limit)
    table(f"decode (step 1 of {rest.steps} is the prefill)", decode, options.limit)


if __name__ == "__main__":
    main()

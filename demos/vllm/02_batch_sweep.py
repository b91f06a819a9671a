#!/usr/bin/env python3
"""What does a larger batch cost? One engine, a region for each batch size.

colonel run --flavor vllm -- python demos/vllm/02_batch_sweep.py --dummy --batches 1,2,4,8,16,32
"""

from __future__ import annotations

import argparse
from typing import Any

from colonel.profiling.vllm import profile_region
from common import Options, engine, generate, kernels, parser, positive, print_table, prompts, sampling


def sizes(text: str) -> list[int]:
    found = [positive(part.strip()) for part in text.split(",")]
    if len(set(found)) < len(found):
        raise argparse.ArgumentTypeError(f"`{text}` names a batch size twice")
    return found


def busy_ns(rows: Any) -> int:
    """Time in which at least one kernel ran; kernels may overlap."""
    busy, until = 0, 0
    spans = zip(rows["start_ns"].to_pylist(), rows["end_ns"].to_pylist(), strict=True)
    for start, end in sorted(spans):
        busy += max(0, end - max(start, until))
        until = max(until, end)
    return busy


def main() -> None:
    arguments = parser("A sweep over batch sizes in one engine.", num_prompts=None)
    arguments.add_argument("--batches", type=sizes, default=[1, 2, 4, 8, 16, 32], help="sizes, joined by commas")
    options = arguments.parse_args(namespace=Options())
    batches: list[int] = options.batches
    options.num_prompts = max(batches)  # the engine's largest batch
    llm = engine(options)
    how = sampling(options)
    lines = []
    for batch in batches:
        wanted = prompts(options, batch)
        generate(llm, wanted, how)  # warm-up
        with profile_region(llm, name=f"batch {batch}") as region:
            did = generate(llm, wanted, how)
        line = [str(batch), f"{did.ms_per_step:.3f}", f"{did.tokens / did.seconds:,.0f}"]
        rows = kernels(region, ["start_ns", "end_ns"])
        if rows is not None and rows.num_rows:
            line += [f"{busy_ns(rows) / (did.seconds * 1e9):.1%}", f"{rows.num_rows / did.steps:,.1f}"]
        lines.append(line)
    head = ("batch", "ms/step", "tokens/s", "GPU busy", "kernels/step")
    print_table(head[: len(lines[0])], lines)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""A closer look at each kernel: how long, how steady, how large. Hardware counters are not there yet.

colonel run --flavor vllm -- python demos/vllm/04_counters_deep_dive.py --dummy
python demos/vllm/04_counters_deep_dive.py --session latest
"""

from __future__ import annotations

from typing import Any

import colonel
from colonel.profiling.vllm import profile_region
from common import Options, engine, generate, kernels, parser, positive, print_table, prompts, sampling, stop

REGION = "deep dive"
GRID = ("grid_x", "grid_y", "grid_z")
BLOCK = ("block_x", "block_y", "block_z")
LAUNCH = ["short_name", *GRID, *BLOCK, "registers_per_thread", "static_shared_bytes", "dynamic_shared_bytes"]
COLUMNS = [*LAUNCH, "waves", "start_ns", "end_ns"]
HEAD = ("kernel", "count", "median us", "p95 us", "share", "grid", "block", "registers", "shared kB", "waves")


def quantile(ordered: list[int], share: float) -> int:
    """The least value that has so large a share of the others at or below it."""
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def deep_dive(rows: Any, limit: int) -> None:
    """Kernels of the same name and launch together, those that take longest first."""
    import pyarrow.compute as pc

    rows = rows.append_column("ns", pc.subtract(rows["end_ns"], rows["start_ns"]))
    total = pc.sum(rows["ns"]).as_py()
    grouped = rows.group_by(LAUNCH).aggregate([("ns", "list"), ("ns", "sum"), ("waves", "max")])
    lines = []
    for one in grouped.sort_by([("ns_sum", "descending")]).slice(0, limit).to_pylist():
        ordered = sorted(one["ns_list"])
        lines.append(
            (
                one["short_name"],
                len(ordered),
                f"{quantile(ordered, 0.5) / 1e3:.2f}",
                f"{quantile(ordered, 0.95) / 1e3:.2f}",
                f"{one['ns_sum'] / total:.1%}",
                "x".join(str(one[axis]) for axis in GRID),
                "x".join(str(one[axis]) for axis in BLOCK),
                one["registers_per_thread"],
                f"{(one['static_shared_bytes'] + one['dynamic_shared_bytes']) / 1024:.1f}",
                "-" if one["waves_max"] is None else f"{one['waves_max']:.2f}",
            )
        )
    print_table(HEAD, lines)
    print("\nThis is the kernel view. Hardware counters (throughput, stalls, tensor cores) are not recorded yet.")


def read(session: str, limit: int) -> None:
    """The table of a session that this demo recorded before; no GPU and no vLLM is needed."""
    try:
        deep_dive(colonel.open(session).kernels(columns=COLUMNS, window=REGION), limit)
    except colonel.ColonelError as error:
        raise stop(str(error)) from None


def main() -> None:
    arguments = parser("A closer look at the kernels of a decode.")
    arguments.add_argument("--limit", type=positive, default=25, help="kernels shown")
    arguments.add_argument("--session", help="read this session of the demo again instead of running vLLM")
    options = arguments.parse_args(namespace=Options())
    if options.session:
        read(options.session, options.limit)
        return
    llm = engine(options)
    wanted, how = prompts(options), sampling(options)
    generate(llm, wanted, how)  # warm-up
    with profile_region(llm, name=REGION) as region:
        did = generate(llm, wanted, how)
    print(f"decode: {did}\n")
    rows = kernels(region, COLUMNS)
    if rows is not None and region.session is not None:
        deep_dive(rows, options.limit)
        print(f"Waves come when colonel has sealed the session: --session {region.session.id} shows them afterwards.")


if __name__ == "__main__":
    main()

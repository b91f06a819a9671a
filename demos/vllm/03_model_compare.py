#!/usr/bin/env python3
"""Two models, kernel by kernel: where does the larger one spend its time?

colonel run --flavor vllm -- python demos/vllm/03_model_compare.py --dummy
"""

from __future__ import annotations

from colonel.profiling.vllm import profile_region
from common import (
    Generated,
    Options,
    engine,
    generate,
    kernels,
    parser,
    positive,
    print_table,
    prompts,
    sampling,
    shut_down,
)

# Microseconds a step, by short name.
Times = dict[str, float]


def measure(options: Options, model: str) -> tuple[Generated, Times]:
    """An engine of its own for the model, gone afterwards."""
    options.model = model
    llm = engine(options)
    wanted, how = prompts(options), sampling(options)
    generate(llm, wanted, how)  # warm-up
    with profile_region(llm, name=model) as region:
        did = generate(llm, wanted, how)
    shut_down(llm)
    rows = kernels(region, ["short_name", "start_ns", "end_ns"])
    if rows is None:
        return did, {}
    import pyarrow.compute as pc

    rows = rows.append_column("ns", pc.subtract(rows["end_ns"], rows["start_ns"]))
    sums = rows.group_by("short_name").aggregate([("ns", "sum")]).to_pylist()
    return did, {one["short_name"]: one["ns_sum"] / 1e3 / did.steps for one in sums}


def table(one: Times, other: Times, limit: int) -> None:
    """Time a step of each, and the ratio; a kernel that only one of them runs has none."""
    longest = sorted({*one, *other}, key=lambda name: max(one.get(name, 0), other.get(name, 0)), reverse=True)
    lines = [
        (
            name,
            f"{one[name]:,.1f}" if name in one else "-",
            f"{other[name]:,.1f}" if name in other else "-",
            f"{other[name] / one[name]:.2f}" if name in one and name in other else "-",
        )
        for name in longest[:limit]
    ]
    total, total_other = sum(one.values()), sum(other.values())
    lines.append(("all kernels", f"{total:,.1f}", f"{total_other:,.1f}", f"{total_other / total:.2f}"))
    print_table(("kernel", "us/step", "us/step (other)", "ratio"), lines)


def main() -> None:
    arguments = parser("Two models, one after the other.")
    arguments.add_argument("--other", default="Qwen/Qwen2.5-1.5B", help="the model to compare with")
    arguments.add_argument("--limit", type=positive, default=20, help="kernels shown")
    options = arguments.parse_args(namespace=Options())
    models = (options.model, options.other)
    if models[0] == models[1]:
        arguments.error(f"--model and --other are both `{models[0]}`: name two models")
    (did, times), (did_other, times_other) = [measure(options, model) for model in models]
    print(f"{models[0]}: {did}")
    print(f"{models[1]} (other): {did_other}")
    if times and times_other:
        print()
        table(times, times_other, options.limit)


if __name__ == "__main__":
    main()

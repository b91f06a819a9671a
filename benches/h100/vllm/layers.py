"""Which layer each kernel of a Qwen2 is of, by the order in which such a model runs, and how a session's columns agree.

The order: input norm, qkv, rotation, the cache's update, attention, output, norm, gate and up, activation, down. So a
layer begins with the last norm before its one `reshape_and_cache`, and ends before the second norm after it. A layer
that does not begin where another ended is the first of a step. In compiled code the first norm has the embedding in it:
it may be called either.

What is outside: the norm that ends the last layer is the model's own; the first product behind it is that with lm_head.
"""

import collections
import re
from dataclasses import dataclass, field
from typing import Any

NORM = re.compile(r"norm|rsqrt")
CACHE = re.compile(r"^reshape_and_cache")
PRODUCT = re.compile(r"nvjet|gemm|gemv", re.IGNORECASE)
EMBEDDING = re.compile(r"embedding|vectorized_gather|indexSelect")
SAMPLING = re.compile(r"gumbel_sample|get_num_sampled|argmax|reduce_kernel")
# In eager code a range around each layer says it: `…/model.layers.12/self_attn`.
RANGE = re.compile(r"(?:^|/)model\.layers\.(\d+)(?:[/.]|$)")
MOST_BEFORE, MOST_AFTER = 6, 14
OWN_NAMES = {
    "embed_tokens": {"embed_tokens"},
    "norm": {"norm"},
    "lm_head": {"lm_head", "logits"},
    "sampling": {"sampling", "sampler"},
}


@dataclass
class Pass:
    """Once through the layers, by places in the list of kernels."""

    begin: int
    end: int
    """The norm behind the last layer."""
    layers: list[int] = field(default_factory=list)
    """Layer of each kernel from `begin` to before `end`."""


def passes(names: list[str]) -> list[Pass]:
    """By the rule above, kernels in order of start."""
    norms = [at for at, name in enumerate(names) if NORM.search(name)]
    found: list[Pass] = []
    for cache in (at for at, name in enumerate(names) if CACHE.search(name)):
        before = [at for at in norms if cache - MOST_BEFORE <= at < cache]
        after = [at for at in norms if cache < at <= cache + MOST_AFTER]
        if not before or len(after) < 2:
            raise ValueError(f"kernel {cache} of {len(names)} updates the cache without norms around it")
        begin, end = before[-1], after[1]
        if not found or found[-1].end != begin:
            found.append(Pass(begin, begin))
        current = found[-1]
        number = current.layers[-1] + 1 if current.layers else 0
        current.layers += [number] * (end - begin)
        current.end = end
    return found


def outside(names: list[str], found: list[Pass]) -> dict[int, str]:
    """Parts beside the layers: place, and what it is."""
    parts: dict[int, str] = {}
    ends = [*(one.begin for one in found[1:]), len(names)]
    for one, until in zip(found, ends, strict=True):
        for at in range(max(0, one.begin - 2), one.begin):
            if EMBEDDING.search(names[at]):
                parts[at] = "embed_tokens"
        parts[one.end] = "norm"
        behind = [at for at in range(one.end + 1, until) if PRODUCT.search(names[at])]
        if behind:
            parts[behind[0]] = "lm_head"
            for at in range(behind[0] + 1, until):
                if SAMPLING.search(names[at]):
                    parts[at] = "sampling"
    return parts


def judged(frame: Any, layers: int) -> dict:
    """A session's kernels against the rule, window by window. `frame` has mangled and short names, layer and path."""
    totals: collections.Counter = collections.Counter()
    beside: collections.Counter = collections.Counter()
    named: collections.Counter = collections.Counter()
    sources: collections.Counter = collections.Counter()
    wrong: collections.Counter = collections.Counter()
    ranges: collections.Counter = collections.Counter()
    columns: dict[tuple, list[list]] = {}
    for _, window in frame.sort_values("start_ns").groupby(["pid", "window"]):
        names, said = list(window["short_name"]), [text(value) for value in window["layer"]]
        source, path = [text(value) for value in window["layer_source"]], [text(v) for v in window["nvtx_path"]]
        found = passes(names)
        of_layers: set[int] = set()
        for one in found:
            totals["passes"] += 1
            totals["whole"] += one.layers[-1] == layers - 1
            for at, expected in enumerate(one.layers, one.begin):
                of_layers.add(at)
                is_right = said[at] == str(expected)
                if at == one.begin and EMBEDDING.search(names[at]):
                    is_right |= said[at] in OWN_NAMES["embed_tokens"]
                totals["kernels"] += 1
                totals["right"] += is_right
                sources[source[at] or "none"] += 1
                if not is_right:
                    wrong[f"{names[at][:60]}: {said[at]} by {source[at]}, expected {expected}"] += 1
                inner = RANGE.search(path[at] or "")
                if inner:
                    ranges["named"] += 1
                    ranges["agree"] += int(inner.group(1)) == expected
            key = tuple(names[one.begin : one.end])
            columns.setdefault(key, []).append(said[one.begin : one.end])
        parts = outside(names, found)
        for at, name in enumerate(names):
            if at in of_layers:
                continue
            part = parts.get(at)
            beside[f"{part or '-'} | {said[at]} by {source[at]} | {name[:60]}"] += 1
            if part:
                named[part] += 1
                named[f"{part} by its name"] += said[at] in OWN_NAMES[part]
            totals["outside with a number"] += (said[at] or "").isdigit()
    return {
        **totals,
        "share": share(totals["right"], totals["kernels"]),
        "sources": dict(sources),
        "wrong": dict(wrong.most_common(20)),
        # How good the rule is itself: ranges of the model's own modules against it, in eager code.
        "rule_against_ranges": {**ranges, "share": share(ranges["agree"], ranges["named"])},
        "beside_the_layers": dict(named),
        "outside": dict(beside.most_common(60)),
        "columns": columns,
    }


def agreement(one: dict, other: dict) -> dict:
    """Of two sessions: the column of passes with the same kernels in the same order, kernel by kernel."""
    compared = equal = 0
    unmatched = 0
    for key, columns in one["columns"].items():
        others = other["columns"].get(key)
        if others is None:
            unmatched += len(columns)
            continue
        for at, column in enumerate(columns):
            beside = others[min(at, len(others) - 1)]
            compared += len(column)
            equal += sum(a == b for a, b in zip(column, beside, strict=True))
    return {"kernels": compared, "equal": equal, "share": share(equal, compared), "passes_without_a_twin": unmatched}


def share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def text(value: Any) -> str | None:
    return value if isinstance(value, str) else None

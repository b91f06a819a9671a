"""Kernel names: which of a model's layers a kernel belongs to, what torch's trace holds, how two counts differ."""

import collections
import gzip
import json
import re
from pathlib import Path

# What a dense Qwen2 runs in each layer, and how many times; lm_head is one more GEMM a step. Eager and compiled code
# name the same work differently. The attention's helper kernels (prepare, combine) are no attention kernel here.
FAMILIES = {
    "attention": (re.compile(r"FlashAttnFwd(?!Combine)|flash_fwd_(splitkv_)?kernel"), 1),
    "reshape_and_cache": (re.compile(r"reshape_and_cache"), 1),
    "gemm": (re.compile(r"nvjet|gemm|gemv|cublas(?!Lt::splitKreduce)", re.IGNORECASE), 4),
    "rms_norm": (re.compile(r"rms_norm|triton_(red|per)_fused|triton_\w*(rsqrt|rms)"), 2),
    "silu_and_mul": (re.compile(r"act_and_mul|silu|triton_poi_fused"), 1),
}


def family(name: str) -> str | None:
    return next((key for key, (pattern, _) in FAMILIES.items() if pattern.search(name)), None)


def families(counts: collections.Counter) -> dict[str, int]:
    """Kernels of each family."""
    found = dict.fromkeys(FAMILIES, 0)
    for name, count in counts.items():
        key = family(name)
        if key:
            found[key] += count
    return found


def per_layer_step(counts: collections.Counter, layers: int) -> dict:
    """Steps, by the kernel that each layer runs once a step, and what the others come to for a layer and step."""
    found = families(counts)
    cached = found["reshape_and_cache"]
    steps, rest = divmod(cached, layers)
    each = {key: round(count / cached, 3) if cached else None for key, count in found.items()}
    # Compiled code may fuse a norm into another kernel, so only what is never fused must be exact.
    exact = cached > 0 and rest == 0 and found["attention"] == cached
    whole = exact and all(found[key] >= layers * steps for key in FAMILIES)
    return {"ok": whole, "steps": steps, "layers": layers, "exact": exact, "families": found, "a_layer_and_step": each}


def trace_files(folder: Path) -> list[Path]:
    """The traces of torch's profiler in a folder, oldest first; those of the frontend left out."""
    found = [path for path in folder.rglob("*.pt.trace.json*") if "async_llm" not in path.name]
    return sorted(found, key=lambda path: path.stat().st_mtime_ns)


def trace_kernels(path: Path) -> tuple[collections.Counter, collections.Counter]:
    """Kernels of a torch trace: by name, and by name with grid and block."""
    content = path.read_bytes()
    events = json.loads(gzip.decompress(content) if path.suffix == ".gz" else content)["traceEvents"]
    names: collections.Counter = collections.Counter()
    shapes: collections.Counter = collections.Counter()
    for event in events:
        if event.get("cat") == "kernel":
            shape = event["args"]
            names[event["name"]] += 1
            shapes[(event["name"], *shape["grid"], *shape["block"])] += 1
    return names, shapes


def difference(ours: collections.Counter, theirs: collections.Counter) -> dict:
    """Equal, or everything that one side has more of."""
    return {
        "equal": ours == theirs,
        "ours": sum(ours.values()),
        "theirs": sum(theirs.values()),
        "only_ours": {str(key): count for key, count in (ours - theirs).items()},
        "only_theirs": {str(key): count for key, count in (theirs - ours).items()},
    }


def nearest(ours: collections.Counter, rounds: list[collections.Counter]) -> tuple[int, dict]:
    """The round that differs least. Which prompts share a step is up to chance, and so are some kernels."""
    compared = [difference(ours, one) for one in rounds]
    sizes = [sum(d["only_ours"].values()) + sum(d["only_theirs"].values()) for d in compared]
    best = min(range(len(sizes)), key=sizes.__getitem__)
    return best, compared[best]

"""Ranges of a model's layers.

Where Python calls the modules (compilation mode NONE), they are torch's forward hooks. Compiled code calls none, and
hooks would change what dynamo traces and the key of vLLM's compile cache. There Python still calls the attention of
each layer and the compiled pieces between two of them: piece 12 is the end of layer 11 and the beginning of layer 12.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Iterator
from typing import Any

from colonel.profiling.vllm.annotation.ranges import Placed, Ranges

LISTS = ("layers", "h", "blocks")
"""Names of the list that holds a model's decoder layers."""
ATTENTION = (("impl", "forward"), ("impl", "do_kv_cache_update"), ("", "forward_impl"))
"""What the custom operators call of an attention layer; the last is that of MLA."""


def put_hooks(model: Any, placed: Placed, ranges: Ranges) -> None:
    """Ranges around layers, the modules in them, and the modules beside them.

    Raises:
        LookupError: the model has no layers.
    """
    found = list(layer_lists(model))
    if not found:
        raise LookupError(f"{type(model).__name__} has no list of modules named {', '.join(LISTS)}")
    modules = dict(model.named_modules())
    for path in found:
        for number, layer in modules[path].named_children():
            placed.hook(layer, f"{path}.{number}", ranges)
            for name, module in layer.named_children():
                placed.hook(module, name, ranges)
        parent, _, own_name = path.rpartition(".")
        for name, module in modules[parent].named_children():
            if name != own_name:
                placed.hook(module, name, ranges)


def layer_lists(model: Any) -> Iterator[str]:
    """Where the lists of layers are: `model.layers`."""
    import torch

    for path, module in model.named_modules():
        if isinstance(module, torch.nn.ModuleList) and path.rpartition(".")[2] in LISTS:
            yield path


def put_on_attention(context: dict[str, Any], placed: Placed, ranges: Ranges) -> None:
    """Ranges around the attention of each layer, by the layer's name: `model.layers.12.self_attn.attn`.

    Raises:
        LookupError: there is no such layer.
    """
    count = 0
    for name, layer in context.items():
        for part, attribute in ATTENTION:
            owner = getattr(layer, part, None) if part else layer
            if callable(getattr(owner, attribute, None)):
                placed.replace(owner, attribute, functools.partial(ranges.around, name=name))
                count += 1
    if not count:
        raise LookupError("no attention layer in compilation_config.static_forward_context has a `forward`")


def put_on_pieces(in_graphs: bool, placed: Placed, ranges: Ranges) -> None:
    """Ranges around the compiled pieces: `piece 12`. Where graphs are made of pieces, around their replays, too.

    Raises:
        LookupError, AttributeError: vLLM has no such class.
    """
    # Never both: a graph's wrapper calls its piece.
    place = ("cuda_graph", "CUDAGraphWrapper") if in_graphs else ("piecewise_backend", "PiecewiseBackend")
    module = sys.modules.get(f"vllm.compilation.{place[0]}")
    if module is None:
        raise LookupError(f"vllm.compilation.{place[0]} is not in use")
    name = graph_name if in_graphs else piece_name
    placed.replace(getattr(module, place[1]), "__call__", lambda old: ranges.around(old, name))


def piece_name(piece: Any, *_: Any, **__: Any) -> str:
    """Of a piece."""
    return f"piece {piece.piecewise_compile_index}"


def graph_name(wrapper: Any, *_: Any, **__: Any) -> str | None:
    """Of the wrapper of a piece's graphs; that of the whole model has none."""
    return piece_name(wrapper.runnable) if wrapper.runtime_mode.name == "PIECEWISE" else None

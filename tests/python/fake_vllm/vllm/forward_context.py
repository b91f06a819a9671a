"""What a call of the model is made in (forward_context.py)."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from vllm.config import CUDAGraphMode


@dataclass(frozen=True)
class BatchDescriptor:
    """A graph under Model Runner V1."""

    num_tokens: int
    num_reqs: int | None = None


@dataclass
class ForwardContext:
    cudagraph_runtime_mode: CUDAGraphMode
    batch_descriptor: BatchDescriptor | None


_current: ForwardContext | None = None


def get_forward_context() -> ForwardContext:
    assert _current is not None
    return _current


@contextlib.contextmanager
def set_forward_context(
    cudagraph_runtime_mode: CUDAGraphMode = CUDAGraphMode.NONE, batch_descriptor: BatchDescriptor | None = None
) -> Iterator[None]:
    global _current
    before, _current = _current, ForwardContext(cudagraph_runtime_mode, batch_descriptor)
    try:
        yield
    finally:
        _current = before

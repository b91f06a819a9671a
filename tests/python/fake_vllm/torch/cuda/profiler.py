"""The CUDA profiler API (torch/cuda/profiler.py)."""

from vllm.gpu import profiler_start as start
from vllm.gpu import profiler_stop as stop

__all__ = ["start", "stop"]

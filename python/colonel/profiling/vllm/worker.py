"""Methods added to vLLM's workers by `worker_extension_cls`, called by name. Imported in the worker's process."""

from __future__ import annotations

import os


class ProfilerWorker:
    """Calls of the CUDA profiler API, for profilers that are gated by it."""

    def colonel_profiler_start(self) -> int:
        """Calls cudaProfilerStart. Returns the worker's pid."""
        import torch

        torch.cuda.profiler.start()
        return os.getpid()

    def colonel_profiler_stop(self) -> int:
        """Waits for the work in flight, which nsys would cut off, and calls cudaProfilerStop. Returns the pid."""
        import torch

        torch.cuda.synchronize()
        torch.cuda.profiler.stop()
        return os.getpid()

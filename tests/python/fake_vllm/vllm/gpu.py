"""The part that PyTorch plays: the CUDA runtime, as a program linked to it sees it.

libcudart is loaded into the global scope and its functions are then looked up there (`CDLL(None)`), not through its own
handle: real calls come from libtorch, which is linked to libcudart, so the loader finds a preloaded library's
`cudaProfilerStart` first. A lookup by handle would start in libcudart itself and pass the preloaded one by.
"""

import ctypes
import os
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint32, c_void_p
from typing import Any, NamedTuple

from vllm.kernels import Kernel

# Loaded when imported, so in the parent, too, as `import torch` does. That initialises nothing.
try:
    _RUNTIME: ctypes.CDLL | None = ctypes.CDLL("libcudart.so.13", mode=ctypes.RTLD_GLOBAL)
except OSError:
    _RUNTIME = None
_CUDA = ctypes.CDLL(None)

_NON_BLOCKING = 1
_CAPTURE_THREAD_LOCAL = 1
_TO_DEVICE, _TO_HOST = 1, 2
_CLUSTER_DIMENSION = 4
_COPY_BYTES = 2_048

# Process in which CUDA was initialised. A forked child is not initialised, whatever its parent was.
_initialized_in: int | None = None


class _Dim3(ctypes.Structure):
    _fields_ = [("x", c_uint32), ("y", c_uint32), ("z", c_uint32)]


class _Attribute(ctypes.Structure):
    _fields_ = [("id", c_uint32), ("pad", c_uint32), ("value", c_uint32 * 16)]


class _LaunchConfig(ctypes.Structure):
    _fields_ = [
        ("grid", _Dim3),
        ("block", _Dim3),
        ("shared", c_size_t),
        ("stream", c_void_p),
        ("attributes", ctypes.POINTER(_Attribute)),
        ("attribute_count", c_uint32),
    ]


class Graph(NamedTuple):
    """An executable CUDA graph."""

    handle: c_void_p
    kernels: int


def is_initialized() -> bool:
    return _initialized_in == os.getpid()


def profiler_start() -> None:
    """`torch.cuda.profiler.start`."""
    _call("cudaProfilerStart")


def profiler_stop() -> None:
    _call("cudaProfilerStop")


def _call(function: str, *arguments: Any) -> None:
    status = getattr(_CUDA, function)(*arguments)
    if status:
        text = _CUDA.cudaGetErrorString
        text.restype = c_char_p
        raise RuntimeError(f"CUDA error: {text(status).decode()} ({function} gave {status})")


class Gpu:
    """A GPU and one stream on it; counts the kernels that it is given."""

    def __init__(self, device: int) -> None:
        global _initialized_in
        if _RUNTIME is None:
            raise RuntimeError("no libcudart.so.13 was found; run this under `colonel run --sim`")
        _call("cudaSetDevice", c_int(device))
        _initialized_in = os.getpid()
        self.launched = 0
        self._capturing = 0
        self._functions: dict[str, Any] = {}
        self._stream = c_void_p()
        self._memory = c_void_p()
        self._host = ctypes.create_string_buffer(_COPY_BYTES)
        register = _CUDA["__cudaRegisterFatBinary"]
        register.restype = c_void_p
        self._binary = c_void_p(register(None))
        _call("cudaStreamCreateWithFlags", byref(self._stream), _NON_BLOCKING)
        _call("cudaMalloc", byref(self._memory), c_size_t(1 << 20))

    def _function(self, name: str) -> Any:
        """The host address that stands for a kernel: code from nvcc has it registered before `main`."""
        if name not in self._functions:
            place = ctypes.create_string_buffer(name.encode())
            _CUDA["__cudaRegisterFunction"](self._binary, place, place, place, -1, None, None, None, None, None)
            self._functions[name] = place
        return self._functions[name]

    def launch(self, kernel: Kernel, tokens: int) -> None:
        x, y, z = kernel.grid
        grid, block = _Dim3(x * tokens if kernel.by_token else x, y, z), _Dim3(*kernel.block)
        function, shared = self._function(kernel.name), c_size_t(kernel.shared)
        if kernel.cluster:
            attribute = _Attribute(_CLUSTER_DIMENSION, 0, (c_uint32 * 16)(kernel.cluster, 1, 1))
            config = _LaunchConfig(grid, block, shared, self._stream, ctypes.pointer(attribute), 1)
            _call("cudaLaunchKernelExC", byref(config), function, None)
        else:
            _call("cudaLaunchKernel", function, grid, block, None, shared, self._stream)
        self._capturing += 1
        self.launched += 1

    def begin_capture(self) -> None:
        self._capturing = 0
        _call("cudaStreamBeginCapture", self._stream, _CAPTURE_THREAD_LOCAL)

    def end_capture(self) -> Graph:
        graph, executable = c_void_p(), c_void_p()
        _call("cudaStreamEndCapture", self._stream, byref(graph))
        _call("cudaGraphInstantiate", byref(executable), graph, ctypes.c_uint64(0))
        # What was captured has not run.
        self.launched -= self._capturing
        return Graph(executable, self._capturing)

    def replay(self, graph: Graph) -> None:
        _call("cudaGraphLaunch", graph.handle, self._stream)
        self.launched += graph.kernels

    def copy_in(self) -> None:
        _call("cudaMemcpyAsync", self._memory, self._host, c_size_t(_COPY_BYTES), _TO_DEVICE, self._stream)

    def copy_out(self) -> None:
        _call("cudaMemcpyAsync", self._host, self._memory, c_size_t(_COPY_BYTES), _TO_HOST, self._stream)

    def synchronize(self) -> None:
        _call("cudaStreamSynchronize", self._stream)

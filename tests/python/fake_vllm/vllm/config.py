"""What an engine is told to do (config/*.py)."""

import enum
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import vllm.envs as envs


@dataclass
class ProfilerConfig:
    profiler: str | None = None
    torch_profiler_dir: str = ""
    ignore_frontend: bool = False
    delay_iterations: int = 0
    max_iterations: int = 0

    def __post_init__(self) -> None:
        if self.profiler not in (None, "torch", "cuda"):
            raise ValueError(f"profiler: Input should be 'torch' or 'cuda', got {self.profiler!r}")
        if self.torch_profiler_dir and self.profiler != "torch":
            raise ValueError("torch_profiler_dir is only applicable when profiler is set to 'torch'")
        if self.profiler == "torch" and not self.torch_profiler_dir:
            raise ValueError("torch_profiler_dir must be set when profiler is 'torch'")


class CompilationMode(enum.IntEnum):
    NONE = 0
    STOCK_TORCH_COMPILE = 1
    DYNAMO_TRACE_ONCE = 2
    VLLM_COMPILE = 3


class CUDAGraphMode(enum.Enum):
    NONE = 0
    PIECEWISE = 1
    FULL = 2
    # The fake's prefill takes no graph, so no pieces are captured for it.
    FULL_AND_PIECEWISE = (FULL, PIECEWISE)

    def decode_mode(self) -> "CUDAGraphMode":
        return CUDAGraphMode(self.value[0]) if isinstance(self.value, tuple) else self

    def has_piecewise_cudagraphs(self) -> bool:
        return self in (CUDAGraphMode.PIECEWISE, CUDAGraphMode.FULL_AND_PIECEWISE)


@dataclass
class CompilationConfig:
    # Both are given as the enum, its name or its number; `EngineArgs` fills in what is left out.
    mode: Any = None
    cudagraph_mode: Any = None
    cudagraph_capture_sizes: list[int] | None = None
    # Attention layers by name, which they add themselves to.
    static_forward_context: dict[str, Any] = field(default_factory=dict, init=False)

    def fill_in(self, enforce_eager: bool) -> None:
        """As VllmConfig does (config/vllm.py)."""
        if self.mode is None:
            self.mode = CompilationMode.NONE if enforce_eager else CompilationMode.VLLM_COMPILE
        if isinstance(self.mode, int):
            self.mode = CompilationMode(self.mode)
        if enforce_eager or self.cudagraph_mode is None:
            self.cudagraph_mode = CUDAGraphMode.NONE if enforce_eager else CUDAGraphMode.FULL_AND_PIECEWISE
        if isinstance(self.cudagraph_mode, str):
            self.cudagraph_mode = CUDAGraphMode[self.cudagraph_mode]


@dataclass
class ModelConfig:
    model: str
    max_model_len: int
    enforce_eager: bool
    skip_tokenizer_init: bool
    hf_overrides: dict[str, Any]
    num_hidden_layers: int = 4
    vocab_size: int = 151_936

    def __post_init__(self) -> None:
        # The real one needs a config.json; a name without one is a small model here.
        file = Path(self.model) / "config.json"
        known = json.loads(file.read_text()) if file.is_file() else {}
        known |= self.hf_overrides
        self.num_hidden_layers = known.get("num_hidden_layers", self.num_hidden_layers)
        self.vocab_size = known.get("vocab_size", self.vocab_size)


@dataclass
class ParallelConfig:
    tensor_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    worker_cls: str = "vllm.v1.worker.gpu_worker.Worker"
    worker_extension_cls: str = ""

    @property
    def world_size(self) -> int:
        return self.tensor_parallel_size


@dataclass
class SchedulerConfig:
    max_num_seqs: int = 256


@dataclass
class ObservabilityConfig:
    # Has no effect here, as with the real model runner V2 and under CUDA graphs.
    enable_layerwise_nvtx_tracing: bool = False


@dataclass
class VllmConfig:
    model_config: ModelConfig
    parallel_config: ParallelConfig = field(default_factory=ParallelConfig)
    scheduler_config: SchedulerConfig = field(default_factory=SchedulerConfig)
    compilation_config: CompilationConfig = field(default_factory=CompilationConfig)
    observability_config: ObservabilityConfig = field(default_factory=ObservabilityConfig)
    profiler_config: ProfilerConfig = field(default_factory=ProfilerConfig)
    # Seconds for running requests when EngineCore is asked to stop; 0 aborts them.
    shutdown_timeout: int = 0

    @property
    def use_v2_model_runner(self) -> bool:
        """The default for dense models since 0.25 (config/vllm.py)."""
        chosen: bool | None = envs.VLLM_USE_V2_MODEL_RUNNER
        return True if chosen is None else chosen

    @property
    def cudagraph_capture_sizes(self) -> list[int]:
        """Batch sizes that get a CUDA graph (config/vllm.py, `_set_cudagraph_sizes`); none when eager."""
        if self.compilation_config.cudagraph_mode is CUDAGraphMode.NONE:
            return []
        if self.compilation_config.cudagraph_capture_sizes is not None:
            return sorted(set(self.compilation_config.cudagraph_capture_sizes))
        most = min(self.scheduler_config.max_num_seqs * 2, 512)
        return [size for size in [1, 2, 4, *range(8, 256, 8), *range(256, 513, 16)] if size <= most]

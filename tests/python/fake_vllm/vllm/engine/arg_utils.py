"""Arguments of an engine (engine/arg_utils.py): of about 200 fields those that colonel, its demos and tests use."""

from dataclasses import dataclass, field
from typing import Any

from vllm.config import (
    CompilationConfig,
    ModelConfig,
    ObservabilityConfig,
    ParallelConfig,
    ProfilerConfig,
    SchedulerConfig,
    VllmConfig,
)
from vllm.plugins import load_general_plugins


@dataclass
class EngineArgs:
    # With an effect here:
    model: str = "fake"
    max_model_len: int | None = None
    max_num_seqs: int = 256
    enforce_eager: bool = False
    skip_tokenizer_init: bool = False
    hf_overrides: dict[str, Any] = field(default_factory=dict)
    tensor_parallel_size: int = 1
    distributed_executor_backend: str | None = None
    worker_cls: str = "auto"
    worker_extension_cls: str = ""
    compilation_config: CompilationConfig | dict[str, Any] = field(default_factory=CompilationConfig)
    profiler_config: ProfilerConfig | dict[str, Any] = field(default_factory=ProfilerConfig)
    shutdown_timeout: int = 0
    # Taken and kept, without an effect:
    enable_layerwise_nvtx_tracing: bool = False
    tokenizer: str | None = None
    load_format: str = "auto"
    dtype: str = "auto"
    seed: int = 0
    gpu_memory_utilization: float = 0.92
    kv_cache_memory_bytes: int | None = None
    max_num_batched_tokens: int | None = None
    enable_prefix_caching: bool | None = None
    async_scheduling: bool | None = None
    trust_remote_code: bool = False
    disable_custom_all_reduce: bool = False
    disable_log_stats: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.compilation_config, dict):
            self.compilation_config = CompilationConfig(**self.compilation_config)
        if isinstance(self.profiler_config, dict):
            self.profiler_config = ProfilerConfig(**self.profiler_config)
        # Here already, in the parent, and not only in EngineCore.
        load_general_plugins()

    def create_engine_config(self, usage_context: Any = None) -> VllmConfig:
        assert isinstance(self.compilation_config, CompilationConfig)
        assert isinstance(self.profiler_config, ProfilerConfig)
        self.compilation_config.fill_in(self.enforce_eager)
        parallel = ParallelConfig(
            self.tensor_parallel_size,
            self.distributed_executor_backend,
            worker_extension_cls=self.worker_extension_cls,
        )
        if self.worker_cls != "auto":
            parallel.worker_cls = self.worker_cls
        return VllmConfig(
            model_config=ModelConfig(
                self.model,
                self.max_model_len or 4096,
                self.enforce_eager,
                self.skip_tokenizer_init,
                self.hf_overrides,
            ),
            parallel_config=parallel,
            scheduler_config=SchedulerConfig(self.max_num_seqs),
            compilation_config=self.compilation_config,
            observability_config=ObservabilityConfig(self.enable_layerwise_nvtx_tracing),
            profiler_config=self.profiler_config,
            shutdown_timeout=self.shutdown_timeout,
        )


@dataclass
class AsyncEngineArgs(EngineArgs):
    enable_log_requests: bool = False

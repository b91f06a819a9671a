"""vLLM V1: regions of a run, recorded in the processes that do the engine's GPU work.

    from colonel.profiling.vllm import profile_region

    with profile_region(llm, name="decode"):
        llm.generate(prompts)

vLLM is imported only where it is needed, and is no dependency.
"""

from colonel.profiling.vllm.nvtx import enable_nvtx
from colonel.profiling.vllm.region import ProfileRegion, profile_region

__all__ = ["ProfileRegion", "enable_nvtx", "profile_region"]

#!/usr/bin/env python3
"""A decode loop of real vLLM, recorded where its kernels are launched: in the EngineCore process.

colonel run --flavor vllm -- python demos/vllm/05_real_vllm_decode.py --num-prompts 4 --max-tokens 16 --dummy
"""

from colonel.profiling.vllm import profile_region
from common import Options, engine, generate, parser, prompts, sampling


def main() -> None:
    options = parser("Decode with vLLM, in one region.").parse_args(namespace=Options())
    llm = engine(options)
    wanted, how = prompts(options), sampling(options)
    generate(llm, wanted, how)  # warm-up: compilation and first-time set-up stay outside the region

    with profile_region(llm, name="decode") as region:
        did = generate(llm, wanted, how)

    weights = "random weights" if options.dummy else "its own weights"
    mode = "eager" if options.eager else "CUDA graphs"
    print(f"{options.model} ({weights}), {mode}, {options.num_prompts} prompts x {options.max_tokens} tokens")
    print(f"decode: {did}")
    for pid, window in region.windows.items():
        print(f"recorded as window {window} of process {pid}")
    if not region.active:
        print("nothing was recorded: COLONEL_DISABLE_PROFILE_REGION=1")


if __name__ == "__main__":
    main()

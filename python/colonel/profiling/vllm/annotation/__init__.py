"""Colonel's own NVTX ranges in vLLM's workers: steps, the model's call, its layers, sampling, the capture of graphs.

Model Runner V2 has no ranges, and vLLM's own layer hooks do nothing in compiled code. These are made in both runners,
compiled or not, and while CUDA graphs are captured. They are there only while somebody listens (`listeners`): a step
that nobody records costs a look at one number.

    wrapper    the one class that is patched, in the process that will fork or in each that was spawned
    worker     a worker's steps, and when the ranges within them come and go
    parts      what is in a step: the model's call, logits, layers
    layers     layers, by hooks of modules where Python calls them, else by attention and the compiler's pieces
    ranges     a range around a function
"""

from colonel.profiling.vllm.annotation.wrapper import ENABLE, install

__all__ = ["ENABLE", "install"]

"""Kernels of other frameworks: `frameworks.py triton|cupy|jax`. Prints what it launched as JSON."""

import json
import os
import sys

CALLS = 50


if sys.argv[1:] == ["triton"]:  # a JIT function finds `tl` among its module's globals only
    import torch
    import triton
    import triton.language as tl

    @triton.jit
    def colonel_add(x_pointer, y_pointer, count, BLOCK: tl.constexpr):
        offsets = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        mask = offsets < count
        sums = tl.load(x_pointer + offsets, mask=mask) + tl.load(y_pointer + offsets, mask=mask)
        tl.store(x_pointer + offsets, sums, mask=mask)


def run_triton() -> dict:
    x, y = torch.zeros(10_000, device="cuda"), torch.ones(10_000, device="cuda")
    for _ in range(CALLS):
        colonel_add[(triton.cdiv(10_000, 1024),)](x, y, 10_000, BLOCK=1024)
    torch.cuda.synchronize()
    return {"name": "colonel_add", "launched": CALLS, "grid_x": 10, "right": bool((x == CALLS).all())}


def run_cupy() -> dict:
    import cupy

    source = """
    extern "C" __global__ void colonel_scale(float *x, float factor, int count) {
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        if (i < count) x[i] *= factor;
    }"""
    scale = cupy.RawKernel(source, "colonel_scale")
    x = cupy.ones(1000, dtype=cupy.float32)
    for _ in range(CALLS):
        scale((4,), (256,), (x, cupy.float32(1.5), cupy.int32(1000)))
    cupy.cuda.Device().synchronize()
    right = bool(cupy.allclose(x, 1.5**CALLS, rtol=1e-4))
    return {"name": "colonel_scale", "launched": CALLS, "grid_x": 4, "right": right}


def run_jax() -> dict:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"
    import jax
    import jax.numpy as jnp

    @jax.jit
    def colonel_step(x):
        return jnp.tanh(x) * 1.5 + jnp.sin(x)

    x = jnp.ones(100_003)
    for _ in range(CALLS):
        x = colonel_step(x)
    x.block_until_ready()
    return {"name": None, "launched": CALLS, "right": bool(jnp.isfinite(x).all()), "backend": jax.default_backend()}


if __name__ == "__main__":
    result = {"triton": run_triton, "cupy": run_cupy, "jax": run_jax}[sys.argv[1]]()
    print(json.dumps(result), flush=True)

"""A decoder of Qwen2's build (model_executor/models/qwen2.py): its modules launch kernels. Tensors are token counts."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

from torch import nn

from vllm import kernels
from vllm.compilation.cuda_graph import CUDAGraphWrapper
from vllm.compilation.piecewise_backend import PiecewiseBackend
from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig
from vllm.gpu import Gpu
from vllm.kernels import Kernel

Run = Callable[[int], Any]


class Launch(nn.Module):
    """A module without others in it."""

    def __init__(self, gpu: Gpu, *sequence: Kernel) -> None:
        super().__init__()
        self._gpu, self._sequence = gpu, sequence

    def forward(self, tokens: int) -> int:
        for kernel in self._sequence:
            self._gpu.launch(kernel, tokens)
        return tokens


class AttentionImpl:
    """A backend (v1/attention/backends/flash_attn.py)."""

    def __init__(self, gpu: Gpu) -> None:
        self._cache, self._attention = Launch(gpu, kernels.RESHAPE_AND_CACHE), Launch(gpu, *kernels.FLASH_ATTENTION)

    def do_kv_cache_update(self, layer: "Attention", tokens: int) -> None:
        self._cache(tokens)

    def forward(self, layer: "Attention", tokens: int) -> None:
        self._attention(tokens)


class Attention(nn.Module):
    """What compiled code calls by a custom operator (model_executor/layers/attention/attention.py)."""

    def __init__(self, gpu: Gpu, config: VllmConfig, prefix: str) -> None:
        super().__init__()
        self.impl = AttentionImpl(gpu)
        config.compilation_config.static_forward_context[prefix] = self

    def forward(self, tokens: int) -> int:
        self.impl.do_kv_cache_update(self, tokens)
        self.impl.forward(self, tokens)
        return tokens


class SelfAttention(nn.Module):
    def __init__(self, gpu: Gpu, config: VllmConfig, prefix: str, reduce: tuple[Kernel, ...]) -> None:
        super().__init__()
        self.qkv_proj, self.rotary_emb = Launch(gpu, kernels.QKV), Launch(gpu, kernels.ROTARY)
        self.attn = Attention(gpu, config, f"{prefix}.attn")
        self.o_proj = Launch(gpu, kernels.O_PROJ, *reduce)

    def forward(self, tokens: int) -> int:
        for module in (self.qkv_proj, self.rotary_emb, self.attn, self.o_proj):
            module(tokens)
        return tokens


class DecoderLayer(nn.Module):
    def __init__(self, gpu: Gpu, config: VllmConfig, number: int) -> None:
        super().__init__()
        reduce = (kernels.ALL_REDUCE,) if config.parallel_config.world_size > 1 else ()
        # The first one's norm has no residual to add.
        norm = kernels.RMS_NORM if number == 0 else kernels.FUSED_ADD_RMS_NORM
        self.input_layernorm = Launch(gpu, norm)
        self.self_attn = SelfAttention(gpu, config, f"model.layers.{number}.self_attn", reduce)
        self.post_attention_layernorm = Launch(gpu, kernels.FUSED_ADD_RMS_NORM)
        self.mlp = Launch(gpu, *kernels.MLP, *reduce)

    def forward(self, tokens: int) -> int:
        for module in (self.input_layernorm, self.self_attn, self.post_attention_layernorm, self.mlp):
            module(tokens)
        return tokens


class Model(nn.Module):
    def __init__(self, gpu: Gpu, config: VllmConfig) -> None:
        super().__init__()
        count = config.model_config.num_hidden_layers
        self.embed_tokens = Launch(gpu, kernels.EMBEDDING)
        self.layers = nn.ModuleList([DecoderLayer(gpu, config, number) for number in range(count)])
        self.norm = Launch(gpu, kernels.FUSED_ADD_RMS_NORM)
        compilation = config.compilation_config
        self._compiled = list(self._compile(gpu, config)) if compilation.mode is not CompilationMode.NONE else None

    def forward(self, tokens: int) -> int:
        for module in (self.embed_tokens, *self.layers, self.norm):
            module(tokens)
        return tokens

    def __call__(self, tokens: int) -> int:
        """As the class's decorator has it (compilation/decorators.py): compiled code calls no module."""
        if self._compiled is None:
            return self.forward(tokens)
        for run in self._compiled:
            run(tokens)
        return tokens

    def _compile(self, gpu: Gpu, config: VllmConfig) -> Iterable[Run]:
        """Split at attention, each piece in a graph where there are graphs of pieces."""
        pieces: list[list[Run]] = [[self.embed_tokens.forward]]
        attention: list[Run] = []
        for layer in self.layers:
            block = layer.self_attn
            pieces[-1] += [module.forward for module in (layer.input_layernorm, block.qkv_proj, block.rotary_emb)]
            attention.append(block.attn.forward)
            pieces.append([module.forward for module in (block.o_proj, layer.post_attention_layernorm, layer.mlp)])
        pieces[-1].append(self.norm.forward)
        for number, piece in enumerate(pieces):
            run: Run = PiecewiseBackend(partial(_run_all, piece), number)
            if config.compilation_config.cudagraph_mode.has_piecewise_cudagraphs():
                run = CUDAGraphWrapper(run, gpu, CUDAGraphMode.PIECEWISE)
            yield run
            if number < len(attention):
                yield attention[number]


def _run_all(runs: list[Run], tokens: int) -> None:
    for run in runs:
        run(tokens)


class LinearMethod:
    def apply(self, layer: Launch, tokens: int) -> None:
        layer.forward(tokens)


class LmHead(Launch):
    """Not called as a module, see model_executor/layers/logits_processor.py."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__(gpu, kernels.LM_HEAD)
        self.quant_method = LinearMethod()


class CausalLM(nn.Module):
    def __init__(self, gpu: Gpu, config: VllmConfig) -> None:
        super().__init__()
        self.model = Model(gpu, config)
        self.lm_head = LmHead(gpu)

    def forward(self, tokens: int) -> int:
        return self.model(tokens)

    def compute_logits(self, tokens: int) -> int:
        self.lm_head.quant_method.apply(self.lm_head, tokens)
        return tokens

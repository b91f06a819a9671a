"""The steps of the model (v1/worker/gpu/model_runner.py is V2, v1/worker/gpu_model_runner.py V1)."""

from typing import TypedDict

from vllm import kernels
from vllm.config import VllmConfig
from vllm.gpu import Gpu, Graph
from vllm.kernels import Kernel


class Scheduled(TypedDict):
    """What the scheduler wants done in a step."""

    # Tokens that go through the model: whole prompts of new requests, one token of each running one.
    tokens: int
    has_prefill: bool
    # Request id, sum of its prompt, tokens so far.
    requests: list[tuple[str, int, int]]


class ModelRunner:
    def __init__(self, config: VllmConfig, gpu: Gpu) -> None:
        self._config = config
        self._gpu = gpu
        self._graphs: dict[int, Graph] = {}
        parallel = config.parallel_config.world_size > 1
        layers = range(config.model_config.num_hidden_layers)
        model = [kernel for layer in layers for kernel in kernels.layer(layer == 0, parallel)]
        # What a graph holds: from the embedding to the last norm. Logits and sampling come after it, launched one by
        # one (`execute_model` and `sample_tokens` of both runners).
        self._model = [kernels.EMBEDDING, *model, kernels.FUSED_ADD_RMS_NORM]
        v2 = config.use_v2_model_runner
        self._prepare = kernels.PREPARE_V2 if v2 else kernels.PREPARE_V1
        self._sample = (kernels.LM_HEAD, *(kernels.SAMPLE_V2 if v2 else kernels.SAMPLE_V1))

    def _launch(self, sequence: "list[Kernel] | tuple[Kernel, ...]", tokens: int) -> None:
        for kernel in sequence:
            self._gpu.launch(kernel, tokens)

    def capture_model(self) -> None:
        """A graph a batch size, largest first, each after one run as a warm-up (cudagraph_num_of_warmups is 1)."""
        for size in reversed(self._config.cudagraph_capture_sizes):
            self._launch(self._model, size)
            self._gpu.synchronize()
            self._gpu.begin_capture()
            self._launch(self._model, size)
            self._graphs[size] = self._gpu.end_capture()

    def execute(self, scheduled: Scheduled) -> list[tuple[str, int]]:
        """One step; a new token for each request."""
        batch = len(scheduled["requests"])
        self._gpu.copy_in()
        self._launch(self._prepare, batch)
        # Padded up to the next size that has a graph.
        size = next((size for size in sorted(self._graphs) if size >= batch), None)
        if scheduled["has_prefill"] or size is None:
            self._launch(self._model, scheduled["tokens"])
        else:
            self._gpu.replay(self._graphs[size])
        self._launch(self._sample, batch)
        self._gpu.copy_out()
        self._gpu.synchronize()
        vocabulary = self._config.model_config.vocab_size
        return [(request, (prompt * 31 + so_far) % vocabulary) for request, prompt, so_far in scheduled["requests"]]

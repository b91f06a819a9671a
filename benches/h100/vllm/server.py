"""vLLM's API server under colonel, and clients that send it prompts of token ids."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rig import BESIDE, Rig, common

# As demos/vllm/common.py sets them for --dummy.
OFFLINE = {
    "HF_HUB_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_HOST_IP": "127.0.0.1",
    "GLOO_SOCKET_IFNAME": "lo",
    "NCCL_SOCKET_IFNAME": "lo",
    "VLLM_USE_FLASHINFER_SAMPLER": "0",
}


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


class Server:
    """`colonel run --flavor vllm -- vllm serve`, without a tokenizer: prompts are ids and answers have no text."""

    def __init__(self, rig: Rig, runner: str, entry: list[str], log: Path) -> None:
        self.port = free_port()
        self.log = log
        model = str(rig.root / "demos" / "vllm" / "models" / "qwen2.5-0.5b")
        served = [
            *entry,
            *(["--model", model] if "serve" not in entry else [model]),
            *("--served-model-name", "demo", "--load-format", "dummy", "--skip-tokenizer-init", "--dtype", "bfloat16"),
            *("--max-model-len", "2048", "--max-num-seqs", "8", "--max-num-batched-tokens", "2048"),
            *("--gpu-memory-utilization", "0.2", "--no-enable-prefix-caching", *BESIDE),
            *("--host", "127.0.0.1", "--port", str(self.port), "--profiler-config.profiler=cuda"),
        ]
        self.command, self.sessions = rig.recorded([sys.executable, *served])
        environment = rig.environment(runner, "spawn") | OFFLINE
        with log.open("wb") as file:
            self.process = subprocess.Popen(
                self.command, stdout=file, stderr=subprocess.STDOUT, env=common.merged(environment)
            )

    def post(self, path: str, body: dict | None = None, timeout: float = 60) -> tuple[int, dict]:
        """The status, and the answer where it is JSON."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            data=json.dumps(body or {}).encode(),
            headers={"Content-Type": "application/json"},
            method="POST",
        )
        try:
            with urllib.request.urlopen(request, timeout=timeout) as answer:
                status, content = answer.status, answer.read()
        except urllib.error.HTTPError as error:
            status, content = error.code, error.read()
        try:
            return status, json.loads(content)
        except ValueError:
            return status, {"text": content.decode(errors="replace")[:300]} if content else {}

    def wait(self, seconds: float) -> bool:
        """True once it answers."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return True
            except OSError:
                time.sleep(0.3)
        return False

    def clients(self, count: int, requests: int, tokens: int) -> dict:
        """So many clients at once, each with requests one after the other."""

        def client(number: int) -> list[tuple[int, int, str]]:
            answers = []
            for index in range(requests):
                body = {
                    "model": "demo",
                    "prompt": [100 + (31 * j + 7919 * number + index) % 151000 for j in range(8 + number)],
                    "max_tokens": tokens,
                    "ignore_eos": True,
                    "temperature": 0,
                }
                status, answer = self.post("/v1/completions", body)
                used = answer.get("usage", {}).get("completion_tokens", 0)
                answers.append((status, used, "" if status == 200 else str(answer)[:300]))
            return answers

        begin = time.monotonic()
        with ThreadPoolExecutor(max_workers=count) as threads:
            answers = [one for answers in threads.map(client, range(count)) for one in answers]
        wrong = [error for status, used, error in answers if status != 200 or used != tokens]
        return {
            "requests": len(answers),
            "failed": len(wrong),
            "first_error": wrong[:1],
            "tokens": sum(used for _, used, _ in answers),
            "seconds": round(time.monotonic() - begin, 3),
        }

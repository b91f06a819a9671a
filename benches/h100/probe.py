"""Runs every mode of `probe`, the injected bare client, and the questions that need torch; writes probe.json.

python3 probe.py BUILD_DIR OUT_DIR        all of it
python3 probe.py --torch holder|takeover|second   one question, in this process (BARE_LIB names the client)
"""

import ctypes
import json
import os
import subprocess
import sys
import time
from pathlib import Path

MODES = [
    ["marks"],
    ["h8"],
    ["canary"],
    ["late_kinds"],
    ["first_disable", "early"],
    ["first_disable", "late"],
    ["first_disable", "paired"],
    ["costs"],
    ["flush"],
]


def say(**fields):
    print(json.dumps(fields), flush=True)


class Client:
    """bare_client.c through ctypes: a CUPTI client inside this process."""

    def __init__(self):
        self.lib = ctypes.CDLL(os.environ["BARE_LIB"])
        self.lib.bare_kernels.restype = ctypes.c_ulonglong

    def report(self):
        text = ctypes.create_string_buffer(4096)
        self.lib.bare_report(text, 4096)
        return json.loads(text.value)

    def holder(self, keep=False):
        name = ctypes.create_string_buffer(256)
        status = self.lib.bare_holder(b"colonel", name, ctypes.c_size_t(256), int(keep))
        return {"status": status, "name": name.value.decode(errors="replace")}


def work(torch, x, steps):
    for _ in range(steps):
        for _ in range(10):
            x.add_(1.0)
    torch.cuda.synchronize()
    return steps * 10


def kernels_of(profiler):
    return sum(event.count for event in profiler.key_averages() if str(event.device_type).endswith("CUDA"))


def torch_holder():
    """q7: who holds CUPTI while torch.profiler runs, and can it start while we hold it?"""
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.zeros(1024, device="cuda")
    work(torch, x, 10)
    client = Client()
    say(q="q7", when="before", **client.holder())
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work(torch, x, 10)
        say(q="q7", when="inside torch.profiler", **client.holder())
        work(torch, x, 10)
    say(q="q7", when="after", torch_kernels=kernels_of(profiler), launched=200, **client.holder())


def torch_second():
    """q7: our subscription is there first; a second one asks, then torch.profiler starts."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.zeros(1024, device="cuda")
    work(torch, x, 10)
    client = Client()
    say(q="q7", when="ours, kept", **client.holder(keep=True))
    say(q="q7", when="a second of the same process", **client.holder())
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        work(torch, x, 10)
    say(q="q7", when="torch.profiler while ours is subscribed", torch_kernels=kernels_of(profiler), launched=100)


def torch_takeover():
    """q8: torch.profiler starts in the middle of our window."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    x = torch.zeros(1024, device="cuda")
    work(torch, x, 10)
    client = Client()
    say(q="q8", phase="start", refused=client.lib.bare_start())
    seen = 0

    def phase(name, launched, **more):
        nonlocal seen
        client.lib.bare_flush(0)
        time.sleep(0.05)
        report = client.report()
        now = report["records"].get("kernel", 0)
        say(
            q="q8",
            phase=name,
            launched=launched,
            ours=now - seen,
            requested=report["requested"],
            completed=report["completed"],
            error=report["error"],
            **more,
        )
        seen = now

    phase("alone", work(torch, x, 50))
    launched = work(torch, x, 50)  # not flushed by us before torch starts: whose callback gets this buffer?
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        inside = work(torch, x, 50)
        client.lib.bare_flush(0)
    phase("torch.profiler ran", launched + inside, torch_kernels=kernels_of(profiler), torch_launched=inside)
    phase("after torch.profiler", work(torch, x, 50))
    say(q="q8", phase="register again", refused=client.lib.bare_register(), enable=client.lib.bare_start())
    phase("after registering again", work(torch, x, 50))
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        inside = work(torch, x, 50)
    phase("torch.profiler again", inside, torch_kernels=kernels_of(profiler))
    say(q="q8", phase="stop", refused=client.lib.bare_stop())


def run(label, command, timeout, **environment):
    begin = time.monotonic()
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=timeout,
            errors="replace",
            check=False,
            env={**os.environ, **environment},
        )
        code, out, err = done.returncode, done.stdout, done.stderr
    except subprocess.TimeoutExpired as late:
        code, out, err = "timeout", late.stdout or b"", late.stderr or b""
        out, err = (t.decode(errors="replace") if isinstance(t, bytes) else t for t in (out, err))
    lines = []
    for line in out.splitlines():
        try:
            lines.append(json.loads(line))
        except ValueError:
            lines.append({"text": line[:300]})
    result = {"run": label, "code": code, "seconds": round(time.monotonic() - begin, 2), "lines": lines}
    if code != 0 or "rror" in err:
        result["stderr"] = err[-1500:]
    print(f"== {label}: code {code}, {result['seconds']} s", flush=True)
    for line in lines:
        print(json.dumps(line), flush=True)
    if "stderr" in result:
        print(result["stderr"][-600:], flush=True)
    return result


def main():
    build, out = Path(sys.argv[1]), Path(sys.argv[2])
    probe, bare = str(build / "probe"), str(build / "libbare_client.so")
    results = []

    def keep(result):
        results.append(result)
        (out / "probe.json").write_text(json.dumps({"environment": environment(build), "results": results}, indent=1))

    for mode in MODES:
        keep(run(" ".join(mode), [probe, *mode], 60))
    for attach in ("inject", "none"):
        report = out / f"bare_{attach}.json"
        result = run(
            f"workload, client attached: {attach}",
            [probe, "workload"],
            60,
            CUDA_INJECTION64_PATH=bare,
            BARE_ATTACH=attach,
            BARE_KINDS="all",
            BARE_OUT=str(report),
        )
        for path in out.glob(report.name + ".*"):
            result["client"] = json.loads(path.read_text())
            print(json.dumps(result["client"]), flush=True)
            path.unlink()
        keep(result)
    for question in ("holder", "second", "takeover"):
        keep(run(f"torch {question}", [sys.executable, __file__, "--torch", question], 60, BARE_LIB=bare))


def environment(build):
    path = build / "environment.json"
    return json.loads(path.read_text()) if path.exists() else {}


if __name__ == "__main__":
    if sys.argv[1] == "--torch":
        {"holder": torch_holder, "second": torch_second, "takeover": torch_takeover}[sys.argv[2]]()
    else:
        main()

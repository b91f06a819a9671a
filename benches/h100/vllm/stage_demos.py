"""The demos as a newcomer runs them, one after the other, and what they print: demos/vllm/GUIDE.md quotes it."""

import functools
import sys

import rig as shared
from rig import Rig, common

DEMOS = {
    "05": ["05_real_vllm_decode.py", "--num-prompts", "4", "--max-tokens", "16"],
    "05_eager": ["05_real_vllm_decode.py", "--num-prompts", "4", "--max-tokens", "16", "--eager"],
    "01": ["01_single_inference.py"],
    "02": ["02_batch_sweep.py", "--batches", "1,2,4,8,16,32"],
    "03": ["03_model_compare.py"],
    "04": ["04_counters_deep_dive.py"],
}
SHOWN = ("--limit", "15")


def demo(rig: Rig, runner: str, name: str) -> dict:
    script, *options = DEMOS[name]
    path = f"demos/vllm/{script}"
    command, sessions = rig.recorded([sys.executable, path, "--dummy", *options])
    environment = rig.environment(runner)
    ran = rig.run(f"demo_{name}", command, 200, environment)
    said = [line for line in ran.err.splitlines() if line.startswith(("colonel:", " " * 9))]
    text = [
        f"$ colonel run --flavor vllm -- python {path} --dummy {' '.join(options)}".rstrip(),
        ran.out.rstrip(),
        *said[-6:],
    ]
    where = ["--sessions-dir", str(sessions)]
    show = common.run([str(rig.colonel.bin / "colonel"), "show", "latest", *SHOWN, *where], 30, COLUMNS="140")
    text += ["", f"$ colonel show {' '.join(SHOWN)}", show.out.rstrip()]
    again = None
    if name == "04":
        reading = [sys.executable, path, "--session", "latest"]
        again = common.run(reading, 60, **environment, COLONEL_SESSIONS_DIR=str(sessions))
        text += ["", f"$ python {path} --session latest", again.out.rstrip(), again.err[-500:]]
    with (rig.out / "vllm_demos.txt").open("a") as file:
        shortened = "\n".join(text).replace(f" --sessions-dir {sessions}", "")
        file.write(shortened.replace(str(sessions), ".colonel/sessions").replace(sys.executable, "python") + "\n\n\n")
    session = shared.only_session(sessions)
    ok = ran.code == 0 and show.code == 0 and session.count("kernels") > 0 and (again is None or again.code == 0)
    return {"ok": ok, **ran.figures(), "says": ran.out.splitlines(), "facts": session.figures()}


def main() -> None:
    rig = Rig("demos")
    (rig.out / "vllm_demos.txt").write_text("")
    runner = next(iter(rig.runners()))
    # Alone, since people will compare the times with their own.
    rig.together({name: functools.partial(demo, rig, runner, name) for name in DEMOS}, at_once=1)


if __name__ == "__main__":
    main()

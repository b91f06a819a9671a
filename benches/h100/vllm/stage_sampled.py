"""Does `--mode sampled` tell of real vLLM's decode what a full capture does: kernels' times, and layers' shares."""

import json
import sys

import rig as shared
from rig import Rig, common

TOKENS = "1000"
MODES = {
    "full": [],
    "sampled": ["--mode", "sampled", "--burst", "50ms", "--burst-every", "250ms"],
    "full_again": [],
}


def decode(rig: Rig, runner: str, name: str) -> tuple[dict, common.Session]:
    demo = [sys.executable, shared.DEMO, "--num-prompts", "4", "--max-tokens", TOKENS, "--dummy"]
    command, sessions = rig.recorded(demo, MODES[name])
    ran = rig.run(name, command, 150, rig.environment(runner))
    session = shared.only_session(sessions)
    says = [line for line in ran.out.splitlines() if line.startswith("decode")]
    ok = ran.code == 0 and session.count("kernels") > 0
    return {"ok": ok, **ran.figures(), "says": says, "facts": session.figures()}, session


def main() -> None:
    rig = Rig("sampled")
    runner = next(iter(rig.runners()))
    sessions: dict[str, common.Session] = {}

    def one(name: str) -> dict:
        figures, sessions[name] = decode(rig, runner, name)
        return figures

    for name in MODES:
        rig.together({name: lambda name=name: one(name)}, at_once=1)
    for name in ("sampled", "full_again"):
        for by in ("kernel", "layer", "step"):
            pair = [str(sessions[which].folder) for which in ("full", name)]
            ran = common.run([str(rig.colonel.bin / "colonel"), "compare", *pair, "--by", by, "--json"], 60)
            text = common.run([str(rig.colonel.bin / "colonel"), "compare", *pair, "--by", by], 60, COLUMNS="160")
            compared = json.loads(ran.out) if ran.code == 0 else {"stderr": ran.err[-800:]}
            figures = {"ok": ran.code == 0, "text": text.out.splitlines(), "json": compared}
            rig.results.put(f"compare_{name}_{by}", figures)


if __name__ == "__main__":
    main()

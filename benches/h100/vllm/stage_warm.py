"""Fills the compile caches: demo 05 without colonel, each vLLM, graphs and eager, side by side."""

from rig import BESIDE, EAGER, SIM, Rig


def main() -> None:
    rig = Rig("warm")

    def step(runner: str, mode: str) -> dict:
        # The demo's own memory settings too: what is compiled does not depend on them.
        environment = rig.environment(runner) | {"COLONEL_DISABLE_PROFILE_REGION": "1"}
        ran = rig.run(f"warm_{runner}_{mode}", rig.demo(*BESIDE, *EAGER[mode]), 240, environment)
        said = [line for line in ran.out.splitlines() if "ms per step" in line or "nothing was recorded" in line]
        return {"ok": ran.code == 0 and len(said) == 2, "says": said, **ran.figures()}

    steps = {f"{runner}_{mode}": lambda r=runner, m=mode: step(r, m) for runner in rig.runners() for mode in EAGER}
    if SIM:
        print("nothing to warm up: the stand-in of vLLM compiles nothing")
        return
    rig.together(steps, at_once=8)


if __name__ == "__main__":
    main()

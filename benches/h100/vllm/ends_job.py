"""An engine at work inside a window that the script never closes; what ends it is up to stage_ends.py.

Says `{"inside": ...}` once the window is open and rounds have run. With `--leave` it then waits for a line on stdin and
ends as a script does; without, it goes on until the engine is gone.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from colonel.profiling.vllm import profile_region

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "demos" / "vllm"))
from common import Options, engine, generate, parser, prompts, sampling


def say(**figures: Any) -> None:
    print(json.dumps(figures), flush=True)


def work(options: argparse.Namespace) -> None:
    llm = engine(options)
    wanted, how = prompts(options), sampling(options)
    generate(llm, wanted, how)
    region = profile_region(llm, name="never closed")
    region.__enter__()
    steps = 0
    while steps < options.steps:
        steps += generate(llm, wanted, how).steps
    say(inside=region.windows, steps=steps)
    if options.leave:
        sys.stdin.readline()
        return
    try:
        while True:
            steps += generate(llm, wanted, how).steps
    except Exception as gone:
        say(gone=type(gone).__name__, steps=steps)


def main() -> None:
    arguments = parser(__doc__.splitlines()[0])
    arguments.add_argument("--leave", action="store_true", help="end by itself, the window open")
    arguments.add_argument("--steps", type=int, default=1000, help="before it says that it is inside")
    work(arguments.parse_args(namespace=Options()))


if __name__ == "__main__":
    main()

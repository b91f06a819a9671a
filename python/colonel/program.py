"""The program `colonel` of this installation, and its answers."""

from __future__ import annotations

import json
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from colonel.errors import ColonelError


def ask(*words: str) -> dict[str, Any]:
    """What `colonel WORDS --json` says.

    Raises:
        ColonelError: the program is missing, or says what is wrong.
    """
    done = subprocess.run([find_program(), *words, "--json"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ColonelError(done.stderr.strip().removeprefix("colonel: "))
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def find_program() -> str:
    """Path of `colonel`: the one installed with this package, else the one on the PATH."""
    try:
        installed = files("colonel") or []
    except PackageNotFoundError:
        installed = []
    for file in installed:
        if file.name == "colonel" and file.parent.name == "bin":
            path = Path(str(file.locate())).resolve()
            if path.is_file():
                return str(path)
    on_path = shutil.which("colonel")
    if on_path is None:
        raise ColonelError(
            "the program is neither installed with this package nor on the PATH; `pip install .` in a checkout of "
            "colonel installs both"
        )
    return on_path

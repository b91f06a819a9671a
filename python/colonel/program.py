"""Where the program `colonel` of this installation is."""

import shutil
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

from colonel.errors import ColonelError


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

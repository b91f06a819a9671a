"""Build backend of the wheel: maturin, with the guest library built first.

maturin builds the program `colonel` and knows nothing of the guest, a cdylib of another package. It goes where the
wheel's `data` scheme installs it under the prefix, beside the program's folder: `lib/colonel`.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import maturin
from maturin import get_requires_for_build_editable, get_requires_for_build_sdist, get_requires_for_build_wheel

__all__ = [
    "build_editable",
    "build_sdist",
    "build_wheel",
    "get_requires_for_build_editable",
    "get_requires_for_build_sdist",
    "get_requires_for_build_wheel",
    "prepare_metadata_for_build_editable",
    "prepare_metadata_for_build_wheel",
]

ROOT = Path(__file__).resolve().parents[2]
GUEST = "libcolonel_guest.so"
INSTALLED = ROOT / "target" / "wheel" / "data" / "lib" / "colonel"

Settings = Mapping[str, Any] | None


def build_wheel(wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None) -> str:
    """Builds the guest, then the wheel. Returns the wheel's file name."""
    build_guest(profile(config_settings))
    name: str = maturin.build_wheel(wheel_directory, config_settings, metadata_directory)
    return name


def build_editable(
    wheel_directory: str, config_settings: Settings = None, metadata_directory: str | None = None
) -> str:
    """Builds the guest, then a wheel that points here. Returns the wheel's file name."""
    build_guest(profile(config_settings))
    name: str = maturin.build_editable(wheel_directory, config_settings, metadata_directory)
    return name


def build_sdist(sdist_directory: str, config_settings: Settings = None) -> str:
    """Packs the sources. Returns the archive's file name."""
    make_data_folder()
    name: str = maturin.build_sdist(sdist_directory, config_settings)
    return name


def prepare_metadata_for_build_wheel(metadata_directory: str, config_settings: Settings = None) -> str:
    """Writes the wheel's metadata. Returns the folder's name."""
    make_data_folder()
    name: str = maturin.prepare_metadata_for_build_wheel(metadata_directory, config_settings)
    return name


prepare_metadata_for_build_editable = prepare_metadata_for_build_wheel


def make_data_folder() -> None:
    """maturin refuses a `data` folder that is not there."""
    INSTALLED.mkdir(parents=True, exist_ok=True)


def profile(settings: Settings) -> str:
    """Cargo profile that maturin is told to build with, so that program and guest are of one kind."""
    args = (settings or {}).get("build-args") or os.environ.get("MATURIN_PEP517_ARGS", "")
    words = shlex.split(args) if isinstance(args, str) else list(args)
    for at, word in enumerate(words):
        if word == "--profile" and at + 1 < len(words):
            return str(words[at + 1])
        if word.startswith("--profile="):
            return str(word).removeprefix("--profile=")
    return "release"


def build_guest(profile: str) -> Path:
    """Builds the guest and puts it where the wheel takes it from."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "build", "--locked", "--package", "colonel-guest", "--profile", profile]
    command += ["--message-format", "json-render-diagnostics"]
    built = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    make_data_folder()
    return Path(shutil.copy2(guest_file(built), INSTALLED / GUEST))


def guest_file(messages: str) -> str:
    """The guest among the files that cargo says it built."""
    for line in messages.splitlines():
        for file in json.loads(line).get("filenames", ()):
            if Path(file).name == GUEST:
                return str(file)
    raise RuntimeError(f"cargo built no {GUEST}; is `colonel-guest` still the package's name?")

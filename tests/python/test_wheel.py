"""The wheel, built by pip as a user does and installed into an environment of its own."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from recorded import ROOT

SIM = ROOT / "target" / "debug"


def clean() -> dict[str, str]:
    """An environment without colonel's variables, or a path into the checkout."""
    return {name: value for name, value in os.environ.items() if not name.startswith(("COLONEL_", "PYTHON"))}


def run(*command: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([str(word) for word in command], cwd=cwd, env=clean(), capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", folder, ROOT, cwd=folder)
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def venv(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("installed") / "venv"
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    run(folder / "bin" / "pip", "install", "--quiet", wheel, cwd=folder.parent)
    return folder


def test_it_fits_every_python_3(wheel: Path) -> None:
    assert "-py3-none-linux_x86_64" in wheel.name
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    assert [name for name in names if name.endswith("/data/lib/colonel/libcolonel_guest.so")]
    assert [name for name in names if name.endswith("/scripts/colonel")]
    assert "colonel/py.typed" in names


@pytest.mark.parametrize("program", [["bin/colonel"], ["bin/python", "-m", "colonel"]], ids=["script", "module"])
def test_the_installed_program_records(venv: Path, tmp_path: Path, program: list[str]) -> None:
    # gpu-sim is no part of the wheel: lent to the installation, as there is no GPU.
    for name in ("libsim_cuda.so", "libsim_cudart.so", "libsim_cupti.so", "colonel-sim"):
        shutil.copy2(SIM / name, venv / "bin" / name)
    colonel = [venv / program[0], *program[1:]]
    done = run(
        *colonel, "run", "--sim", "--json", "run.json", "--", "colonel-sim", "decode", "--steps", "5", cwd=tmp_path
    )
    summary = json.loads((tmp_path / "run.json").read_text())
    assert summary["rows"]["kernels"] == json.loads(done.stdout.splitlines()[-1])["kernels"] > 0
    assert summary["lost"] == 0
    read = "import colonel; print(colonel.open('latest').kernels(['name']).num_rows)"
    assert run(venv / "bin" / "python", "-c", read, cwd=tmp_path).stdout.strip() == str(summary["rows"]["kernels"])


def test_it_is_typed_versioned_and_known_to_vllm(venv: Path, tmp_path: Path) -> None:
    text = (
        "import colonel, importlib.metadata as m;"
        "(plugin,) = m.entry_points(group='vllm.general_plugins', name='colonel');"
        "plugin.load()();"
        "print(colonel.__version__, m.requires('colonel'))"
    )
    version, _, requires = run(venv / "bin" / "python", "-c", text, cwd=tmp_path).stdout.strip().partition(" ")
    assert run(venv / "bin" / "colonel", "--version", cwd=tmp_path).stdout.split()[1] == version
    needed = [requirement for requirement in eval(requires) if "extra ==" not in requirement]
    assert needed == ["pyarrow>=17"]

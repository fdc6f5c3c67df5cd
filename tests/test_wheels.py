"""Wheels that carry kernels, built by a compiler that only notes how it was called."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from esper.simic.engines.native.levels import LEVELS, file_name

pytest.importorskip("setuptools", minversion="77")
ROOT = Path(__file__).parent.parent
FILES = ("setup.py", "pyproject.toml", "README.md", "LICENSE")


@pytest.fixture
def sources(tmp_path: Path) -> Path:
    """A tree of its own, as the build writes into it."""
    tree = tmp_path / "sources"
    shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in FILES:
        shutil.copy(ROOT / name, tree)
    compiler = tmp_path / "cxx"
    compiler.write_text('#!/bin/sh\nfor output; do :; done\necho "$*" > "$output"\n')
    compiler.chmod(0o755)
    return tree


def build(sources: Path, machine: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"ESPER_CARRY_KERNELS": machine, "CXX": str(sources.parent / "cxx")}
    command = [sys.executable, "setup.py", "--quiet", "bdist_wheel", "--dist-dir", str(sources.parent / machine)]
    return subprocess.run(command, cwd=sources, env=environment, capture_output=True, text=True, check=False)


def test_a_wheel_has_the_kernels_of_its_machine_alone(sources: Path) -> None:
    for machine, levels in LEVELS.items():
        done = build(sources, machine)
        assert done.returncode == 0, done.stderr
        (wheel,) = (sources.parent / machine).iterdir()
        assert wheel.name.endswith(f"-py3-none-linux_{machine}.whl")
        with zipfile.ZipFile(wheel) as files:
            carried = {Path(name).name: name for name in files.namelist() if "/carried/" in name}
            assert set(carried) == {file_name(level) for level in levels}
            for level in levels:
                assert f"-march={level} " in files.read(carried[file_name(level)]).decode()


def test_other_machines_are_refused(sources: Path) -> None:
    done = build(sources, "riscv64")
    assert done.returncode != 0
    assert "ESPER_CARRY_KERNELS: no kernels for riscv64; for x86_64, aarch64, or 1: this machine" in done.stderr

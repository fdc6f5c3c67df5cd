"""Builds wheels; with ESPER_CARRY_KERNELS=1 ones that carry compiled kernels, so that users need no compiler.

    ESPER_CARRY_KERNELS=1 pip wheel --no-deps --wheel-dir dist .
    CXX=aarch64-linux-gnu-g++ ESPER_CARRY_KERNELS=aarch64 pip wheel --no-deps --wheel-dir dist .

Everything else is declared in pyproject.toml.
"""

import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).parent / "src" / "esper" / "simic" / "engines" / "native"
# The kind of machine that the kernels are for; none are carried without.
MACHINE = os.environ.get("ESPER_CARRY_KERNELS", "")
MACHINE = platform.machine() if MACHINE == "1" else MACHINE

# By its path: the package itself needs torch.
spec = importlib.util.spec_from_file_location("levels", NATIVE / "levels.py")
assert spec is not None
assert spec.loader is not None
levels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(levels)
if MACHINE and MACHINE not in levels.LEVELS:
    machines = ", ".join(levels.LEVELS)
    raise SystemExit(f"ESPER_CARRY_KERNELS: no kernels for {MACHINE}; for {machines}, or 1: this machine")


class BuildWithKernels(build_py):
    """Also compiles the kernels, for each level."""

    def run(self) -> None:
        super().run()
        if not MACHINE:
            return
        folder = Path(self.build_lib, "esper", "simic", "engines", "native", "carried")
        # Of an earlier build, maybe for another machine.
        shutil.rmtree(folder, ignore_errors=True)
        self.mkpath(str(folder))
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        for level in levels.LEVELS[MACHINE]:
            target = folder / levels.file_name(level)
            flags = [*levels.FLAGS, f"-march={level}", *levels.STATIC]
            subprocess.run([*compiler, *flags, str(NATIVE / "kernels" / "esper.cpp"), "-o", str(target)], check=True)


class PlatformWheel(bdist_wheel):
    """Of any Python 3, as the kernels are called through ctypes, but of one platform if it carries them."""

    def get_tag(self) -> tuple[str, str, str]:
        tag: tuple[str, str, str] = super().get_tag()
        return ("py3", "none", f"linux_{MACHINE}") if MACHINE else tag


class WithBinaries(Distribution):
    """Says whether there are compiled files."""

    def has_ext_modules(self) -> bool:
        return bool(MACHINE)


setup(distclass=WithBinaries, cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})

"""Builds wheels; with ESPER_CARRY_KERNELS=1 ones that carry compiled kernels, so that users need no compiler.

    ESPER_CARRY_KERNELS=1 pip wheel --no-deps --wheel-dir dist .

Everything else is declared in pyproject.toml.
"""

import importlib.util
import os
import shlex
import subprocess
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.bdist_wheel import bdist_wheel
from setuptools.command.build_py import build_py

NATIVE = Path(__file__).parent / "src" / "esper" / "simic" / "engines" / "native"
CARRIED = os.environ.get("ESPER_CARRY_KERNELS") == "1"

# By its path: the package itself needs torch.
spec = importlib.util.spec_from_file_location("levels", NATIVE / "levels.py")
assert spec is not None
assert spec.loader is not None
levels = importlib.util.module_from_spec(spec)
spec.loader.exec_module(levels)


class BuildWithKernels(build_py):
    """Also compiles the kernels, for each level."""

    def run(self) -> None:
        super().run()
        if not CARRIED:
            return
        folder = Path(self.build_lib, "esper", "simic", "engines", "native", "carried")
        self.mkpath(str(folder))
        compiler = shlex.split(os.environ.get("CXX", "g++"))
        for level in levels.LEVELS:
            target = folder / levels.file_name(level)
            flags = [*levels.FLAGS, f"-march={level}", *levels.STATIC]
            subprocess.run([*compiler, *flags, str(NATIVE / "kernels" / "esper.cpp"), "-o", str(target)], check=True)


class PlatformWheel(bdist_wheel):
    """Of any Python 3, as the kernels are called through ctypes, but of one platform if it carries them."""

    def get_tag(self) -> tuple[str, str, str]:
        python, abi, platform = super().get_tag()
        return ("py3", "none", platform) if CARRIED else (python, abi, platform)


class WithBinaries(Distribution):
    """Says whether there are compiled files."""

    def has_ext_modules(self) -> bool:
        return CARRIED


setup(distclass=WithBinaries, cmdclass={"build_py": BuildWithKernels, "bdist_wheel": PlatformWheel})

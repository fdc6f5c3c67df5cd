"""A kernels' cache of a test's own, and a compiler that takes no time."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from esper.simic.engines.native import library

DEADLINE = 120
# What the function of the library returns.
ANSWER = "42"
LOAD = """
import logging
from esper.simic.engines.native import library
logging.basicConfig(format="%(message)s")
try:
    print(library.load_library().library.esper_learner())
except library.BuildError as error:
    print("refused:", error)
"""


class Ran(NamedTuple):
    out: str
    err: str


class Place:
    """A folder for everything of one test: the cache, temporary files, the compiler and its notes."""

    def __init__(self, root: Path, made: Path) -> None:
        self.root, self.cache, self.temporary = root, root / "cache" / "esper", root / "tmp"
        self.calls, self.compiler = root / "calls", root / "cxx"
        self.temporary.mkdir()
        self.compile_by(f'cp {made} "$output"')
        self.environment = os.environ | {
            "XDG_CACHE_HOME": str(root / "cache"),
            "TMPDIR": str(self.temporary),
            "CXX": str(self.compiler),
        }

    def compile_by(self, script: str) -> None:
        """`script` finds the path to write in `$output`."""
        self.compiler.write_text(
            '#!/bin/sh\ncase "$*" in *-E*) echo macros; exit;; esac\n'
            f"echo >> {self.calls}\nfor output; do :; done\n{script}\n"
        )
        self.compiler.chmod(0o755)

    def start(self, *prefix: str, code: str = LOAD) -> subprocess.Popen[str]:
        command = [*prefix, sys.executable, "-c", code]
        pipe = subprocess.PIPE
        return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, env=self.environment)

    def load(self, *prefix: str, code: str = LOAD) -> Ran:
        with self.start(*prefix, code=code) as process:
            out, err = process.communicate(timeout=DEADLINE)
        assert process.returncode == 0, err
        return Ran(out.strip(), err.strip())

    def compilations(self) -> int:
        return len(self.calls.read_text()) if self.calls.exists() else 0

    def kept(self) -> Path:
        (path,) = self.cache.iterdir()
        return path


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made")
    source, made = folder / "made.cpp", folder / "made.so"
    source.write_text(f'extern "C" int esper_learner() {{ return {ANSWER}; }}\n')
    subprocess.run([*library.find_compiler(), "-shared", "-fPIC", str(source), "-o", str(made)], check=True)
    return made


@pytest.fixture
def place(tmp_path: Path, made: Path) -> Place:
    return Place(tmp_path, made)


@pytest.fixture
def here(place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Iterator[Place]:
    """Its environment in this process, which may have run a command that shows more of what is logged."""
    caplog.set_level(logging.WARNING, logger="esper")
    for name in ("XDG_CACHE_HOME", "CXX"):
        monkeypatch.setenv(name, place.environment[name])
    monkeypatch.setattr("tempfile.tempdir", str(place.temporary))
    library._load.cache_clear()
    yield place
    library._load.cache_clear()

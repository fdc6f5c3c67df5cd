"""A cache for kernels that belongs to one test."""

from __future__ import annotations

import logging
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from esper.simic.engines.native import library
from kernels import ANSWER, Place


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

"""Compiling the C++ sources for this machine, and loading what came out."""

from __future__ import annotations

import ctypes
import functools
import hashlib
import logging
import os
import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

_log = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent / "kernels"
# Errors and traps of mathematical functions would forbid vectorizing them; NaN and infinity keep their meaning.
_FLAGS = (
    *("-std=c++20", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math"),
    *("-ffp-contract=fast", "-fPIC", "-shared", "-pthread"),
)


class BuildError(RuntimeError):
    """The kernels cannot be had on this machine: why."""


def load_library() -> ctypes.CDLL:
    """The kernels for this machine: those of an earlier run, or compiled now, which takes a few seconds.

    Raises:
        BuildError: without a compiler, or when it fails.
    """
    return _load(find_compiler())


def find_compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: `CXX`, or the first of g++, clang++ and c++ on PATH.

    Raises:
        BuildError: when there is none.
    """
    chosen = shlex.split(os.environ.get("CXX", ""))
    for command in [chosen] if chosen else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            return tuple(command)
    raise BuildError("a C++ compiler (g++ or clang++ on PATH, or CXX) not found")


def cache_folder() -> Path:
    """Where compiled kernels are kept between runs."""
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return Path(home) / "esper"


@functools.cache
def _load(compiler: tuple[str, ...]) -> ctypes.CDLL:
    name = f"kernels-{_fingerprint(compiler)}.so"
    kept = cache_folder() / name
    try:
        kept.parent.mkdir(parents=True, exist_ok=True)
        if not kept.exists():
            with tempfile.TemporaryDirectory(dir=kept.parent) as folder:
                # Another process may be doing the same: whoever is first, the file is never half there.
                os.replace(_compile(compiler, Path(folder) / name), kept)
        return ctypes.CDLL(str(kept))
    except OSError as error:
        _log.warning("%s cannot keep compiled kernels (%s): they are compiled for this run alone", kept.parent, error)
    with tempfile.TemporaryDirectory() as folder:
        # Once loaded, a library does not need its file any more.
        return ctypes.CDLL(str(_compile(compiler, Path(folder) / name)))


def _fingerprint(compiler: tuple[str, ...]) -> str:
    """Of all that decides what the compiler makes, the processor too: folders are shared between machines."""
    target = _run([*compiler, *_FLAGS[:3], "-dM", "-E", "-x", "c++", os.devnull])
    sources = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
    return hashlib.sha256(b"\0".join([target, " ".join(_FLAGS).encode(), *sources])).hexdigest()[:16]


def _compile(compiler: tuple[str, ...], path: Path) -> Path:
    _log.info("compiling kernels for this machine, once: a few seconds")
    started = time.perf_counter()
    _run([*compiler, *_FLAGS, str(_SOURCES / "esper.cpp"), "-o", str(path)])
    _log.info("compiled in %.1f s", time.perf_counter() - started)
    return path


def _run(command: list[str]) -> bytes:
    done = subprocess.run(command, capture_output=True, check=False)
    if done.returncode:
        reason = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[0]
        raise BuildError(f"{command[0]} failed: {reason}")
    return done.stdout

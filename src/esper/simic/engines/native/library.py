"""The kernels for this machine: those of the wheel, or its C++ sources, compiled here."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import pwd
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from esper.simic.engines.native.cache import SCRATCH_PREFIX, Cache, mounted_noexec, open_cache, remove_abandoned
from esper.simic.engines.native.carried import load_carried
from esper.simic.engines.native.levels import FLAGS

_log = logging.getLogger(__name__)

_SOURCES = Path(__file__).parent / "kernels"
_FLAGS = ("-march=native", *FLAGS)

# Seconds that a compiler may take, and that one process waits for another's; on a slow machine it takes a minute.
_PATIENCE = 300.0
# Run by a process of its own, because a file that is no whole library can crash the one that loads it.
_TRY_TO_LOAD = """
import ctypes, sys
try:
    ctypes.CDLL(sys.argv[1]).esper_learner
except Exception as error:
    sys.exit(str(error))
"""


class BuildError(RuntimeError):
    """The kernels cannot be had on this machine: why."""


class Loaded(NamedTuple):
    """The kernels, and which they are: `native` or a level of x86-64 or ARM, and a fingerprint."""

    library: ctypes.CDLL
    variant: str


def load_library() -> Loaded:
    """The kernels for this machine: those that the wheel carries; without, compiled once, which takes a few seconds.

    Raises:
        BuildError: without either, or where libraries cannot be loaded.
    """
    carried = _carried()
    if carried is not None:
        return carried
    loaded = _load(find_compiler())
    if isinstance(loaded, BuildError):
        raise BuildError(*loaded.args)
    return loaded


@functools.cache
def _carried() -> Loaded | None:
    try:
        found = load_carried()
    except OSError as error:
        _log.warning("the kernels of this wheel cannot be loaded: %s", error)
        return None
    return None if found is None else Loaded(*found)


def find_compiler() -> tuple[str, ...]:
    """The command of a C++ compiler: `CXX`, or the first of g++, clang++ and c++ on PATH.

    Raises:
        BuildError: when there is none, or CXX is no command.
    """
    try:
        chosen = shlex.split(os.environ.get("CXX", ""))
    except ValueError as error:
        raise BuildError(f"CXX = {os.environ['CXX']} is no command: {error}") from None
    for command in [chosen] if chosen else [["g++"], ["clang++"], ["c++"]]:
        if shutil.which(command[0]):
            return tuple(command)
    raise BuildError("a C++ compiler (g++ or clang++ on PATH, or CXX) not found")


def cache_folder() -> Path:
    """Where compiled kernels are kept between runs: `$XDG_CACHE_HOME/esper`, or `~/.cache/esper`.

    A path that is not absolute is ignored, as the XDG Base Directory Specification has it.

    Raises:
        FileNotFoundError: when the user has no home.
    """
    chosen = Path(os.environ.get("XDG_CACHE_HOME", ""))
    if chosen.is_absolute():
        return chosen / "esper"
    homes = [os.environ.get("HOME", "")]
    with contextlib.suppress(KeyError):
        homes.append(pwd.getpwuid(os.geteuid()).pw_dir)
    for home in map(Path, homes):
        # Users without a home have / as their home.
        if home.is_absolute() and home.name:
            return home / ".cache" / "esper"
    raise FileNotFoundError("neither XDG_CACHE_HOME nor HOME is the absolute path of a folder")


@functools.cache
def _load(compiler: tuple[str, ...]) -> Loaded | BuildError:
    """Also remembers that there are none, and why: a second try would take as long."""
    try:
        fingerprint = _fingerprint(compiler)
        name, variant = f"kernels-{fingerprint}.so", f"native-{fingerprint}"
        remove_abandoned(Path(tempfile.gettempdir()), SCRATCH_PREFIX)
        with contextlib.ExitStack() as stack:
            try:
                cache = stack.enter_context(open_cache(cache_folder()))
            except OSError as error:
                _log.warning("compiled kernels cannot be kept (%s): they are compiled for this run alone", error)
                return Loaded(_load_copy(_compile(compiler)), variant)
            # Earlier versions left folders whose names begin with tmp.
            remove_abandoned(cache.path, SCRATCH_PREFIX, "tmp")
            return Loaded(_load_kept(cache, name, compiler), variant)
    except BuildError as error:
        return error
    except OSError as error:
        return BuildError(f"the kernels cannot be compiled: {error}")


def _load_kept(cache: Cache, name: str, compiler: tuple[str, ...]) -> ctypes.CDLL:
    try:
        kept = cache.open(name)
    except OSError:
        with cache.lock(_PATIENCE):
            try:
                kept = cache.open(name)  # another process was first
            except OSError as reason:
                if not isinstance(reason, FileNotFoundError):
                    _log.warning("%s is not loaded but compiled anew: %s", cache.path / name, reason)
                content = _compile(compiler, cache.path)
                try:
                    cache.write(name, content)
                    kept = cache.open(name)
                except OSError as error:
                    _log.warning(
                        "%s cannot keep compiled kernels (%s): they are compiled for this run alone", cache.path, error
                    )
                    return _load_copy(content, cache.path)
    try:
        # What was checked, whatever has the name by now. The descriptor stays open: the dynamic loader knows libraries
        # by their names, and would take the next file with this number for this library.
        return ctypes.CDLL(f"/proc/self/fd/{kept.descriptor}")
    except OSError:  # the cache is mounted noexec, or there is no /proc
        os.close(kept.descriptor)
        return _load_copy(kept.content, cache.path)


def _load_copy(content: bytes, cache: Path | None = None) -> ctypes.CDLL:
    with _scratch(cache) as folder:
        path = Path(folder) / "kernels.so"
        path.write_bytes(content)
        try:
            # Once loaded, a library does not need its file any more.
            return ctypes.CDLL(str(path))
        except OSError as error:
            raise BuildError(f"compiled kernels cannot be loaded: {error}") from error


def _scratch(cache: Path | None) -> tempfile.TemporaryDirectory[str]:
    """A temporary folder that libraries can be loaded from."""
    reasons = []
    for place in (None, cache) if cache else (None,):
        try:
            folder = tempfile.TemporaryDirectory(prefix=SCRATCH_PREFIX, dir=place, ignore_cleanup_errors=True)
        except OSError as error:
            reasons.append(str(error))
            continue
        if not mounted_noexec(folder.name):
            return folder
        folder.cleanup()
        reasons.append(f"{Path(folder.name).parent} is mounted noexec")
    raise BuildError(f"there is no folder to load compiled kernels from: {', '.join(reasons)}")


def _fingerprint(compiler: tuple[str, ...]) -> str:
    """Of all that decides what the compiler makes, the processor too: folders are shared between machines."""
    # The macros of <cstdlib> have the versions of the C and C++ libraries.
    target = _run([*compiler, *_FLAGS[:2], "-dM", "-E", "-x", "c++", "-include", "cstdlib", os.devnull], compiler[0])
    sources = [path.read_bytes() for path in sorted(_SOURCES.iterdir())]
    command = " ".join([*compiler, *_FLAGS]).encode()
    return hashlib.sha256(b"\0".join([target, command, *sources])).hexdigest()[:16]


def _compile(compiler: tuple[str, ...], cache: Path | None = None) -> bytes:
    """A library that was loaded once, by another process."""
    with _scratch(cache) as folder:
        _log.info("compiling kernels for this machine, once: a few seconds")
        started = time.perf_counter()
        path = Path(folder) / "kernels.so"
        _run([*compiler, *_FLAGS, str(_SOURCES / "esper.cpp"), "-o", str(path)], compiler[0], TMPDIR=folder)
        _run([sys.executable, "-I", "-S", "-c", _TRY_TO_LOAD, str(path)], f"loading what {compiler[0]} made")
        _log.info("compiled in %.1f s", time.perf_counter() - started)
        return path.read_bytes()


def _run(command: list[str], subject: str, **variables: str) -> bytes:
    # A group of its own, so that all processes of a compiler can be ended, which hold its pipes open.
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | variables,
        process_group=0,
    ) as process:
        try:
            output, errors = process.communicate(timeout=_PATIENCE)
        except BaseException as error:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            if isinstance(error, subprocess.TimeoutExpired):
                raise BuildError(f"{subject} failed: not done after {_PATIENCE:g} s") from None
            raise
    if process.returncode:
        killed = f"killed by signal {-process.returncode}" if process.returncode < 0 else "no message"
        reason = (errors.decode(errors="replace").strip().splitlines() or [killed])[0]
        raise BuildError(f"{subject} failed: {reason}")
    return output

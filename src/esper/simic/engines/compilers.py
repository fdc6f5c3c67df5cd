"""What `torch.compile` needs of the machine: a compiler and what it compiles with, looked for before it is called."""

from __future__ import annotations

import importlib.util
import os
import shutil
import sysconfig
from pathlib import Path

import torch

from esper.simic.engines.native.cache import mounted_noexec

# Triton has no code for older cards.
_LEAST_CAPABILITY = (7, 0)


def missing_to_compile(device: torch.device) -> str | None:
    """What Inductor needs to compile for `device`, in C++ or by Triton, and this machine lacks."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    missing = _missing_for_triton(device) if device.type == "cuda" else _missing_for_cpp()
    if missing is not None:
        return missing
    if not Path(sysconfig.get_path("include"), "Python.h").exists():
        return "Python's C headers (Debian: python3-dev)"
    try:
        folder = cache_dir()
    except OSError as error:
        return f"a folder for what it compiles ({error})"
    if mounted_noexec(folder):
        return f"TORCHINDUCTOR_CACHE_DIR that is not mounted noexec, as {folder} is"
    return None


def _missing_for_cpp() -> str | None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        compiler = shutil.which(get_cpp_compiler())
    except (InvalidCxxCompiler, OSError):
        compiler = None
    return "a C++ compiler (g++ or clang++ on PATH, or CXX)" if compiler is None else None


def _missing_for_triton(device: torch.device) -> str | None:
    """Triton compiles what launches its kernels with a C compiler: CC, gcc or clang, in this order."""
    if importlib.util.find_spec("triton") is None:
        return "Triton (pip install triton)"
    if (found := torch.cuda.get_device_capability(device)) < _LEAST_CAPABILITY:
        least, has = (".".join(map(str, version)) for version in (_LEAST_CAPABILITY, found))
        return f"a card of compute capability {least} or more, not {has}"
    named = os.environ.get("CC")
    compilers = (named,) if named else ("gcc", "clang")
    return None if any(map(shutil.which, compilers)) else "a C compiler (gcc or clang on PATH, or CC)"

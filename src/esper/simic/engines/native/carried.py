"""The kernels that a wheel carries, for machines without a compiler."""

from __future__ import annotations

import ctypes
import hashlib
import platform
import re
from pathlib import Path

from esper.simic.engines.native.levels import file_name, levels_of

_FOLDER = Path(__file__).parent / "carried"
_PROCESSOR = Path("/proc/cpuinfo")


def load_carried() -> tuple[ctypes.CDLL, str] | None:
    """The kernels for the highest level of this processor, and their variant; None where none are carried for it.

    The variant is the level, and a fingerprint of the file: wheels differ in sources and compilers.

    Raises:
        OSError: when they cannot be loaded.
    """
    for level in _levels():
        path = _FOLDER / file_name(level)
        if path.is_file():
            fingerprint = hashlib.sha256(path.read_bytes()).hexdigest()[:16]
            return ctypes.CDLL(str(path)), f"{level}-{fingerprint}"
    return None


def _levels() -> list[str]:
    text = _PROCESSOR.read_text() if _PROCESSOR.is_file() else ""
    flags = re.search(r"^flags\s*:(.*)$", text, re.MULTILINE)
    return levels_of(platform.machine(), flags[1].split() if flags else [])

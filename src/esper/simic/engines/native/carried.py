"""The kernels that a wheel carries, for machines without a compiler."""

from __future__ import annotations

import ctypes
import platform
import re
from pathlib import Path

from esper.simic.engines.native.levels import file_name, levels_of

_FOLDER = Path(__file__).parent / "carried"
_PROCESSOR = Path("/proc/cpuinfo")


def load_carried() -> tuple[ctypes.CDLL, str] | None:
    """The kernels for the highest level of this processor, and that level; None where none are carried for it.

    Raises:
        OSError: when they cannot be loaded.
    """
    for level in _levels():
        path = _FOLDER / file_name(level)
        if path.is_file():
            return ctypes.CDLL(str(path)), level
    return None


def _levels() -> list[str]:
    if platform.machine() != "x86_64" or not _PROCESSOR.is_file():
        return []
    flags = re.search(r"^flags\s*:(.*)$", _PROCESSOR.read_text(), re.MULTILINE)
    return levels_of(flags[1].split()) if flags else []

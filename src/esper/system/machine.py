"""What the machine has."""

from __future__ import annotations

import os
import sys


def usable_cores() -> int:
    """The cores that this process may use, which can be fewer than there are."""
    return len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1

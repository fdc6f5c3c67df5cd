"""Reports the progress of an evaluation at intervals."""

from __future__ import annotations

import time
from collections.abc import Callable


class Progress:
    """Reports how many of `episodes` are done, and steps: after `first` seconds, then every `every` seconds."""

    def __init__(self, say: Callable[[str], None], episodes: int, *, first: float, every: float) -> None:
        self._say, self._episodes, self._every = say, episodes, every
        self._due = time.monotonic() + first

    def __call__(self, episodes: int, steps: int) -> None:
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._every
            self._say(f"{episodes:,} of {self._episodes:,} episodes, {steps:,} steps so far")

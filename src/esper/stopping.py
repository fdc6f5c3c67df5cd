"""Asking a run to end after the update it is in: by a signal, or by the clock."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType

_MESSAGE = b"\nstopping after this update and a checkpoint; once more stops at once\n"


@dataclass(kw_only=True)
class StopRequest:
    """`signal` is the signal that came, `deadline` the time.monotonic() from which to stop."""

    signal: signal.Signals | None = None
    deadline: float | None = None

    def __bool__(self) -> bool:
        return self.cause is not None

    @property
    def cause(self) -> str | None:
        """Why to stop; None while there is no reason."""
        if self.signal is not None:
            return self.signal.name
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "max_minutes"
        return None


@contextlib.contextmanager
def stop_request(max_minutes: float | None, *, quiet: bool) -> Iterator[StopRequest]:
    """A request that the first SIGINT or SIGTERM within makes true, or the end of `max_minutes` from now.

    A second signal acts as if nothing caught it. Outside the main thread signals cannot be handled.
    """
    request = StopRequest(deadline=None if max_minutes is None else time.monotonic() + 60 * max_minutes)
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def stop(number: int, frame: FrameType | None) -> None:
        request.signal = signal.Signals(number)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not quiet:
            # print and rich may be in the middle of a write of their own.
            with contextlib.suppress(OSError):
                os.write(2, _MESSAGE)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield request
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)

"""Requests to end a run after its current update, by a signal or a deadline; and calls with a time limit."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec, TypeVar

# A call of an environment that still runs this long after a stop request is abandoned. Not without a request: a slow
# environment looks like one that hangs.
SECONDS_AFTER_STOP = 20.0

_SECONDS_BETWEEN_LOOKS = 0.2
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Overdue(BaseException):
    """Raised within a call that is abandoned; not an `Exception`, as retry loops catch these."""


class StopRequest:
    """`signal` is the signal that was received, `deadline` the time.monotonic() from which to stop.

    The first SIGINT, SIGTERM or SIGHUP makes it true, and so does the deadline. After a signal, another SIGINT raises
    KeyboardInterrupt (then `at_once`), and another SIGTERM ends the process; SIGHUP is ignored, as a terminal that
    closes sends it several times. Outside the main thread signals cannot be handled, and no call is abandoned.

    Before `begin` there is nothing to save, and signals end the program at once.
    """

    def __init__(self, *, quiet: bool, what: str = "this update and a checkpoint") -> None:
        self.signal: signal.Signals | None = None
        self.deadline: float | None = None
        self.at_once = self.gave_up = False
        self._message = b"" if quiet else f"\nstopping after {what}; once more stops at once\n".encode()
        self._call: tuple[float, float | None] | None = None  # when it began, and its limit in seconds
        self._overdue = self._begun = False
        self._handlers: dict[int, object] = {}
        self._ended = threading.Event()

    def __bool__(self) -> bool:
        return self.cause is not None

    @property
    def cause(self) -> str | None:
        """The reason to stop, or None."""
        if self.signal is not None:
            return self.signal.name
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "max_minutes"
        return None

    def call(self, seconds: float | None, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """`function(*args, **kwargs)`, abandoned after `seconds`; None: SECONDS_AFTER_STOP after a stop request.

        Native code that never returns to Python cannot be abandoned.

        Raises:
            Overdue: from within `function`, when it is abandoned; `gave_up` is true from then on.
        """
        self._call = (time.monotonic(), seconds)
        try:
            return function(*args, **kwargs)
        finally:
            self._call = None

    def limited(self, seconds: float, function: Callable[[], None]) -> None:
        """The same with an ordinary exception.

        Raises:
            TimeoutError: when it is abandoned.
        """
        try:
            self.call(seconds, function)
        except Overdue:
            raise TimeoutError(f"did not return within {seconds:g} s") from None

    def listen(self) -> None:
        """Distinguish Ctrl-C from a KeyboardInterrupt that an environment raises, until `close`."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {signal.SIGINT: signal.signal(signal.SIGINT, self._handle)}

    def set_deadline(self, minutes: float | None) -> None:
        """Stop after `minutes` from now."""
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def begin(self) -> None:
        """Handle signals from here on."""
        self._begun = True
        if not self._handlers:
            return
        self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle)
        # Under nohup it stays ignored.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle)
        threading.Thread(target=self._watch, args=(threading.get_ident(),), name="stopping", daemon=True).start()

    def close(self) -> None:
        """Restore the previous signal handlers."""
        self._ended.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._overdue and number == signal.SIGINT:
            self._overdue = False
            if self._call is not None:
                # Only once for each call.
                self._call, self.gave_up = None, True
                raise Overdue("did not return in time")
        elif self.signal is None and self._begun:
            self.signal = signal.Signals(number)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if signal.SIGHUP in self._handlers:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            # print and rich may be in the middle of a write.
            with contextlib.suppress(OSError):
                os.write(2, self._message)
        elif number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt

    def _watch(self, main_thread: int) -> None:
        """Interrupt calls that take too long, by a signal, as nothing else interrupts a wait of the main thread."""
        stopping_since = None
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            now, call = time.monotonic(), self._call
            if self and stopping_since is None:
                stopping_since = now
            if call is None:
                continue
            began, seconds = call
            if seconds is None and stopping_since is not None:
                began, seconds = max(began, stopping_since), SECONDS_AFTER_STOP
            if seconds is not None and now - began > seconds:
                self._overdue = True
                signal.pthread_kill(main_thread, signal.SIGINT)


@contextlib.contextmanager
def stop_request(*, quiet: bool, what: str = "this update and a checkpoint") -> Iterator[StopRequest]:
    """A request that has not begun. If not `quiet`, the first signal prints what is still finished."""
    request = StopRequest(quiet=quiet, what=what)
    request.listen()
    try:
        yield request
    finally:
        request.close()

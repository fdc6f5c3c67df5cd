"""Asking a run to end after the update it is in: by a signal, or by the clock; and calls that must not last."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import ParamSpec, TypeVar

# A call into an environment that is still running so long after a stop was requested is given up. Only then: before,
# nobody can tell a slow environment from one that hangs.
SECONDS_AFTER_STOP = 20.0

_SECONDS_BETWEEN_LOOKS = 0.2
_P = ParamSpec("_P")
_T = TypeVar("_T")


class Overdue(BaseException):
    """Raised within a call that is given up; no `Exception`, as retry loops catch these."""


class StopRequest:
    """`signal` is the signal that came, `deadline` the time.monotonic() from which to stop.

    The first SIGINT, SIGTERM or SIGHUP makes it true, and so does the deadline. After a signal, another SIGINT raises
    KeyboardInterrupt (then `at_once`), and another SIGTERM ends the process; SIGHUP is ignored, as a terminal that
    closes sends it several times. Outside the main thread signals cannot be handled, and no call is given up.

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
        """Why to stop; None while there is no reason."""
        if self.signal is not None:
            return self.signal.name
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return "max_minutes"
        return None

    def call(self, seconds: float | None, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """`function(*args, **kwargs)`, given up after so many `seconds`; None: SECONDS_AFTER_STOP after a stop request.

        What is not Python, and never comes back to it, cannot be given up.

        Raises:
            Overdue: from within `function`, when it is given up; `gave_up` says so from then on.
        """
        self._call = (time.monotonic(), seconds)
        try:
            return function(*args, **kwargs)
        finally:
            self._call = None

    def limited(self, seconds: float, function: Callable[[], None]) -> None:
        """The same for what need not tell `Overdue` from other errors.

        Raises:
            TimeoutError: when it is given up.
        """
        try:
            self.call(seconds, function)
        except Overdue:
            raise TimeoutError(f"did not return within {seconds:g} s") from None

    def listen(self) -> None:
        """Tell Ctrl-C from a KeyboardInterrupt that an environment raises, from here on, until `close`."""
        if threading.current_thread() is threading.main_thread():
            self._handlers = {signal.SIGINT: signal.signal(signal.SIGINT, self._handle)}

    def set_deadline(self, minutes: float | None) -> None:
        """Stop in so many minutes from now."""
        self.deadline = None if minutes is None else time.monotonic() + 60 * minutes

    def begin(self) -> None:
        """Handle signals from here on."""
        self._begun = True
        if not self._handlers:
            return
        self._handlers[signal.SIGTERM] = signal.signal(signal.SIGTERM, self._handle)
        # Under nohup it is ignored, and stays so.
        if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
            self._handlers[signal.SIGHUP] = signal.signal(signal.SIGHUP, self._handle)
        threading.Thread(target=self._watch, args=(threading.get_ident(),), name="stopping", daemon=True).start()

    def close(self) -> None:
        """Leave signals to whom they were before."""
        self._ended.set()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._overdue and number == signal.SIGINT:
            self._overdue = False
            if self._call is not None:
                # Once for a call, whatever becomes of it.
                self._call, self.gave_up = None, True
                raise Overdue("did not return in time")
        elif self.signal is None and self._begun:
            self.signal = signal.Signals(number)
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            if signal.SIGHUP in self._handlers:
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
            # print and rich may be in the middle of a write of their own.
            with contextlib.suppress(OSError):
                os.write(2, self._message)
        elif number == signal.SIGINT:
            self.at_once = True
            raise KeyboardInterrupt

    def _watch(self, main_thread: int) -> None:
        """Interrupt calls that take too long. A signal, as nothing else gets the main thread out of a wait."""
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
    """A request within, which has not begun. If not `quiet`, the first signal says what is stopped after."""
    request = StopRequest(quiet=quiet, what=what)
    request.listen()
    try:
        yield request
    finally:
        request.close()

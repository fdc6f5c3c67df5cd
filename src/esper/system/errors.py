"""Errors of other code, in one line."""

from __future__ import annotations

import contextlib
import linecache
import os
import signal
import traceback
from collections.abc import Iterator
from typing import Any

_LONGEST = 500


def describe(error: BaseException, *, first_line: bool = False) -> str:
    """Type and text of `error` in one line, even if its text is long or cannot be shown.

    With `first_line` only the first line of the text.
    """
    try:
        text = str(error).strip()
        text = " ".join((text.partition("\n")[0] if first_line else text).split())
    except BaseException as another:
        text = f"its text cannot be shown, {type(another).__name__}"
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    # File names may have lone surrogates; a JSON record with one could not be read.
    text = text.encode(errors="backslashreplace").decode()
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def describe_with_place(error: BaseException, *, first_line: bool = False) -> str:
    """The same with the file and line that raised it."""
    *_, (frame, line) = traceback.walk_tb(error.__traceback__)
    file = frame.f_code.co_filename
    # An assertion without a message shows its statement.
    silent = isinstance(error, AssertionError) and not error.args
    statement = linecache.getline(file, line, frame.f_globals).strip() if silent else ""
    what = f"AssertionError: {statement}" if statement else describe(error, first_line=first_line)
    return f"{what} ({file}, line {line})"


def is_ctrl_c(error: BaseException) -> bool:
    """Whether `error` can be Ctrl-C, and not a KeyboardInterrupt that code raised."""
    return isinstance(error, KeyboardInterrupt) and signal.getsignal(signal.SIGINT) is signal.default_int_handler


def is_out_of_memory(error: BaseException) -> bool:
    """Whether `error` means out of memory. torch has a type for this only on GPUs."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return True
    return any(said in describe(error) for said in ("allocate memory", "Storage size calculation overflowed"))


@contextlib.contextmanager
def exits_raise() -> Iterator[None]:
    """Within the block, os._exit raises SystemExit in this process, so that it cannot hide how a run ended."""
    process, exit_at_once = os.getpid(), os._exit

    def refuse(status: int) -> Any:
        if os.getpid() != process:
            exit_at_once(status)
        raise SystemExit(f"os._exit({status})")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = exit_at_once

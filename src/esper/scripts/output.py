"""Standard output and error that may fail at any time: closed pipes, closed terminals, full disks."""

from __future__ import annotations

import contextlib
import io
import os
import select
import sys
from collections.abc import Iterator
from typing import Any, TextIO

_BY_NAME = {"stdout": 1, "stderr": 2}


class OutputError(BaseException):
    """Standard output cannot be written. Not an `Exception`, so that no handler takes it for an error of its code."""

    def __init__(self, cause: OSError) -> None:
        super().__init__(cause.strerror)
        self.cause = cause


class _Descriptor(io.FileIO):
    """After its first failure it writes to /dev/null, as do all other writers to it; `failure` is the error."""

    def __init__(self, descriptor: int, *, raises: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.failure: OSError | None = None
        self._raises = raises

    def write(self, data: Any) -> int:
        try:
            # None if a terminal or pipe is non-blocking and full.
            while (written := super().write(data)) is None:
                select.select([], [self.fileno()], [])
        except OSError as error:
            self.failure = error
            _to_devnull(self.fileno())
            if self._raises:
                raise OutputError(error) from None
            return memoryview(data).nbytes
        return int(written)


@contextlib.contextmanager
def lasting_output(*, ends: bool) -> Iterator[None]:
    """Within the block, standard output and error never raise errors of the device, and take any text.

    If the program `ends` with its output, standard output raises OutputError.
    """
    _open_closed_descriptors()
    before = {name: getattr(sys, name) for name in _BY_NAME}
    for name, descriptor in _BY_NAME.items():
        if (stream := _lasting(before[name], descriptor, raises=ends and name == "stdout")) is not None:
            setattr(sys, name, stream)
    try:
        try:
            yield
        except SystemExit:
            sys.stdout.flush()
            raise
        sys.stdout.flush()
    finally:
        for name, stream in before.items():
            if (lasting := getattr(sys, name)) is not stream:
                with contextlib.suppress(OutputError):
                    lasting.flush()
                setattr(sys, name, stream)


def lost_output() -> OSError | None:
    """Why standard output has failed; None if it has not."""
    return getattr(getattr(getattr(sys.stdout, "buffer", None), "raw", None), "failure", None)


def _lasting(stream: TextIO | None, descriptor: int, *, raises: bool) -> TextIO | None:
    """The replacement of `stream`; None if `stream` does not write to the descriptor."""
    if stream is None:
        encoding, line_buffering = "utf-8", False
    else:
        binary = getattr(stream, "buffer", None)
        if not isinstance(getattr(binary, "raw", binary), io.FileIO) or stream.fileno() != descriptor:
            return None
        stream.flush()
        encoding, line_buffering = stream.encoding, bool(getattr(stream, "line_buffering", False))
    raw = _Descriptor(descriptor, raises=raises)
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding,
        errors="backslashreplace",
        line_buffering=line_buffering,
        write_through=bool(getattr(stream, "write_through", False)),
    )


def _open_closed_descriptors() -> None:
    """Open closed standard descriptors: the next file would take such a number, and get this output."""
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            _to_devnull(descriptor)


def _to_devnull(descriptor: int) -> None:
    devnull = os.open(os.devnull, os.O_RDWR)
    if devnull != descriptor:
        os.dup2(devnull, descriptor)
        os.close(devnull)
    else:
        os.set_inheritable(devnull, True)

"""A run of a sweep on a machine that does not see the sweep's folder: it runs elsewhere, and is brought back."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

from esper.runs.checkpoint.folder import MANIFEST, checkpoints_in
from esper.runs.folder import CHECKPOINTS
from esper.storage import files
from esper.storage.carrying import read_folder, write_folder
from esper.storage.store import StoreError
from esper.sweep.job import Outcome, do
from esper.sweep.plan import Job

# The files of a run, by name in its folder.
Contents: TypeAlias = Mapping[str, bytes]

_RECORD = "events.jsonl"
_SECONDS_BETWEEN_CHECKPOINTS = 5.0
# What is sent takes at most one part in so many of the time.
_SENDING_SHARE = 20


def sees(token: Path) -> bool:
    """Whether this machine sees the file that the sweep left in its folder, and can write beside it."""
    return files.is_there(token) and os.access(token.parent, os.W_OK | os.X_OK)


def to_send(job: Job) -> Contents:
    """What another machine needs to go on with `job`: nothing if it has not begun."""
    if not files.is_there(job.run_dir / "config.json"):
        return {}
    return read_folder(job.run_dir, without=("tensorboard",), last=_RECORD)


def bring_back(job: Job, contents: Contents) -> None:
    """Write what another machine sent of `job`.

    Raises:
        OSError: when it cannot be written.
    """
    files.make_folder(job.run_dir)
    # A checkpoint without its manifest is not whole: then the one before it counts.
    write_folder(job.run_dir, contents, last=MANIFEST, replaced=CHECKPOINTS)


def do_away(job: Job, begun: Contents, send: Callable[[Contents], None]) -> Outcome:
    """`do(job)` in a temporary folder that begins with `begun`; checkpoints are sent when written, all at the end."""
    with tempfile.TemporaryDirectory(prefix="esper-") as temporary:
        run_dir = Path(temporary, job.environment, job.arm, job.run_dir.name)
        run_dir.parent.mkdir(parents=True)
        if begun:
            run_dir.mkdir()
            write_folder(run_dir, begun)
        here = dataclasses.replace(job, config=dataclasses.replace(job.config, run_dir=str(run_dir)))
        courier = _Courier(run_dir, send)
        try:
            outcome = do(here)
        finally:
            courier.close()
        if run_dir.is_dir():
            send(read_folder(run_dir, last=_RECORD))
        cause = outcome.cause and outcome.cause.replace(str(run_dir), str(job.run_dir))
        return dataclasses.replace(outcome, cause=cause)


class _Courier(threading.Thread):
    """Sends the run in `run_dir` whenever it has a new checkpoint, until `close`."""

    def __init__(self, run_dir: Path, send: Callable[[Contents], None]) -> None:
        super().__init__(name="courier", daemon=True)
        self._run_dir, self._send = run_dir, send
        self._ended = threading.Event()
        self.start()

    def run(self) -> None:
        sent, seconds = None, _SECONDS_BETWEEN_CHECKPOINTS
        while not self._ended.wait(seconds):
            # A checkpoint that is removed while it is read is followed by a newer one.
            with contextlib.suppress(OSError, StoreError):
                newest = next(iter(checkpoints_in(self._run_dir / CHECKPOINTS)), None)
                if newest is not None and newest != sent:
                    began = time.monotonic()
                    # The record last: it must reach at least as far as the checkpoint.
                    self._send(read_folder(self._run_dir, without=("tensorboard",), last=_RECORD))
                    sent = newest
                    seconds = max(_SECONDS_BETWEEN_CHECKPOINTS, _SENDING_SHARE * (time.monotonic() - began))

    def close(self) -> None:
        self._ended.set()
        self.join()

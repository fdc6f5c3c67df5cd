"""When a run writes its checkpoints, in the background, and which ones are kept."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.runs.checkpoint.config import CheckpointConfig
from esper.runs.checkpoint.folder import new_checkpoint_path, prune, save_checkpoint
from esper.storage.store import StoreError


@dataclass(frozen=True, kw_only=True)
class Saved:
    """A checkpoint that is on the disk; `seconds` is how long writing it took."""

    path: Path
    number: int
    seconds: float


class CheckpointKeeper:
    """Writes checkpoints into `folder`, one at a time, on a separate thread."""

    def __init__(self, folder: Path, config: CheckpointConfig, clock: Callable[[], float] = time.monotonic) -> None:
        self._folder, self._config, self._clock = folder, config, clock
        self._last = clock()
        self._writing: _Writing | None = None

    def due(self, number: int) -> bool:
        """Whether a checkpoint is due after `number` updates."""
        updates, seconds = self._config.interval
        return number % updates == 0 if updates else self._clock() - self._last >= seconds

    def save(self, number: int, tree: Mapping[str, Any], *, before: Callable[[], None] = lambda: None) -> Saved | None:
        """Begin to write `tree`, which must no longer change, as the checkpoint after `number` updates.

        `before` is called on the writing thread, before anything is written. Returns the previous checkpoint, if that
        was still being written, and waits for it.

        Raises:
            StoreError: when the previous one could not be written.
        """
        previous = self.wait()
        self._last = self._clock()
        self._writing = _Writing(self._folder, number, tree, self._config.keep_checkpoints, before)
        return previous

    def finished(self) -> Saved | None:
        """The checkpoint that was completed since the last call.

        Raises:
            StoreError: when it could not be written.
        """
        return self.wait() if self._writing is not None and not self._writing.is_alive() else None

    def wait(self) -> Saved | None:
        """Wait for the checkpoint that is being written, if any; then as `finished`."""
        if self._writing is None:
            return None
        writing, self._writing = self._writing, None
        writing.join()
        if writing.error is not None:
            raise writing.error
        return writing.saved


class _Writing(threading.Thread):
    """A daemon: a program that ends at once does not wait for it, and leaves no folder with a checkpoint's name."""

    def __init__(
        self, folder: Path, number: int, tree: Mapping[str, Any], keep: int, before: Callable[[], None]
    ) -> None:
        super().__init__(name="checkpoint", daemon=True)
        self._folder, self._number, self._tree, self._keep, self._before = folder, number, tree, keep, before
        self.error: Exception | None = None
        self.saved: Saved | None = None
        self.start()

    def run(self) -> None:
        started = time.perf_counter()
        try:
            self._before()
            path = new_checkpoint_path(self._folder, self._number)
            save_checkpoint(path, self._tree)
            prune(self._folder, self._keep, path)
            self.saved = Saved(path=path, number=self._number, seconds=time.perf_counter() - started)
        except OSError as error:
            self.error = StoreError(f"{self._folder}: {error.strerror or error}")
        except Exception as error:
            self.error = error

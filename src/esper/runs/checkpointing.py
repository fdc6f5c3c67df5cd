"""The checkpoints of a run: when its state is captured, and the events for those on the disk."""

from __future__ import annotations

import contextlib
import logging

from esper.envs.watched import GivenUp
from esper.runs.checkpoint.keeper import CheckpointKeeper, Saved
from esper.runs.config import RunConfig
from esper.runs.folder import CHECKPOINTS, RunFolder
from esper.runs.record import Record
from esper.runs.state import capture_run
from esper.simic.vectorized import Training
from esper.storage.store import StoreError
from esper.telemetry.events import CheckpointSaved, SinkError

_log = logging.getLogger(__name__)


class Checkpointing:
    """Saves the state of `training` when it is due. `saved_after` is the number of updates in the newest checkpoint."""

    def __init__(self, config: RunConfig, training: Training, folder: RunFolder, record: Record) -> None:
        self._config, self._training, self._record = config, training, record
        self._keeper = CheckpointKeeper(folder.checkpoints, config.checkpoints)
        self.saved_after: int | None = None

    def after_update(self) -> None:
        """Report a checkpoint that was completed, and begin one that is due.

        Raises:
            StoreError: when one could not be written.
        """
        self._report(self._keeper.finished())
        if self._keeper.due(self._training.agent.train_steps):
            self.write()

    def write(self) -> None:
        """Begin to write a checkpoint, after the previous one is written.

        Raises:
            StoreError: when the previous one could not be written.
        """
        # A run that resumes from this checkpoint emits again only what comes after it.
        self._record.flush_writers()
        try:
            state = capture_run(self._config, self._training, self._record.position)
        except GivenUp as error:
            # Without the environment's state, which is lost.
            _log.warning("%s", error)
            state = capture_run(self._config, self._training, self._record.position)
        self._exact_resume = state["exact_resume"]
        self.saved_after = self._training.agent.train_steps
        self._report(self._keeper.save(self.saved_after, state, before=self._record.flush))

    def finish(self) -> None:
        """Save the state if it is not saved yet, and wait until it is written.

        Raises:
            StoreError: when it could not be written.
        """
        if self.saved_after != self._training.agent.train_steps:
            self.write()
        self._report(self._keeper.wait())

    def fail(self) -> None:
        """Wait for a checkpoint that is being written, and report it if that is still possible."""
        with contextlib.suppress(StoreError, SinkError, OSError):
            self._report(self._keeper.wait())

    def _report(self, saved: Saved | None) -> None:
        if saved is not None:
            self._record.emit(
                CheckpointSaved(
                    checkpoint=f"{CHECKPOINTS}/{saved.path.name}",
                    env_steps=saved.number * self._config.ppo.batch_size,
                    exact_resume=self._exact_resume or saved.number == 0,
                    seconds=saved.seconds,
                )
            )

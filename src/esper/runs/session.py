"""One session of a run: what happens before, between and after its updates."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Iterator
from typing import Literal

from esper.envs.base import EnvError
from esper.envs.watched import GivenUp
from esper.policies.policy import save_policy
from esper.runs.callbacks import CallbackError, Callbacks
from esper.runs.checkpoint.folder import set_aside
from esper.runs.checkpointing import Checkpointing
from esper.runs.config import RunConfig
from esper.runs.evaluation import Evaluation
from esper.runs.events import run_finished, run_resumed, run_started
from esper.runs.folder import RunFolder, write_config
from esper.runs.initial import Begun
from esper.runs.record import Record
from esper.runs.resume.point import Resume
from esper.runs.resume.rules import changes
from esper.runs.videos import Videos
from esper.settings.options import ConfigError
from esper.simic.rates import Rates
from esper.simic.vectorized import Training, TrainResult
from esper.storage.store import StoreError
from esper.system.errors import describe
from esper.system.stopping import StopRequest
from esper.telemetry.events import RunFinished, SinkError

_log = logging.getLogger(__name__)

# Failures of a run that are not bugs of Esper.
FAILURES = (EnvError, StoreError, SinkError, OSError, ConfigError, CallbackError, MemoryError)


class Session:
    """Trains to the end of a run, or until `stop`, with checkpoints and evaluations."""

    def __init__(
        self,
        config: RunConfig,
        training: Training,
        folder: RunFolder,
        record: Record,
        evaluation: Evaluation,
        callbacks: Callbacks,
        stop: StopRequest,
    ) -> None:
        self._config, self._training, self._folder, self._stop = config, training, folder, stop
        record.emit = callbacks.around(record.emit)
        self._emit, self._evaluation, self._callbacks = record.emit, evaluation, callbacks
        self._videos = Videos(config, training, folder, stop)
        self._checkpoints = Checkpointing(config, training, folder, record)
        self._started = time.perf_counter()

    def run(
        self, resume: Resume | None, rates_before: Rates | None, begun: Begun | None
    ) -> tuple[TrainResult, RunFinished]:
        """Train, from `resume` if given; `rates_before` are its checkpoint's rates for the next update.

        A new run began with the weights that `begun` names, if it did not with random ones.

        Raises:
            FAILURES: when the run failed; the failure is the last event of the record, if it can be written.
        """
        with self._failure_recorded():
            if resume is not None and resume.point.is_in_folder_of(self._config):
                write_config(self._folder, self._config)
            if resume is None or rates_before is None:
                self._begin(begun)
            else:
                self._resume(resume, rates_before)
            return self._train()

    def _begin(self, begun: Begun | None) -> None:
        """Begin the record of a new run, and write its first checkpoint."""
        self._emit(run_started(self._config, self._training.agent, begun))
        self._checkpoints.write()

    def _resume(self, resume: Resume, rates_before: Rates) -> None:
        """Continue the record, in place or in another folder; write a checkpoint unless nothing changed."""
        in_place = resume.point.is_in_folder_of(self._config)
        changed = changes(resume.point.config, self._config)
        agent = self._training.agent
        if warning := agent.schedules.past_end(agent.config.total_updates):
            _log.warning("%s; --resume-schedule extend extends the schedules to the new total_timesteps", warning)
        if in_place:
            for checkpoint, _ in resume.point.broken:
                set_aside(checkpoint)
        else:
            self._emit(run_started(self._config, agent))
        self._emit(run_resumed(self._config, self._training, resume, rates_before, changed))
        if in_place and resume.mode == "continue" and not changed:
            self._checkpoints.saved_after = agent.train_steps
        else:
            self._checkpoints.write()
        if in_place and self._evaluation.was_dropped():
            self._evaluation.run(self._emit)
        if in_place and self._videos.was_dropped():
            self._videos.record(self._emit)

    def _train(self) -> tuple[TrainResult, RunFinished]:
        training, stop = self._training, self._stop
        stop.set_deadline(self._config.max_minutes)
        try:
            result = training.run(
                on_event=self._emit,
                should_stop=lambda: bool(self._reached() or stop),
                after_update=self._after_update,
            )
        except GivenUp as error:
            _log.warning("%s", error)
            result = training.result("interrupted")
        except CallbackError:
            self._checkpoints.finish()
            raise
        self._checkpoints.finish()
        cause = {"completed": None, "interrupted": stop.cause, "diverged": result.fault}[result.status]
        if result.status == "interrupted" and (reached := self._reached()):
            # It counts as completed, so a sweep does not resume it.
            result, cause = dataclasses.replace(result, status="completed"), reached
        finished = self._finish(result.status, cause)
        save_policy(self._folder.path, training.agent, self._config.environment)
        return result, finished

    def _reached(self) -> str | None:
        """What the run was to reach, and has: then it is complete."""
        return self._evaluation.reached or self._callbacks.stopped

    def _after_update(self) -> None:
        self._evaluation.after_update(self._emit)
        self._videos.after_update(self._emit)
        self._checkpoints.after_update()

    def _finish(
        self, status: Literal["completed", "interrupted", "diverged", "failed"], cause: str | None
    ) -> RunFinished:
        finished = run_finished(self._training, status, cause, time.perf_counter() - self._started)
        self._emit(finished)
        return finished

    @contextlib.contextmanager
    def _failure_recorded(self) -> Iterator[None]:
        """Record a failure as the last line of the record, if that can still be written, and raise it again."""
        try:
            yield
        except KeyboardInterrupt:
            raise
        except BaseException as error:
            self._checkpoints.fail()
            cause = str(error) if isinstance(error, FAILURES) else ""
            with contextlib.suppress(SinkError, OSError):
                self._finish("failed", cause or describe(error))
            raise

"""Callbacks: a user's code between the updates of a run."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeAlias

from esper.runs.config import RunConfig
from esper.settings.options import ConfigError
from esper.simic.ppo import PPOAgent
from esper.simic.vectorized import Training
from esper.system.errors import describe
from esper.telemetry.events import (
    CheckpointSaved,
    EvaluationCompleted,
    Event,
    RunFinished,
    UpdateCompleted,
    UpdateSkipped,
)


class CallbackError(Exception):
    """A callback raised: which, where, and what."""


class Progress:
    """What callbacks see of a run. `event` is the one that they are called for.

    Everything may be read. A learning rate that is written does not last: the next update has that of its schedule.
    """

    event: Event

    def __init__(self, config: RunConfig, folder: Path, training: Training) -> None:
        self.config, self.folder, self.training = config, folder, training
        self.stopped: str | None = None
        self._metrics: dict[str, float] = {}

    @property
    def agent(self) -> PPOAgent:
        return self.training.agent

    def log(self, name: str, value: float) -> None:
        """Add a number to this update, or if it is already recorded to the next one, as `user/NAME` in the record.

        Raises:
            TypeError, ValueError: for what is no number.
        """
        self._metrics[str(name)] = float(value)

    def stop(self, reason: str) -> None:
        """End the run after this update, complete, with `reason` as its cause."""
        self.stopped = reason

    def take_metrics(self) -> dict[str, float] | None:
        """What was logged since the last call."""
        taken, self._metrics = self._metrics, {}
        return taken or None


class Callback:
    """Called between the updates of a run; a subclass has the methods that it needs.

    One that raises ends the run with a checkpoint.
    """

    def on_update(self, run: Progress) -> None:
        """After an update, before it is recorded; `run.event` is an `UpdateCompleted`."""

    def on_skipped(self, run: Progress) -> None:
        """After an update without an optimizer step, or undone; `run.event` is an `UpdateSkipped`."""

    def on_evaluation(self, run: Progress) -> None:
        """After an evaluation; `run.event` is an `EvaluationCompleted`."""

    def on_checkpoint(self, run: Progress) -> None:
        """When a checkpoint is on the disk; `run.event` is a `CheckpointSaved`."""

    def on_end(self, run: Progress) -> None:
        """At the end; `run.event` is a `RunFinished`."""


# A function is called as `on_update`.
CallbackLike: TypeAlias = Callback | Callable[[Progress], None]

_METHODS: dict[type, str] = {
    UpdateCompleted: "on_update",
    UpdateSkipped: "on_skipped",
    EvaluationCompleted: "on_evaluation",
    CheckpointSaved: "on_checkpoint",
    RunFinished: "on_end",
}


def check_callbacks(callbacks: Sequence[CallbackLike]) -> None:
    """Refuse what cannot be called.

    Raises:
        ConfigError: naming it.
    """
    if not isinstance(callbacks, Sequence):
        raise ConfigError("callbacks", repr(callbacks), "must be a list of them")
    for callback in callbacks:
        if isinstance(callback, type) or not (isinstance(callback, Callback) or callable(callback)):
            raise ConfigError("callbacks", repr(callback), "must be an esper.Callback, or a function of the progress")


class Callbacks:
    """Calls `callbacks` for the events of a run, in order, until one raises."""

    def __init__(self, callbacks: Sequence[CallbackLike], progress: Progress) -> None:
        self._callbacks, self._progress = list(callbacks), progress

    @property
    def stopped(self) -> str | None:
        """Why a callback ended the run, if one did."""
        return self._progress.stopped

    def around(self, emit: Callable[[Event], None]) -> Callable[[Event], None]:
        """`emit` after the callbacks of an event, with the metrics that they log.

        Raises:
            CallbackError: when one raised; the event is recorded all the same.
        """
        return (lambda event: self._emit(event, emit)) if self._callbacks else emit

    def _emit(self, event: Event, emit: Callable[[Event], None]) -> None:
        failure = self._call(event)
        if isinstance(event, UpdateCompleted) and (metrics := self._progress.take_metrics()):
            event = dataclasses.replace(event, user=metrics)
        emit(event)
        if failure is not None:
            self._callbacks.clear()
            raise failure

    def _call(self, event: Event) -> CallbackError | None:
        """The first failure, if there is one."""
        method = _METHODS.get(type(event))
        if method is None:
            return None
        self._progress.event = event
        for callback in self._callbacks:
            try:
                if isinstance(callback, Callback):
                    getattr(callback, method)(self._progress)
                elif method == "on_update":
                    callback(self._progress)
            except Exception as error:
                name = getattr(callback, "__qualname__", type(callback).__qualname__)
                failure = CallbackError(f"callback {name} raised in {method}: {describe(error)}")
                failure.__cause__ = error
                return failure
        return None

"""One training run in a folder: connects environment, agent, record and session."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from esper.envs.base import EnvError, VectorEnv
from esper.envs.given import Given, recorded_name
from esper.envs.make import make_for_training
from esper.envs.watched import watched
from esper.runs.callbacks import CallbackLike, Callbacks, Progress, check_callbacks
from esper.runs.checkpoint.folder import checkpoints_in, remove_leftovers
from esper.runs.config import RunConfig
from esper.runs.evaluation import Best, Evaluation
from esper.runs.folder import (
    RunFolder,
    check_new_folder,
    check_not_in_use,
    check_writable,
    create_run_folder,
    open_run_folder,
    resume_command,
)
from esper.runs.initial import begin_with
from esper.runs.layers import Layer, placed, recorded
from esper.runs.picture import draw_picture
from esper.runs.record import open_record
from esper.runs.resume.load import load_run
from esper.runs.resume.point import Resume, ResumeError, check_newest, find_resume_point
from esper.runs.resume.rules import MODES, Mode
from esper.runs.resume.settings import settings_to_resume
from esper.runs.session import FAILURES, Session
from esper.runs.state import env_seed
from esper.runs.videos import check_videos
from esper.settings.options import ConfigError
from esper.settings.values import as_path, checked
from esper.simic.ppo import PPOAgent
from esper.simic.threads import torch_threads
from esper.simic.vectorized import Training, TrainResult
from esper.storage import files
from esper.system.errors import describe, is_out_of_memory
from esper.system.stopping import StopRequest, stop_request
from esper.telemetry.events import Sink
from esper.telemetry.writers import check_sinks, check_writers

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """The folder of a run, and how it ended; `cause` is why, if before its last update."""

    run_dir: Path
    train: TrainResult
    cause: str | None
    seconds: float


class RunError(Exception):
    """A run failed; the message says why, and what is left of it."""


def run(
    config: RunConfig,
    sinks: Sequence[Sink] = (),
    resume: Resume | None = None,
    callbacks: Sequence[CallbackLike] = (),
) -> RunResult:
    """Train with `config`, from `resume` if given; events go to the run's folder and to `sinks`.

    Nothing is written before environment, agent and state are made. A signal, or the end of `max_minutes`, ends the run
    after the current update.

    Raises:
        ConfigError: for settings that cannot be used, an environment that cannot be made, an unusable folder.
        StoreError, ResumeError: for a state, or a record, that cannot be resumed.
        RunError: when the environment or a callback raises, or writing fails during the run.
    """
    _check_given(config, sinks, callbacks)
    # Before the engine is made: compiling kernels takes seconds.
    _check_folder(config, resume)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(1))
        stop = stack.enter_context(stop_request(quiet=config.quiet))
        with _failed_starts_reported(stop):
            env, agent = _make(config, stop, stack)
            stack.enter_context(agent.updater.torch_settings())
            begun = None if resume and resume.point.state else begin_with(config, agent)
            training = Training(agent, env, env_seed=env_seed(config, 0))
            rates_before = load_run(config, training, resume) if resume and resume.point.state else None
        stop.begin()
        folder = _open_folder(config, resume)
        stack.callback(folder.close)
        best = Best()
        evaluation = Evaluation(config, training, folder.best, best, stop)
        stack.callback(evaluation.close)
        with _failures_reported(folder, config):
            files.make_folder(folder.checkpoints)
            remove_leftovers(folder.checkpoints)
            record = stack.enter_context(
                open_record(
                    config.telemetry,
                    folder,
                    position=_record_position(config, resume),
                    env_steps=training.env_steps,
                    recall=best.recall,
                    sinks=sinks,
                    stop=stop,
                )
            )
            called = Callbacks(callbacks, Progress(config, folder.path, training))
            session = Session(config, training, folder, record, evaluation, called, stop)
            train, finished = session.run(resume, rates_before, begun)
        if config.picture:
            draw_picture(config, folder)
        return RunResult(run_dir=folder.path, train=train, cause=finished.cause, seconds=finished.seconds)


def check_run(config: RunConfig) -> None:
    """Make what a run of `config` is made of, and close it: nothing is trained or written.

    Raises:
        ConfigError, RunError: as `run`.
    """
    _check_settings(config)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(1))
        stop = stack.enter_context(stop_request(quiet=True))
        with _failed_starts_reported(stop):
            _make(config, stop, stack)


def resume_run(
    path: str | Path,
    layers: Sequence[Layer] = (),
    *,
    mode: Mode = "continue",
    fresh_episodes: bool = False,
    trust: bool = False,
    given: Given | None = None,
    callbacks: Sequence[CallbackLike] = (),
    sinks: Callable[[RunConfig], Sequence[Sink]] = lambda config: (),
) -> tuple[RunConfig, RunResult]:
    """Resume the run, or the checkpoint, in `path`; `layers` are settings to change.

    `given` is the environment of a run whose environment was passed from Python.

    In a run, the one before a corrupt checkpoint is taken. With `trust`, modules that only its files name are imported.

    Raises:
        SettingsError: for settings that cannot be used; otherwise as `run`.
    """
    if mode not in MODES:
        raise ConfigError("resume_schedule", mode, f"must be one of {', '.join(MODES)}")
    checked("trust", trust, bool)
    checked("fresh_episodes", fresh_episodes, bool)
    point = find_resume_point(as_path("path", path))
    if point.state is None:
        _log.warning("%s was stopped before its first checkpoint: it restarts", path)
    settings = settings_to_resume(point, layers, mode, trust=trust)
    with placed(settings.origins):
        config = _with_environment(settings.config, given)
        resume = Resume(point=point, mode=mode, fresh_episodes=fresh_episodes)
        return config, run(config, sinks(config), resume, callbacks)


def _with_environment(config: RunConfig, given: Given | None) -> RunConfig:
    """`config` with the environment that is passed again."""
    if given is None:
        return config
    environment = config.environment
    if environment.env != recorded_name(given):
        raise ConfigError(
            "env", recorded_name(given), f"is another environment than that of the run, {environment.env}"
        )
    return dataclasses.replace(config, environment=dataclasses.replace(environment, given=given))


def _make(config: RunConfig, stop: StopRequest, stack: contextlib.ExitStack) -> tuple[VectorEnv, PPOAgent]:
    """The environment, which `stack` closes, and the agent."""
    env = watched(make_for_training(config.environment, config.ppo.num_envs, env_seed(config, 0)), stop)
    if not config.environment.exists:
        stack.callback(env.close)
    check_videos(config)
    debug = config.telemetry.telemetry == "debug"
    return env, PPOAgent(config.ppo, env.spec, seed=config.seed, debug=debug, **config.parts.given)


def _check_given(config: RunConfig, sinks: Sequence[Sink], callbacks: Sequence[CallbackLike]) -> None:
    """Refuse what cannot be used, recorded, called or written to."""
    _check_settings(config)
    check_callbacks(callbacks)
    check_sinks(sinks)


def _check_settings(config: RunConfig) -> None:
    config.parts.check()
    _check_recordable(config)
    check_writers(config.telemetry)


def _check_recordable(config: RunConfig) -> None:
    try:
        files.dump_json(recorded(config))
    except (TypeError, ValueError) as error:
        allowed = f"must be JSON to be recorded: {error}"
        raise ConfigError("env_kwargs", config.environment.env_kwargs, allowed) from None


def _check_folder(config: RunConfig, resume: Resume | None) -> None:
    if resume is None or not resume.point.is_in_folder_of(config):
        check_new_folder(config)
    elif resume.point.run_dir is not None:
        check_writable(resume.point.run_dir)
        check_not_in_use(resume.point.run_dir)


def _open_folder(config: RunConfig, resume: Resume | None) -> RunFolder:
    if resume is None or not resume.point.is_in_folder_of(config):
        return create_run_folder(config)
    assert resume.point.run_dir is not None
    folder = open_run_folder(resume.point.run_dir)
    try:
        # Checked under the lock: another process may have resumed the run in the meantime.
        check_newest(resume.point)
    except ResumeError:
        folder.close()
        raise
    return folder


def _record_position(config: RunConfig, resume: Resume | None) -> int:
    """The bytes of the record that are kept."""
    if resume is None or resume.point.state is None or not resume.point.is_in_folder_of(config):
        return 0
    position: int = resume.point.state["events_bytes"]
    return position


@contextlib.contextmanager
def _failed_starts_reported(stop: StopRequest) -> Iterator[None]:
    """Turn errors of making or resetting an environment, and a lack of memory, into a `RunError`."""
    try:
        yield
    except EnvError as error:
        if stop.at_once:
            raise KeyboardInterrupt from None
        raise RunError(str(error)) from error
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        asked = "num_envs, num_steps, hidden_sizes or the environment ask for more memory than there is"
        raise RunError(f"{asked}: {describe(error)}") from None


@contextlib.contextmanager
def _failures_reported(folder: RunFolder, config: RunConfig) -> Iterator[None]:
    """Turn expected failures into a `RunError`; unexpected errors pass, as their traceback is useful."""
    try:
        yield
    except FAILURES as error:
        raise RunError(f"{error or describe(error)}\n{_what_is_left(folder, config)}") from error


def _what_is_left(folder: RunFolder, config: RunConfig) -> str:
    """A sentence about the last checkpoint."""
    if not (kept := checkpoints_in(folder.checkpoints)):
        return "there is no checkpoint yet"
    command = resume_command(folder.path, config)
    return f"the last checkpoint is {kept[0]}; resume from it with  {command}"

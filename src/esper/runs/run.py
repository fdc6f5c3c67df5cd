"""One training run in a folder: the only place that wires environment, agent, telemetry and files."""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from esper.envs.base import EnvError
from esper.envs.make import make_for_training
from esper.envs.watched import GivenUp, watched
from esper.policies.policy import save_policy
from esper.runs.checkpoint.folder import checkpoints_in, remove_leftovers, set_aside
from esper.runs.checkpoint.keeper import CheckpointKeeper, Saved
from esper.runs.config import RunConfig
from esper.runs.evaluation import Evaluation
from esper.runs.events import run_finished, run_resumed, run_started
from esper.runs.folder import RunFolder, create_run_folder, open_run_folder, resume_command
from esper.runs.layers import Layer, placed, recorded
from esper.runs.resume.load import load_run
from esper.runs.resume.point import Resume, ResumeError, ResumePoint, check_newest, find_resume_point
from esper.runs.resume.rules import Mode, changes
from esper.runs.resume.settings import settings_to_resume
from esper.runs.state import capture_run, env_seed
from esper.settings.options import ConfigError
from esper.simic.ppo import PPOAgent
from esper.simic.rates import Rates
from esper.simic.threads import torch_threads
from esper.simic.vectorized import Training, TrainResult
from esper.storage import files
from esper.storage.store import StoreError, dump_json
from esper.system.errors import describe, is_out_of_memory
from esper.system.stopping import StopRequest, stop_request
from esper.telemetry.events import CheckpointSaved, Event, Sink, SinkError
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.stream import Telemetry
from esper.telemetry.writers import check_writers, make_writers

_log = logging.getLogger(__name__)

# Long enough for Weights & Biases to send what it has; a signal more ends the process.
SECONDS_TO_CLOSE_A_SINK = 60.0


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Where a run is, and how it ended; `cause` is why, if before its last update."""

    run_dir: Path
    train: TrainResult
    cause: str | None
    seconds: float


class RunError(Exception):
    """A run that could not go on: why, and what is left of it."""


def run(config: RunConfig, sinks: Sequence[Sink] = (), resume: Resume | None = None) -> RunResult:
    """Train as `config` says, going on from `resume` if given; events go to the run folder and to `sinks`.

    Nothing is written before environment, agent and state are made. A signal, or the end of `max_minutes`, ends the
    run after the update it is in.

    Raises:
        ConfigError: for settings that cannot be used, an environment that cannot be made, an unusable folder.
        StoreError, ResumeError: for a state, or a record, that cannot be gone on from.
        RunError: when the environment raised, or something cannot be written any more.
    """
    _check_recordable(config)
    check_writers(config.telemetry)
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch_threads(1))
        stop = stack.enter_context(stop_request(quiet=config.quiet))
        with _false_starts_reported(stop):
            env = watched(make_for_training(config.environment, config.ppo.num_envs, env_seed(config, 0)), stop)
            stack.callback(env.close)
            agent = PPOAgent(config.ppo, env.spec, seed=config.seed, debug=config.telemetry.telemetry == "debug")
            stack.enter_context(agent.optimization.torch_threads())
            training = Training(agent, env, env_seed=env_seed(config, 0))
            rates_before = load_run(config, training, resume) if resume and resume.point.state else None
        stop.begin()
        folder = _open_folder(config, resume)
        stack.callback(folder.close)
        with _failures_reported(session := _Session(config, training, folder, sinks, stack, stop)):
            if resume is None or rates_before is None:
                session.start()
            else:
                session.go_on(resume, rates_before)
            return session.train()


def resume_run(
    path: Path,
    layers: Sequence[Layer] = (),
    *,
    mode: Mode = "continue",
    fresh_episodes: bool = False,
    trust: bool = False,
    sinks: Callable[[RunConfig], Sequence[Sink]] = lambda config: (),
) -> tuple[RunConfig, RunResult]:
    """Go on with the run, or from the checkpoint, in `path`; `layers` are settings that are to change.

    In a run, a corrupt checkpoint gives way to the one before it. With `trust`, modules are imported that only its
    files name.

    Raises:
        SettingsError: for settings that cannot be used; otherwise as `run`.
    """
    point = find_resume_point(path)
    if point.state is None:
        _log.warning("%s was stopped before its first checkpoint: it begins anew", path)
    settings = settings_to_resume(point, layers, mode, trust=trust)
    with placed(settings.origins):
        resume = Resume(point=point, mode=mode, fresh_episodes=fresh_episodes)
        return settings.config, run(settings.config, sinks(settings.config), resume)


def _check_recordable(config: RunConfig) -> None:
    try:
        dump_json(recorded(config))
    except (TypeError, ValueError) as error:
        allowed = f"must be JSON to be recorded: {error}"
        raise ConfigError("env_kwargs", config.environment.env_kwargs, allowed) from None


def goes_on_in_place(config: RunConfig, point: ResumePoint) -> bool:
    """Whether the run goes on in its own folder, and not in another one."""
    run_dir = point.run_dir
    return run_dir is not None and (config.run_dir is None or Path(config.run_dir).resolve() == run_dir.resolve())


def _open_folder(config: RunConfig, resume: Resume | None) -> RunFolder:
    if resume is None or not goes_on_in_place(config, resume.point):
        return create_run_folder(config)
    assert resume.point.run_dir is not None
    folder = open_run_folder(resume.point.run_dir)
    try:
        # Asked under the lock: another process may have gone on in the meantime.
        check_newest(resume.point)
    except ResumeError:
        folder.close()
        raise
    return folder


@contextlib.contextmanager
def _false_starts_reported(stop: StopRequest) -> Iterator[None]:
    """An environment that raises when it is made, or reset, and memory that is not there, become a `RunError`."""
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
def _failures_reported(session: _Session) -> Iterator[None]:
    """What ends the run within becomes a `RunError`, in the record too if that can still be written.

    So is what nobody foresaw, which stays what it is: its traceback is of use.
    """
    try:
        yield
    except (EnvError, StoreError, SinkError, OSError, ConfigError, MemoryError) as error:
        session.fail(str(error) or describe(error))
        raise RunError(f"{error or describe(error)}\n{session.what_is_left()}") from error
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        session.fail(describe(error))
        raise


class _Session:
    """A run from one start to its end: its record, its checkpoints, its result."""

    def __init__(
        self,
        config: RunConfig,
        training: Training,
        folder: RunFolder,
        sinks: Sequence[Sink],
        stack: contextlib.ExitStack,
        stop: StopRequest,
    ) -> None:
        self._config, self._training, self._folder, self._stack = config, training, folder, stack
        self._watchers, self._stop = sinks, stop
        self._evaluation = Evaluation(config, stop)
        stack.callback(self._evaluation.close)
        self._keeper = CheckpointKeeper(folder.checkpoints, config.checkpoints)
        self._telemetry: Telemetry | None = None
        self._saved_after: int | None = None
        self._started = time.perf_counter()

    def start(self) -> None:
        """Begin the record of a new run, and leave a checkpoint of its beginning."""
        self._open_record(0)
        self._emit(run_started(self._config, self._training.agent))
        self._save()

    def go_on(self, resume: Resume, rates_before: Rates) -> None:
        """Go on with the record, in place or in another folder, and leave a checkpoint of what is new here."""
        state, in_place = resume.point.state, goes_on_in_place(self._config, resume.point)
        assert state is not None
        changed = changes(resume.point.config, self._config)
        self._open_record(state["events_bytes"] if in_place else 0)
        agent = self._training.agent
        if warning := agent.schedules.past_end(agent.config.total_updates):
            _log.warning("%s; --resume-schedule extend lets the schedules span the new total_timesteps", warning)
        if in_place:
            for checkpoint, _ in resume.point.broken:
                set_aside(checkpoint)
        else:
            self._emit(run_started(self._config, self._training.agent))
        self._emit(run_resumed(self._config, self._training, resume, rates_before, changed))
        if in_place and resume.mode == "continue" and not changed:
            self._saved_after = agent.train_steps
        else:
            self._save()
        if in_place and self._evaluation.was_dropped(agent.train_steps):
            self._evaluate()

    def train(self) -> RunResult:
        """Train to the end of the run, or until it is stopped."""
        training, stop = self._training, self._stop
        stop.set_deadline(self._config.max_minutes)
        try:
            result = training.run(
                on_event=self._emit,
                should_stop=lambda: bool(self._evaluation.reached or stop),
                after_update=self._after_update,
            )
        except GivenUp as error:
            _log.warning("%s", error)
            result = training.result("interrupted")
        if self._saved_after != training.agent.train_steps:
            self._save()
        self._announce(self._keeper.wait())
        cause = {"completed": None, "interrupted": stop.cause, "diverged": result.fault}[result.status]
        if result.status == "interrupted" and (reached := self._evaluation.reached):
            # It did what it was asked to, so that a sweep does not go on with it.
            result, cause = dataclasses.replace(result, status="completed"), reached
        seconds = time.perf_counter() - self._started
        self._emit(run_finished(training, result.status, cause, seconds))
        save_policy(self._folder.path, training.agent, self._config.environment)
        if self._config.picture:
            self._draw()
        return RunResult(run_dir=self._folder.path, train=result, cause=cause, seconds=seconds)

    def _draw(self) -> None:
        # matplotlib takes as long to import as a short run takes to train; only the end needs it.
        from esper.analysis.plots import plot_run

        title = f"{self._config.environment.env}, seed {self._config.seed}"
        try:
            plot_run(self._folder.path, self._folder.picture, title=title)
        except Exception as error:
            _log.warning("there is no picture: %s", describe(error))

    def fail(self, cause: str) -> None:
        """Record that the run ends here, if its record was begun and can be written."""
        if self._telemetry is None:
            return
        with contextlib.suppress(StoreError, SinkError, OSError):
            self._announce(self._keeper.wait())
        with contextlib.suppress(SinkError, OSError):
            self._emit(run_finished(self._training, "failed", cause, time.perf_counter() - self._started))

    def what_is_left(self) -> str:
        """The last checkpoint, in a sentence."""
        if not (kept := checkpoints_in(self._folder.checkpoints)):
            return "there is no checkpoint yet"
        command = resume_command(self._folder.path, self._config)
        return f"the last checkpoint is {kept[0]}; go on from it with  {command}"

    def _open_record(self, position: int) -> None:
        folder = self._folder
        files.make_folder(folder.checkpoints)
        remove_leftovers(folder.checkpoints)
        try:
            self._record = JsonlRecord(folder.events, position)
            self._stack.callback(self._record.close)
            self._telemetry = Telemetry(
                self._config.telemetry,
                self._record,
                writers=make_writers(self._config.telemetry, folder.path, self._training.env_steps),
                watchers=self._watchers,
                before=self._evaluation.recall(self._record.read()),
                limit=partial(self._stop.limited, SECONDS_TO_CLOSE_A_SINK),
            )
        except SinkError as error:
            raise ResumeError(f"{error}; go on in another folder with --run-dir") from None
        self._stack.callback(self._telemetry.close)
        files.write(folder.config, dump_json(recorded(self._config)))

    def _emit(self, event: Event) -> None:
        assert self._telemetry is not None
        self._telemetry.emit(event)

    def _after_update(self) -> None:
        updates = self._training.agent.train_steps
        if self._evaluation.due(updates):
            self._evaluate()
        self._announce(self._keeper.finished())
        if self._keeper.due(updates):
            self._save()

    def _evaluate(self) -> None:
        if (evaluated := self._evaluation.run(self._training)) is None:
            return
        event, best_so_far = evaluated
        self._emit(event)
        if best_so_far:
            files.make_folder(self._folder.best)
            save_policy(self._folder.best, self._training.agent, self._config.environment)

    def _save(self) -> None:
        try:
            state = capture_run(self._config, self._training, self._record.position)
        except GivenUp as error:
            _log.warning("%s", error)
            state = capture_run(self._config, self._training, self._record.position)
        self._exact_resume = state["exact_resume"]
        self._saved_after = self._training.agent.train_steps
        self._announce(self._keeper.save(self._saved_after, state, before=self._record.flush))

    def _announce(self, saved: Saved | None) -> None:
        if saved is not None:
            self._emit(
                CheckpointSaved(
                    checkpoint=f"{self._folder.checkpoints.name}/{saved.path.name}",
                    env_steps=saved.number * self._config.ppo.batch_size,
                    exact_resume=self._exact_resume or saved.number == 0,
                    seconds=saved.seconds,
                )
            )

"""Runs the trials of a search, which Optuna chooses, with any launcher. The only module that imports optuna.

Optuna is asked and told here, in one process; runs know nothing of it. So they are the runs of sweeps: on this machine
or on Ray, and what was interrupted goes on from its checkpoints.
"""

from __future__ import annotations

import os
import statistics
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, Trial, TrialState

from esper.analysis.runs import read_events
from esper.settings.layers import SettingsError
from esper.storage import files
from esper.sweep.job import Outcome
from esper.sweep.launch import Launcher
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of
from esper.tune.plan import Tuning, make_folders
from esper.tune.space import Choices, TuneError

STORAGE = "study.log"
# A look reads the whole records of the running trials.
_SECONDS_BETWEEN_LOOKS = 2.0
# The score of a run is the mean of its last evaluations: one alone is mostly luck.
_LAST = 3
_RETRIES = 1
# Trials, and evaluations of a trial, before any is pruned.
_UNPRUNED_TRIALS, _UNPRUNED_EVALUATIONS = 5, 2


@dataclass(kw_only=True)
class _Active:
    """A trial whose runs are not all over. `reported` evaluations were told to Optuna."""

    trial: Trial
    jobs: Sequence[Job]
    left: set[str]
    failed: dict[str, Outcome] = field(default_factory=dict)
    reported: int = 0
    pruned: bool = False


class Search:
    """The trials of `tuning`; `announce` gets a line about each that has ended.

    A search that is in the folder already goes on: trials that were interrupted first.
    """

    def __init__(self, tuning: Tuning, launcher: Launcher, announce: Callable[[Search, str], None]):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.tuning, self._launcher, self._announce = tuning, launcher, announce
        self.study = open_study(tuning)
        self._waiting: deque[Job] = deque()
        self._running: list[Job] = []
        self._active: dict[str, _Active] = {}
        self._tries: dict[str, int] = {}

    def run(self, should_stop: Callable[[], bool]) -> None:
        """Run trials until there are as many as planned, or `should_stop`; then running ones are left to be resumed."""
        for frozen in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            self._begin(Trial(self.study, frozen._trial_id), frozen.params)
        stopping = False
        while self._running or not stopping:
            if not stopping:
                self._fill()
                if not self._running:
                    return
            for job, outcome in self._launcher.ended(_SECONDS_BETWEEN_LOOKS):
                self._running.remove(job)
                self._ended(job, outcome)
            if should_stop() and not stopping:
                stopping = True
                self._launcher.stop()
            if not stopping:
                for name in list(self._active):
                    self._look(self._active[name])

    def _fill(self) -> None:
        while len(self._running) < self._launcher.slots:
            if not self._waiting and not self._ask():
                return
            if self._waiting:
                job = self._waiting.popleft()
                self._launcher.start(job)
                self._running.append(job)

    def _ask(self) -> bool:
        """Begin another trial, if there is one to be run."""
        begun = [trial for trial in self.study.get_trials(deepcopy=False) if trial.state is not TrialState.WAITING]
        if len(begun) >= self.tuning.trials:
            return False
        trial = self.study.ask()
        self._begin(trial, {name: _suggest(trial, name, self.tuning) for name in self.tuning.space})
        return True

    def _begin(self, trial: Trial, values: dict[str, Any]) -> None:
        name = f"trial-{trial.number:03}"
        try:
            jobs = self.tuning.jobs(name, _decoded(values, self.tuning), self.tuning.seeds)
        except SettingsError as error:
            # Settings that do not go together, as minibatches that do not divide the rollout.
            trial.set_user_attr("cause", str(error))
            self._tell(trial, TrialState.FAIL)
            return
        make_folders(jobs)
        active = _Active(trial=trial, jobs=jobs, left={job.name for job in jobs})
        self._active[name] = active
        for job in jobs:
            if progress_of(job).status in ("new", "begun"):
                self._waiting.append(job)
            else:
                active.left.discard(job.name)
        self._look(active)

    def _ended(self, job: Job, outcome: Outcome) -> None:
        active = self._active.get(job.arm)
        if active is None:
            return
        if outcome.status == "interrupted" and not active.pruned:
            # By someone else's signal, or the end of the search: the run goes on from its checkpoint.
            self._waiting.appendleft(job)
            return
        self._tries[job.name] = self._tries.get(job.name, 0) + 1
        if outcome.status == "failed" and self._tries[job.name] <= _RETRIES:
            self._waiting.appendleft(job)
            return
        active.left.discard(job.name)
        if outcome.status not in ("completed", "interrupted"):
            active.failed[job.name] = outcome
        self._look(active)

    def _look(self, active: _Active) -> None:
        """Report what all seeds have evaluated; prune, or end a trial whose runs are over."""
        curves = [evaluations(job.run_dir) for job in active.jobs]
        known = min(map(len, curves))
        for step in range(active.reported, known):
            active.trial.report(statistics.fmean(curve[step] for curve in curves), step)
            if not active.pruned and active.left and active.trial.should_prune():
                self._prune(active)
        active.reported = max(active.reported, known)
        if active.left:
            return
        del self._active[active.jobs[0].arm]
        if active.failed or not known:
            first = next(iter(active.failed.values()), Outcome(status="failed", cause="no run was evaluated"))
            active.trial.set_user_attr("cause", f"{first.status}: {first.cause or 'undone updates in a row'}")
            self._tell(active.trial, TrialState.FAIL)
        elif active.pruned:
            self._tell(active.trial, TrialState.PRUNED)
        else:
            self._tell(active.trial, statistics.fmean(map(score, curves)))

    def _prune(self, active: _Active) -> None:
        active.pruned = True
        names = {job.name for job in active.jobs}
        dropped = {job.name for job in self._waiting if job.name in names}
        self._waiting = deque(job for job in self._waiting if job.name not in dropped)
        active.left -= dropped
        for job in self._running:
            if job.name in names:
                self._launcher.cancel(job)

    def _tell(self, trial: Trial, outcome: TrialState | float) -> None:
        if isinstance(outcome, TrialState):
            told = self.study.tell(trial, state=outcome)
        else:
            told = self.study.tell(trial, outcome)
        self._announce(self, _line(told, best_of(self.study)))


def open_study(tuning: Tuning) -> optuna.Study:
    """The study in the folder of `tuning`; a new one begins with the settings that are there without a search.

    Raises:
        TuneError: when the file of the study is none, or cannot be written.
    """
    path = tuning.folder / STORAGE
    try:
        _drop_cut_line(path)
        return _open_study(tuning, JournalStorage(JournalFileBackend(str(path))))
    except OSError as error:
        raise TuneError(f"{path}: cannot be written: {files.why(error)}") from None
    except (ValueError, LookupError, TypeError, AssertionError) as error:
        raise TuneError(f"{path}: is no study of Optuna: {type(error).__name__}: {error!s:.200}") from None


def _drop_cut_line(path: Path) -> None:
    """Drop a last line that was cut, as on a full disk: Optuna would go on in it, and never read the file again."""
    descriptor = files.open_in_place(path, create=True)
    try:
        written = os.pread(descriptor, os.fstat(descriptor).st_size, 0)
        os.ftruncate(descriptor, written.rfind(b"\n") + 1)
    finally:
        os.close(descriptor)


def _open_study(tuning: Tuning, storage: JournalStorage) -> optuna.Study:
    names = [study.study_name for study in optuna.get_all_study_summaries(storage)]
    done = len(optuna.load_study(study_name=names[0], storage=storage).trials) if names else 0
    study = optuna.create_study(
        study_name="esper",
        storage=storage,
        direction="maximize",
        load_if_exists=True,
        # A search that goes on draws other numbers than it began with.
        sampler=(
            optuna.samplers.TPESampler(seed=tuning.sampler_seed + done, multivariate=True, constant_liar=True)
            if tuning.sampler == "tpe"
            else optuna.samplers.RandomSampler(seed=tuning.sampler_seed + done)
        ),
        pruner=(
            optuna.pruners.MedianPruner(_UNPRUNED_TRIALS, _UNPRUNED_EVALUATIONS)
            if tuning.pruner == "median"
            else optuna.pruners.NopPruner()
        ),
    )
    if not names and (start := tuning.start()):
        study.enqueue_trial(_encoded(start, tuning))
    return study


def best_of(study: optuna.Study) -> FrozenTrial | None:
    """The best trial that is complete."""
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    return max(done, key=lambda trial: trial.values[0], default=None)


def values_of(trial: FrozenTrial, tuning: Tuning) -> dict[str, Any]:
    """The settings of `trial`."""
    return _decoded(trial.params, tuning)


def evaluations(run_dir: Path) -> list[float]:
    """The mean returns of the evaluations of a run so far."""
    try:
        return [
            float(event["eval_return_mean"])
            for event in read_events(run_dir)
            if event["event"] == "evaluation_completed"
        ]
    except (OSError, ValueError):
        # Not begun, or a line that is being written.
        return []


def score(evaluated: Sequence[float]) -> float:
    """The mean of the last three evaluations."""
    return statistics.fmean(evaluated[-_LAST:])


def _line(trial: FrozenTrial, best: FrozenTrial | None) -> str:
    complete = trial.state is TrialState.COMPLETE
    outcome = f"{trial.value:.5g}" if complete else trial.user_attrs.get("cause", trial.state.name.lower())
    so_far = "" if best is None else f"  best {best.value:.5g} (trial {best.number})"
    values = ((name, f"{value:.3g}" if isinstance(value, float) else value) for name, value in trial.params.items())
    return f"trial {trial.number:3}: {outcome}{so_far}  {', '.join(f'{name} {value}' for name, value in values)}"


def _suggest(trial: Trial, name: str, tuning: Tuning) -> Any:
    parameter = tuning.space[name]
    if isinstance(parameter, Choices):
        return trial.suggest_categorical(name, list(map(_encode, parameter.values)))
    if parameter.whole:
        step = int(parameter.step or 1)
        return trial.suggest_int(name, int(parameter.low), int(parameter.high), log=parameter.log, step=step)
    return trial.suggest_float(name, parameter.low, parameter.high, log=parameter.log, step=parameter.step)


def _encode(value: Any) -> Any:
    """Optuna stores text, numbers and nothing: layers' sizes are text there."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else value


def _encoded(values: dict[str, Any], tuning: Tuning) -> dict[str, Any]:
    return {name: _encode(value) for name, value in values.items() if name in tuning.space}


def _decoded(values: dict[str, Any], tuning: Tuning) -> dict[str, Any]:
    found = {}
    for name, value in values.items():
        parameter = tuning.space[name]
        texts = {_encode(each): each for each in parameter.values} if isinstance(parameter, Choices) else {}
        found[name] = texts.get(value, value)
    return found

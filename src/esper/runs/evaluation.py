"""Evaluations during a run, and its best policy."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from esper.envs.base import VectorEnv
from esper.envs.watched import GivenUp
from esper.policies.evaluate import EvaluationStopped, make_evaluation_env, run_episodes, until
from esper.policies.policy import save_policy
from esper.policies.progress import Progress
from esper.runs.config import RunConfig
from esper.settings.values import counted
from esper.simic.vectorized import Training
from esper.storage import files
from esper.system.stopping import StopRequest
from esper.telemetry.episodes import episode_fields, fraction
from esper.telemetry.events import EvaluationCompleted, Event

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Best:
    """The best evaluation of a run so far: its `mean` return, and the `update` it followed."""

    def __init__(self) -> None:
        self.mean, self.update = -math.inf, -1
        self.latest_update = -1

    def recall(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Find the best evaluation in `records` of the run, which are passed through."""
        for record in records:
            if record["event"] == "evaluation_completed":
                self.latest_update = record["update"]
                self.improves(record.get("eval_return_mean", -math.inf), record["update"])
            yield record

    def improves(self, mean: float, update: int) -> bool:
        """Whether this is the best so far; if so, it is stored. A return that is not finite never is."""
        better = math.isfinite(mean) and mean > self.mean
        if better:
            self.mean, self.update = mean, update
        return better


class Evaluation:
    """Whole episodes every `eval_every` updates, always from the same initial states, in separate environments.

    Evaluations do not change what is learned. The best policy is saved in `folder`, atomically.
    """

    def __init__(self, config: RunConfig, training: Training, folder: Path, best: Best, stop: StopRequest) -> None:
        self._config, self._agent, self._training = config, training.agent, training
        self._folder, self._best, self._stop = folder, best, stop
        self._env: VectorEnv | None = None

    @property
    def reached(self) -> str | None:
        """The reason to stop once an evaluation has reached `stop_at_return`; None before."""
        goal = self._config.stop_at_return
        if goal is None or self._best.mean < goal:
            return None
        done = counted(self._best.update + 1, "update")
        return f"stop_at_return {goal:g}: the evaluation after {done} had {self._best.mean:.2f}"

    def _is_due(self) -> bool:
        every = self._config.eval_every
        return every is not None and self._agent.train_steps % every == 0

    def was_dropped(self) -> bool:
        """Whether the evaluation after the latest update is due and not in the record."""
        updates = self._agent.train_steps
        return updates > 0 and self._is_due() and self._best.latest_update < updates - 1

    def after_update(self, emit: Callable[[Event], None]) -> None:
        """Call `run` if an evaluation is due."""
        if self._is_due():
            self.run(emit)

    def run(self, emit: Callable[[Event], None]) -> None:
        """Evaluate the policy, and save it if it is the best so far; dropped when a stop is requested.

        Raises:
            EnvError: when the environment raises.
            SinkError, OSError: when the result cannot be written.
        """
        try:
            event = self._evaluate()
        except (EvaluationStopped, GivenUp) as error:
            _log.warning("the evaluation after %s is dropped: %s", counted(self._agent.train_steps, "update"), error)
            return
        better = self._best.improves(event.eval_return_mean, event.update)
        emit(event)
        if better:
            files.make_folder(self._folder)
            save_policy(self._folder, self._agent, self._config.environment)

    def _evaluate(self) -> EvaluationCompleted:
        started, episodes, update = time.perf_counter(), self._config.eval_episodes, self._agent.train_steps - 1
        if self._env is None:
            self._env = make_evaluation_env(self._config.environment, episodes, self._config.seed, self._stop)

        def report(progress: str) -> None:
            _log.info("evaluation after %s: %s", counted(update + 1, "update"), progress)

        progress = Progress(report, episodes, first=SECONDS_BETWEEN_LINES, every=SECONDS_BETWEEN_LINES)
        scores = run_episodes(
            self._agent.network,
            self._env,
            episodes=episodes,
            seed=self._config.seed,
            on_step=until(self._stop, episodes, progress),
        )
        fields = episode_fields(scores.returns, scores.lengths)
        return EvaluationCompleted(
            update=update,
            env_steps=self._training.env_steps,
            eval_episodes=episodes,
            eval_return_mean=fields["episode_return_mean"],
            eval_return_std=fields["episode_return_std"],
            eval_length_mean=fields["episode_length_mean"],
            seconds=time.perf_counter() - started,
            eval_capped=sum(scores.capped) or None,
            eval_success_rate=fraction(scores.successes),
        )

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

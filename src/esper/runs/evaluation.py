"""Evaluation while a run trains."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from esper.envs.base import VectorEnv
from esper.envs.watched import GivenUp
from esper.policies.evaluate import EvaluationStopped, make_evaluation_env, run_episodes, until
from esper.policies.progress import Progress
from esper.runs.config import RunConfig
from esper.simic.vectorized import Training
from esper.system.stopping import StopRequest
from esper.telemetry.events import EvaluationCompleted, episode_fields, success_rate

_log = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 10.0


class Evaluation:
    """Whole episodes every `eval_every` updates, always from the same starts, in environments of their own.

    What is learned does not change with it. `best` is the highest mean return, `best_update` what it came after.
    """

    def __init__(self, config: RunConfig, stop: StopRequest) -> None:
        self._config, self._stop = config, stop
        self._env: VectorEnv | None = None
        self.best, self.best_update = -math.inf, -1
        self._latest_update = -1

    def recall(self, records: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
        """Find the best evaluation again in `records` of the run, which are passed on."""
        for record in records:
            if record["event"] == "evaluation_completed":
                self._latest_update = record["update"]
                self._judge(record.get("eval_return_mean", -math.inf), record["update"])
            yield record

    @property
    def reached(self) -> str | None:
        """That an evaluation has reached `stop_at_return`, in words; None while none has."""
        goal = self._config.stop_at_return
        if goal is None or self.best < goal:
            return None
        return f"stop_at_return {goal:g}: the evaluation after update {self.best_update} had {self.best:.2f}"

    def due(self, updates: int) -> bool:
        every = self._config.eval_every
        return every is not None and updates % every == 0

    def was_dropped(self, updates: int) -> bool:
        """Whether the evaluation after so many updates is due and not in the record."""
        return updates > 0 and self.due(updates) and self._latest_update < updates - 1

    def run(self, training: Training) -> tuple[EvaluationCompleted, bool] | None:
        """Evaluate the policy as it is; also whether it is the best so far. None when it was stopped, and is dropped.

        Raises:
            EnvError: when the environment raises.
        """
        started, episodes = time.perf_counter(), self._config.eval_episodes
        if self._env is None:
            self._env = make_evaluation_env(self._config.environment, episodes, self._config.seed, self._stop)
        agent = training.agent

        def say(progress: str) -> None:
            _log.info("evaluation after update %d: %s", agent.train_steps - 1, progress)

        progress = Progress(say, episodes, first=SECONDS_BETWEEN_LINES, every=SECONDS_BETWEEN_LINES)
        try:
            scores = run_episodes(
                agent.network,
                self._env,
                episodes=episodes,
                seed=self._config.seed,
                on_step=until(self._stop, episodes, progress),
            )
        except (EvaluationStopped, GivenUp) as error:
            _log.warning("the evaluation after update %d is dropped: %s", agent.train_steps - 1, error)
            return None
        fields = episode_fields(scores.returns, scores.lengths)
        event = EvaluationCompleted(
            update=agent.train_steps - 1,
            env_steps=training.env_steps,
            eval_episodes=episodes,
            eval_return_mean=fields["episode_return_mean"],
            eval_return_std=fields["episode_return_std"],
            eval_length_mean=fields["episode_length_mean"],
            seconds=time.perf_counter() - started,
            eval_capped=sum(scores.capped) or None,
            eval_success_rate=success_rate(scores.successes),
        )
        return event, self._judge(event.eval_return_mean, event.update)

    def _judge(self, mean: float, update: int) -> bool:
        """Whether this is the best so far, which it is from now on. A return that is not finite never is."""
        better = math.isfinite(mean) and mean > self.best
        if better:
            self.best, self.best_update = mean, update
        return better

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

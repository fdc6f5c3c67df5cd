"""Evaluation while a run trains."""

from __future__ import annotations

import statistics
import time

from esper.config import RunConfig
from esper.envs.base import VectorEnv
from esper.evaluate import make_evaluation_env, run_episodes
from esper.simic.vectorized import Training
from esper.telemetry.events import EvaluationCompleted


class Evaluation:
    """Whole episodes every `eval_every` updates, always from the same starts, in environments of their own.

    What is learned does not change with it.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._env: VectorEnv | None = None

    def due(self, updates: int) -> bool:
        every = self._config.eval_every
        return every is not None and updates % every == 0

    def run(self, training: Training) -> EvaluationCompleted:
        """Evaluate the policy as it is.

        Raises:
            EnvError: when the environment raises.
        """
        started, episodes = time.perf_counter(), self._config.eval_episodes
        if self._env is None:
            self._env = make_evaluation_env(self._config.environment, episodes)
        agent = training.agent
        scores = run_episodes(agent.network, self._env, episodes=episodes, seed=self._config.seed)
        return EvaluationCompleted(
            update=agent.train_steps - 1,
            env_steps=training.env_steps,
            eval_episodes=episodes,
            eval_return_mean=statistics.fmean(scores.returns),
            eval_return_std=statistics.pstdev(scores.returns),
            eval_length_mean=statistics.fmean(scores.lengths),
            seconds=time.perf_counter() - started,
        )

    def close(self) -> None:
        if self._env is not None:
            self._env.close()

"""The training loop."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from esper.envs.base import VectorEnv
from esper.simic.collect import Collector, Episode
from esper.simic.ppo import PPOAgent, UpdateResult
from esper.telemetry.events import Event, UpdateCompleted, UpdateSkipped, episode_fields


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a training run ended. `stopped` says that `should_stop` ended it before its last rollout."""

    env_steps: int
    updates: int
    episodes: int
    stopped: bool


def train_ppo_vectorized(
    agent: PPOAgent,
    env: VectorEnv,
    *,
    env_seed: int = 1,
    on_event: Callable[[Event], None] = lambda event: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `agent` in `env` for its configured number of updates; `on_event` gets an event after each.

    `should_stop` is asked between updates.
    """
    collector, rollout = Collector(env, env_seed), agent.allocate_rollout()
    episodes = rollouts = 0
    while rollouts < agent.config.total_updates and not should_stop():
        started = time.perf_counter()
        finished = collector.collect(agent.network, rollout, agent.generators["actions"])
        result = agent.update(rollout)
        rollouts += 1
        episodes += len(finished)
        on_event(_event(agent, result, finished, rollouts, time.perf_counter() - started))
    return TrainResult(
        env_steps=rollouts * agent.config.batch_size,
        updates=agent.train_steps,
        episodes=episodes,
        stopped=rollouts < agent.config.total_updates,
    )


def _event(agent: PPOAgent, result: UpdateResult, finished: list[Episode], rollouts: int, seconds: float) -> Event:
    env_steps = rollouts * agent.config.batch_size
    if not result.optimizer_steps:
        cause = "approx_kl exceeded target_kl before the first step" if result.finite else "non-finite loss or gradient"
        return UpdateSkipped(update=result.update, env_steps=env_steps, cause=cause)
    return UpdateCompleted(
        update=result.update,
        env_steps=env_steps,
        lr=result.rates.learning_rates,
        lr_phase=result.rates.phases,
        clip_coef=result.rates.clip_coef,
        entropy_coef=result.rates.entropy_coef,
        optimizer_steps=result.optimizer_steps,
        steps_per_second=agent.config.batch_size / seconds,
        grad_norm=result.grad_norms,
        explained_variance=result.explained_variance,
        **result.metrics,
        **episode_fields([e.episode_return for e in finished], [e.length for e in finished]),
    )

"""Evaluates a policy: whole episodes, with the environment's original rewards."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import torch

from esper.envs.base import VectorEnv
from esper.envs.config import MAX_EPISODE_STEPS, EnvConfig
from esper.envs.given import Given, recorded_name
from esper.envs.make import make_from_config
from esper.envs.watched import watched
from esper.policies.player import SAMPLING, Player, evaluation_generators
from esper.policies.policy import Policy
from esper.settings.values import Bounds, checked
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.threads import torch_threads
from esper.system.seeding import device_generator, integer_seed
from esper.system.stopping import StopRequest

_log = logging.getLogger(__name__)

_MAX_ENVS = 8
# More environments would mostly wait for each other.
THREADS = 1


class EvaluationStopped(Exception):
    """An evaluation was stopped before it had all its episodes."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One return and length per episode; `capped` counts those that the evaluation truncated.

    `successes` has 1 (success) or 0 for the episodes for which the environment reports it.
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    capped: list[bool] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)


@torch_threads(THREADS)
def evaluate(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    max_episode_steps: int | None = None,
    stop: StopRequest | None = None,
    on_step: Callable[[int, int], None] = lambda episodes, steps: None,
    env: Given | None = None,
) -> Scores:
    """Run `episodes` whole episodes in new environments, as `run_episodes`, unless `stop` is requested.

    `max_episode_steps` replaces the environment's own time limit. `env`, a class or another callable, makes each
    environment in place of the policy's; or it is an environment or vector environment, which stays open.

    Raises:
        ConfigError: for no episodes; when the environments cannot be made, or do not fit the policy.
        EvaluationStopped: when `stop` is requested before all are done.
    """
    episodes = checked("episodes", episodes, int, Bounds(minimum=1))
    seed = checked("seed", seed, int, Bounds(minimum=0))
    stop = StopRequest(quiet=True) if stop is None else stop
    config = environment_of(policy, env, max_episode_steps)
    made = make_evaluation_env(config, episodes, seed, stop)
    try:
        return run_episodes(
            policy.network,
            made,
            episodes=episodes,
            seed=seed,
            stochastic=stochastic,
            max_episode_steps=max_episode_steps,
            on_step=until(stop, episodes, on_step),
        )
    finally:
        if not config.exists:
            made.close()


def environment_of(policy: Policy, env: Given | None, max_episode_steps: int | None) -> EnvConfig:
    """The environment of `policy`, or `env` in its place; `max_episode_steps` replaces the time limit."""
    config = policy.environment.limited(max_episode_steps)
    if env is None:
        return config
    limit, scale = config.max_episode_steps, config.scale_actions
    return EnvConfig(env=recorded_name(env), given=env, max_episode_steps=limit, scale_actions=scale)


def until(
    stop: StopRequest, episodes: int, on_step: Callable[[int, int], None] = lambda episodes, steps: None
) -> Callable[[int, int], None]:
    """An `on_step` that ends an evaluation of so many `episodes` when `stop` is requested."""

    def step(done: int, steps: int) -> None:
        if stop:
            raise EvaluationStopped(f"after {done} of {episodes} episodes")
        on_step(done, steps)

    return step


def make_evaluation_env(config: EnvConfig, episodes: int, seed: int, stop: StopRequest) -> VectorEnv:
    """A number of environments that fits the number of `episodes`, reset with `seed`."""
    env = make_from_config(config, min(episodes, _MAX_ENVS), integer_seed(seed, "evaluation"))
    return log_time_limit(watched(env, stop), config)


def log_time_limit(env: VectorEnv, config: EnvConfig) -> VectorEnv:
    """`env`; if it has no time limit, logs where its episodes will be truncated."""
    if env.spec.max_episode_steps is None:
        message = "%s has no known time limit: episodes are truncated after %s steps; --max-episode-steps sets one"
        _log.info(message, config.env, f"{MAX_EPISODE_STEPS:,}")
    return env


@torch.no_grad()
def run_episodes(
    network: ActorCritic,
    env: VectorEnv,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    max_episode_steps: int | None = None,
    on_episode: Callable[[float, int], None] = lambda episode_return, length: None,
    on_step: Callable[[int, int], None] = lambda episodes, steps: None,
) -> Scores:
    """Run `episodes` whole episodes from a reset with `seed`, with the most likely actions unless `stochastic`.

    `on_episode` gets the return and length of each episode as it ends, `on_step` the numbers of episodes and steps so
    far, before each step; an exception of `on_step` ends the evaluation. Each environment has a fixed share of the
    episodes, so that short ones are not counted more often. During the evaluation the global generators of `random`,
    `numpy.random` and torch (on the CPU) are seeded by `seed`; afterwards they are restored.

    An episode that has not ended after `max_episode_steps`, by default the environment's own time limit or else
    `MAX_EPISODE_STEPS`, counts with its return so far, as `capped`. A single environment cannot be reset: it waits
    until the others have finished, and all are reset together.
    """
    with evaluation_generators(seed).in_place():
        return _run_episodes(network, env, episodes, seed, stochastic, max_episode_steps, on_episode, on_step)


def _run_episodes(
    network: ActorCritic,
    env: VectorEnv,
    episodes: int,
    seed: int,
    stochastic: bool,
    max_episode_steps: int | None,
    on_episode: Callable[[float, int], None],
    on_step: Callable[[int, int], None],
) -> Scores:
    num_envs = env.spec.num_envs
    most = max_episode_steps or env.spec.max_episode_steps or MAX_EPISODE_STEPS
    actions = device_generator(seed, SAMPLING, torch.device("cpu"))
    left = np.array([len(range(index, episodes, num_envs)) for index in range(num_envs)])
    running, lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
    waiting = np.zeros(num_envs, dtype=np.bool_)
    result, starts, steps = Scores(), 1, 0
    player = Player(network, env, seed)
    while left.any():
        on_step(len(result.returns), steps)
        step = player.step(network.noise((num_envs,), actions) if stochastic else None)
        running += step.reward
        lengths += 1 if step.ignored is None else ~step.ignored
        steps += num_envs
        ended, over = step.terminated | step.truncated, lengths >= most
        # The environment also truncates at this time limit.
        capped = over & ~step.terminated if max_episode_steps else over & ~ended
        for index in np.flatnonzero((ended | over) & ~waiting & (left > 0)):
            left[index] -= 1
            result.returns.append(float(running[index]))
            result.lengths.append(int(lengths[index]))
            result.capped.append(bool(capped[index]))
            if step.success is not None and not np.isnan(step.success[index]):
                result.successes.append(float(step.success[index]))
            on_episode(result.returns[-1], result.lengths[-1])
        waiting = (waiting | over) & ~ended
        if left.any() and not left[~waiting].any():
            player, starts = Player(network, env, seed, f"evaluation, start {starts}"), starts + 1
            ended, waiting = np.ones_like(ended), np.zeros_like(waiting)
        running[ended], lengths[ended] = 0.0, 0
    return result

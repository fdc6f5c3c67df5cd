"""How good a policy is: whole episodes, with the environment's own rewards."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from esper import files
from esper.envs.base import Actions, Step, VectorEnv, scaled_to
from esper.envs.config import EnvConfig
from esper.envs.make import make_from_config, make_rendered, make_shown
from esper.options import ConfigError
from esper.policy import Policy
from esper.simic.networks import ActorCritic
from esper.simic.seeding import device_generator, integer_seed
from esper.stopping import StopRequest
from esper.watched import watched

_MAX_ENVS = 8


class EvaluationStopped(Exception):
    """An evaluation was asked to stop before it had all its episodes."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One return and length per episode."""

    returns: list[float]
    lengths: list[int]


def evaluate(
    policy: Policy, *, episodes: int, seed: int, stochastic: bool = False, stop: StopRequest | None = None
) -> Scores:
    """Run `episodes` whole episodes in environments of their own, as `run_episodes`, until `stop` is requested."""
    stop = StopRequest(quiet=True) if stop is None else stop
    env = make_evaluation_env(policy.environment, episodes, stop)
    try:
        return run_episodes(
            policy.network, env, episodes=episodes, seed=seed, stochastic=stochastic, should_stop=lambda: bool(stop)
        )
    finally:
        env.close()


def make_evaluation_env(config: EnvConfig, episodes: int, stop: StopRequest) -> VectorEnv:
    """An environment with as many copies as are worth having for so many `episodes`."""
    return watched(make_from_config(config, min(episodes, _MAX_ENVS)), stop)


def show(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    fps: float | None = None,
    on_episode: Callable[[float, int], None],
) -> None:
    """Run `episodes` whole episodes in a window, one after the other, as `run_episodes`.

    Raises:
        ConfigError: where there can be no window.
        EnvError: when the environment raises.
    """
    env = watched(make_shown(policy.environment, fps), StopRequest(quiet=True))
    try:
        run_episodes(policy.network, env, episodes=episodes, seed=seed, stochastic=stochastic, on_episode=on_episode)
    finally:
        env.close()


@torch.no_grad()
def run_episodes(
    network: ActorCritic,
    env: VectorEnv,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    on_episode: Callable[[float, int], None] = lambda episode_return, length: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> Scores:
    """Run `episodes` whole episodes from a reset with `seed`, with the most likely actions unless `stochastic`.

    `on_episode` gets return and length of each as it ends. Each copy of the environment has a fixed share of the
    episodes, so that short ones are not counted more often.

    Raises:
        EvaluationStopped: when `should_stop` says so, which is asked between steps.
    """
    num_envs = env.spec.num_envs
    actions = device_generator(seed, "evaluation actions", torch.device("cpu"))
    left = np.array([len(range(copy, episodes, num_envs)) for copy in range(num_envs)])
    running, lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
    result = Scores(returns=[], lengths=[])
    player = _Player(network, env, seed)
    while left.any():
        if should_stop():
            raise EvaluationStopped(f"after {len(result.returns)} of {episodes} episodes")
        step = player.step(network.noise((num_envs,), actions) if stochastic else None)
        running += step.reward
        lengths += 1 if step.ignored is None else ~step.ignored
        for copy in np.flatnonzero(step.terminated | step.truncated):
            if left[copy]:
                left[copy] -= 1
                result.returns.append(float(running[copy]))
                result.lengths.append(int(lengths[copy]))
                on_episode(result.returns[-1], result.lengths[-1])
            running[copy] = lengths[copy] = 0
    return result


@torch.no_grad()
def record_gif(
    policy: Policy, path: Path, *, seed: int, max_frames: int = 1000, stop: StopRequest | None = None
) -> int:
    """Draw one episode as an animated GIF; returns its number of frames.

    Raises:
        EvaluationStopped: when `stop` is requested before that; nothing is written.
    """
    from PIL import Image

    stop = StopRequest(quiet=True) if stop is None else stop
    drawn = make_rendered(policy.environment)
    env = watched(drawn, stop)
    frames: list[Image.Image] = []
    try:
        player = _Player(policy.network, env, seed)
        ended = False
        while not ended and len(frames) < max_frames:
            if stop:
                raise EvaluationStopped("before the episode was drawn")
            frames.append(Image.fromarray(drawn.render()))
            step = player.step()
            ended = bool(step.terminated[0] or step.truncated[0])
    finally:
        env.close()
    gif, duration = io.BytesIO(), round(1000 / drawn.render_fps)
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    files.write(path, gif.getvalue())
    return len(frames)


def _same(ours: Actions, theirs: Actions) -> bool:
    """Whether actions are the same, but for the type of bounds: EnvPool has some in float64, Gymnasium in float32."""
    bounds, others = scaled_to(ours), scaled_to(theirs)
    if bounds is None or others is None or len(bounds.low) != len(others.low):
        return ours == theirs
    pairs = ((bounds.low, others.low), (bounds.high, others.high))
    return all(np.array_equal(*np.array(pair, dtype=np.float32)) for pair in pairs)


class _Player:
    """`network` in `env`, from a reset on, with what it remembers.

    Raises:
        ConfigError: where the environment takes other actions than the policy gives.
    """

    def __init__(self, network: ActorCritic, env: VectorEnv, seed: int) -> None:
        if not _same(network.actions, env.spec.actions):
            raise ConfigError("actions", network.actions, f"the policy's; the environment takes {env.spec.actions}")
        self._network, self._env = network, env
        self._obs = env.reset(integer_seed(seed, "evaluation"))
        self._device = next(network.parameters()).device
        size = network.memory_size
        self._memory = torch.zeros((env.spec.num_envs, size), device=self._device) if size else None

    def step(self, noise: torch.Tensor | None = None) -> Step:
        """Act, sampling by `noise` if there is some, and see what happens."""
        masks = None if self._env.action_masks is None else torch.from_numpy(self._env.action_masks).to(self._device)
        noise = None if noise is None else noise.to(self._device)
        actions = self._network.act(torch.from_numpy(self._obs).to(self._device), noise, masks, self._memory)
        step = self._env.step(actions.cpu().numpy())
        self._obs = step.obs
        if self._memory is not None:
            self._memory[torch.from_numpy(step.begins).to(self._device)] = 0.0
        return step

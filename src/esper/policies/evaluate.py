"""How good a policy is: whole episodes, with the environment's own rewards."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from esper.envs.base import Actions, Step, VectorEnv, scaled_to
from esper.envs.config import MAX_EPISODE_STEPS, EnvConfig
from esper.envs.make import make_from_config, make_rendered, make_shown
from esper.envs.watched import watched
from esper.policies.policy import Policy
from esper.settings.options import ConfigError
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.threads import torch_threads
from esper.storage import files
from esper.system.seeding import GlobalGenerators, device_generator, integer_seed
from esper.system.stopping import StopRequest

if TYPE_CHECKING:
    from PIL import Image

    from esper.envs.rendering import RenderedVectorEnv
_log = logging.getLogger(__name__)

_MAX_ENVS = 8
# More would wait for each other, with a few observations at a time.
_THREADS = 1


class EvaluationStopped(Exception):
    """An evaluation was asked to stop before it had all its episodes."""


@dataclass(frozen=True, kw_only=True)
class Scores:
    """One return and length per episode, and whether it was cut: `capped`.

    `successes` are of those for which the environment tells: 1 for a success, 0 for none.
    """

    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    capped: list[bool] = field(default_factory=list)
    successes: list[float] = field(default_factory=list)


@torch_threads(_THREADS)
def evaluate(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    max_episode_steps: int | None = None,
    stop: StopRequest | None = None,
    on_step: Callable[[int, int], None] = lambda episodes, steps: None,
) -> Scores:
    """Run `episodes` whole episodes in environments of their own, as `run_episodes`, until `stop` is requested.

    `max_episode_steps` is a time limit in place of the environment's own.

    Raises:
        EvaluationStopped: when `stop` is requested before it has all of them.
    """
    stop = StopRequest(quiet=True) if stop is None else stop
    env = make_evaluation_env(policy.environment.limited(max_episode_steps), episodes, seed, stop)
    try:
        return run_episodes(
            policy.network,
            env,
            episodes=episodes,
            seed=seed,
            stochastic=stochastic,
            max_episode_steps=max_episode_steps,
            on_step=until(stop, episodes, on_step),
        )
    finally:
        env.close()


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
    """An environment with as many copies as are worth having for so many `episodes` begun with `seed`."""
    env = make_from_config(config, min(episodes, _MAX_ENVS), integer_seed(seed, "evaluation"))
    return _told(watched(env, stop), config)


def _told(env: VectorEnv, config: EnvConfig) -> VectorEnv:
    """`env`, after saying of one that has no time limit where its episodes are cut."""
    if env.spec.max_episode_steps is None:
        says = "no time limit of %s is known: an evaluation cuts episodes after %s steps; --max-episode-steps sets one"
        _log.info(says, config.env, f"{MAX_EPISODE_STEPS:,}")
    return env


@torch_threads(_THREADS)
def show(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    fps: float | None = None,
    max_episode_steps: int | None = None,
    on_episode: Callable[[float, int], None],
) -> None:
    """Run `episodes` whole episodes in a window, one after the other, as `run_episodes`.

    Raises:
        ConfigError: where there can be no window.
        EnvError: when the environment raises.
    """
    config = policy.environment.limited(max_episode_steps)
    with _generators(seed).in_place():
        env = _told(watched(make_shown(config, fps), StopRequest(quiet=True)), config)
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
    max_episode_steps: int | None = None,
    on_episode: Callable[[float, int], None] = lambda episode_return, length: None,
    on_step: Callable[[int, int], None] = lambda episodes, steps: None,
) -> Scores:
    """Run `episodes` whole episodes from a reset with `seed`, with the most likely actions unless `stochastic`.

    `on_episode` gets return and length of each as it ends, `on_step` the numbers of episodes and steps so far, before
    each step; what it raises ends the evaluation. Each copy of the environment has a fixed share of the episodes, so
    that short ones are not counted more often. Until they are over, the global generators of `random`, `numpy.random`
    and torch (on the CPU) are seeded by `seed`; afterwards they are as before.

    An episode that has not ended after `max_episode_steps`, by default the environment's own time limit or else
    `MAX_EPISODE_STEPS`, counts as it is, as `capped`. Nothing can reset its copy alone: it waits until the others are
    done with theirs, and all begin anew.
    """
    with _generators(seed).in_place():
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
    actions = device_generator(seed, "evaluation actions", torch.device("cpu"))
    left = np.array([len(range(copy, episodes, num_envs)) for copy in range(num_envs)])
    running, lengths = np.zeros(num_envs), np.zeros(num_envs, dtype=np.int64)
    waiting = np.zeros(num_envs, dtype=np.bool_)
    result, starts, steps = Scores(), 1, 0
    player = _Player(network, env, seed)
    while left.any():
        on_step(len(result.returns), steps)
        step = player.step(network.noise((num_envs,), actions) if stochastic else None)
        running += step.reward
        lengths += 1 if step.ignored is None else ~step.ignored
        steps += num_envs
        ended, over = step.terminated | step.truncated, lengths >= most
        # A time limit that was asked for here cuts episodes too.
        capped = over & ~step.terminated if max_episode_steps else over & ~ended
        for copy in np.flatnonzero((ended | over) & ~waiting & (left > 0)):
            left[copy] -= 1
            result.returns.append(float(running[copy]))
            result.lengths.append(int(lengths[copy]))
            result.capped.append(bool(capped[copy]))
            if step.success is not None and not np.isnan(step.success[copy]):
                result.successes.append(float(step.success[copy]))
            on_episode(result.returns[-1], result.lengths[-1])
        waiting = (waiting | over) & ~ended
        if left.any() and not left[~waiting].any():
            player, starts = _Player(network, env, seed, f"evaluation, start {starts}"), starts + 1
            ended, waiting = np.ones_like(ended), np.zeros_like(waiting)
        running[ended], lengths[ended] = 0.0, 0
    return result


@torch_threads(_THREADS)
@torch.no_grad()
def record_gif(
    policy: Policy,
    path: Path,
    *,
    seed: int,
    max_frames: int = 1000,
    max_episode_steps: int | None = None,
    stop: StopRequest | None = None,
) -> int:
    """Draw one episode as an animated GIF; returns its number of frames. One that is longer is drawn so far.

    `max_episode_steps` is a time limit in place of the environment's own.

    Raises:
        EvaluationStopped: when `stop` is requested before that; nothing is written.
    """
    stop = StopRequest(quiet=True) if stop is None else stop
    with _generators(seed).in_place():
        drawn = make_rendered(policy.environment.limited(max_episode_steps))
        env = watched(drawn, stop)
        try:
            frames, ended = _draw(drawn, _Player(policy.network, env, seed), max_frames, stop)
        finally:
            env.close()
    if not ended:
        _log.info("%s: the drawing stops after %s frames; the episode goes on", path, f"{max_frames:,}")
    gif, duration = io.BytesIO(), round(1000 / drawn.render_fps)
    frames[0].save(gif, "GIF", save_all=True, append_images=frames[1:], duration=duration, loop=0)
    files.write(path, gif.getvalue())
    return len(frames)


def _draw(
    env: RenderedVectorEnv, player: _Player, max_frames: int, stop: StopRequest
) -> tuple[list[Image.Image], bool]:
    """The frames of one episode of `player` in `env`, and whether it ended with them."""
    from PIL import Image

    frames: list[Image.Image] = []
    ended = False
    while not ended and len(frames) < max_frames:
        if stop:
            raise EvaluationStopped("before the episode was drawn")
        frames.append(Image.fromarray(env.render()))
        step = player.step()
        ended = bool(step.terminated[0] or step.truncated[0])
    return frames, ended


def _generators(seed: int) -> GlobalGenerators:
    """What environments that draw from the global generators are evaluated with."""
    return GlobalGenerators(integer_seed(seed, "evaluation"))


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

    def __init__(self, network: ActorCritic, env: VectorEnv, seed: int, start: str = "evaluation") -> None:
        if not _same(network.actions, env.spec.actions):
            raise ConfigError("actions", network.actions, f"the policy's; the environment takes {env.spec.actions}")
        self._network, self._env = network, env
        self._obs = env.reset(integer_seed(seed, start))
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

"""Shows a policy: in a window, or as a GIF or a video."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from esper.envs.config import EnvConfig
from esper.envs.given import Given
from esper.envs.make import make_rendered, make_shown
from esper.envs.watched import watched
from esper.policies.evaluate import THREADS, EvaluationStopped, environment_of, log_time_limit, run_episodes
from esper.policies.movies import check_movie, write_movie
from esper.policies.player import Player, evaluation_generators
from esper.policies.policy import Policy
from esper.settings.values import Bounds, as_path, checked
from esper.simic.threads import torch_threads
from esper.system.seeding import integer_seed
from esper.system.stopping import StopRequest

if TYPE_CHECKING:
    from esper.envs.rendering import RenderedVectorEnv
_log = logging.getLogger(__name__)


@torch_threads(THREADS)
def show(
    policy: Policy,
    *,
    episodes: int,
    seed: int,
    stochastic: bool = False,
    fps: float | None = None,
    max_episode_steps: int | None = None,
    env: Given | None = None,
    on_episode: Callable[[float, int], None] = lambda episode_return, length: None,
) -> None:
    """Run `episodes` whole episodes in a window, one after the other, as `run_episodes`.

    `env` is as in `record_gif`; its render mode is "human".

    Raises:
        ConfigError: when no window can be opened.
        EnvError: when the environment raises.
    """
    config = environment_of(policy, env, max_episode_steps)
    with evaluation_generators(seed).in_place():
        made = log_time_limit(watched(make_shown(config, fps), StopRequest(quiet=True)), config)
    try:
        run_episodes(policy.network, made, episodes=episodes, seed=seed, stochastic=stochastic, on_episode=on_episode)
    finally:
        if not config.exists:
            made.close()


@torch_threads(THREADS)
@torch.no_grad()
def record_gif(
    policy: Policy,
    path: str | Path,
    *,
    seed: int,
    max_frames: int = 1000,
    max_episode_steps: int | None = None,
    stop: StopRequest | None = None,
    env: Given | None = None,
) -> int:
    """Record one episode as an animated GIF, up to a maximum of frames; returns their number. A `path` that ends in
    .mp4 becomes a video, which needs the extra `video`.

    `max_episode_steps` replaces the environment's own time limit. `env` is used in place of the policy's environment: a
    class or another callable, which gets `render_mode="rgb_array"` if it takes it, or an environment that has this
    render mode, and stays open.

    Raises:
        ConfigError: when the environment cannot be made or drawn, or does not fit the policy.
        EvaluationStopped: when `stop` is requested; nothing is written.
    """
    path, seed = as_path("path", path), checked("seed", seed, int, Bounds(minimum=0))
    check_movie("path", path)
    stop = StopRequest(quiet=True) if stop is None else stop
    config = environment_of(policy, env, max_episode_steps)
    with evaluation_generators(seed).in_place():
        drawn = make_rendered(config)
        made = watched(drawn, stop)
        try:
            frames, ended = _draw(drawn, Player(policy.network, made, seed), max_frames, stop)
        finally:
            if not config.exists:
                made.close()
    if not ended:
        _log.info("%s: the drawing stops after %s frames; the episode goes on", path, f"{max_frames:,}")
    write_movie(path, frames, fps=drawn.render_fps)
    return len(frames)


def check_can_be_recorded(environment: EnvConfig, seed: int) -> None:
    """Draw the first frame of an episode.

    Raises:
        ConfigError: as `record_gif`.
        EnvError: when the environment raises.
    """
    with evaluation_generators(seed).in_place(), contextlib.closing(make_rendered(environment)) as env:
        env.reset(integer_seed(seed, "evaluation"))
        env.render()


def _draw(
    env: RenderedVectorEnv, player: Player, max_frames: int, stop: StopRequest
) -> tuple[list[NDArray[np.uint8]], bool]:
    """The frames of one episode of `player` in `env`, and whether the episode ended."""
    frames: list[NDArray[np.uint8]] = []
    ended = False
    while not ended and len(frames) < max_frames:
        if stop:
            raise EvaluationStopped("before the episode was drawn")
        frames.append(env.render().copy())
        step = player.step()
        ended = bool(step.terminated[0] or step.truncated[0])
    return frames, ended

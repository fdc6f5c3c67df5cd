"""Environments in JAX for purejax.py: CartPole written out, and MinAtar's games of gymnax."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

try:
    import jax
    from jax import numpy as jnp
except ImportError:  # said by `train` of purejax.py
    jax = jnp = None  # type: ignore[assignment]

MAX_EPISODE_STEPS = 500


@dataclass(frozen=True, kw_only=True)
class Env:
    """N environments at once.

    `begin(key, N)` is their observations [N, ...] and states. `step(key, states, actions)` is these after a step, or of
    a new episode where one ended, and of the step `reward`, `terminated` and `done`, each [N]; where episodes are also
    cut off, `final`, the observations before a new episode begins.
    """

    shape: tuple[int, ...]
    num_actions: int
    implementation: str
    begin: Callable[[Any, int], tuple[Any, Any]]
    step: Callable[[Any, Any, Any], tuple[Any, Any, dict[str, Any]]]


def make(name: str) -> Env:
    if name == "CartPole-v1":
        return Env(shape=(4,), num_actions=2, implementation="jax", begin=_begin, step=_step)
    if name.startswith("MinAtar/"):
        return _minatar(name.removeprefix("MinAtar/"))
    sys.exit(f"purejax: has CartPole-v1 and MinAtar's games, not {name}")


def _begin(key: Any, count: int) -> tuple[Any, Any]:
    obs = jax.random.uniform(key, (count, 4), minval=-0.05, maxval=0.05)
    return obs, {"obs": obs, "length": jnp.zeros(count, dtype=jnp.int32)}


def _step(key: Any, states: Any, actions: Any) -> tuple[Any, Any, dict[str, Any]]:
    final = _moved(states["obs"], actions)
    fallen = (jnp.abs(final[:, 0]) > 2.4) | (jnp.abs(final[:, 2]) > 0.2095)
    length = states["length"] + 1
    done = fallen | (length >= MAX_EPISODE_STEPS)
    obs = jnp.where(done[:, None], _begin(key, len(final))[0], final)
    seen = {"reward": jnp.ones(len(final)), "terminated": fallen, "done": done, "final": final}
    return obs, {"obs": obs, "length": jnp.where(done, 0, length)}, seen


def _moved(state: Any, action: Any) -> Any:
    """CartPole (Barto et al. 1983), with the constants of Gymnasium: the next states [N, 4]."""
    x, speed, angle, turn = state.T
    force = jnp.where(action == 1, 10.0, -10.0)
    sine, cosine = jnp.sin(angle), jnp.cos(angle)
    push = (force + 0.05 * turn**2 * sine) / 1.1
    turning = (9.8 * sine - cosine * push) / (0.5 * (4 / 3 - 0.1 * cosine**2 / 1.1))
    sliding = push - 0.05 * turning * cosine / 1.1
    return jnp.stack((x + 0.02 * speed, speed + 0.02 * sliding, angle + 0.02 * turn, turn + 0.02 * turning), 1)


def _minatar(game: str) -> Env:
    import gymnax

    if f"{game}-MinAtar" not in gymnax.registered_envs:
        sys.exit(f"purejax: gymnax has no {game}-MinAtar")
    env, params = gymnax.make(f"{game}-MinAtar")
    reset, one = jax.vmap(env.reset, (0, None)), jax.vmap(env.step, (0, 0, 0, None))

    def begin(key: Any, count: int) -> tuple[Any, Any]:
        obs, states = reset(jax.random.split(key, count), params)
        return obs, states

    def step(key: Any, states: Any, actions: Any) -> tuple[Any, Any, dict[str, Any]]:
        obs, states, reward, done, _ = one(jax.random.split(key, len(actions)), states, actions, params)
        return obs, states, {"reward": reward, "terminated": done, "done": done}

    return Env(shape=env.obs_shape, num_actions=env.num_actions, implementation="gymnax", begin=begin, step=step)

"""EnvPool's environments, stepped by its threads in C++, as `VectorEnv`."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium.spaces import Box, Space
from numpy.typing import NDArray

from esper.envs.actions import actions_of, bounds_of, to_space
from esper.envs.adapter import Adapter, Shell
from esper.envs.base import EnvSpec, ObsArray, StateTree, Step, VectorEnv
from esper.envs.config import EnvConfig, ScaleActions
from esper.envs.families import family_of_id
from esper.envs.family import Family
from esper.envs.observations import flatten_batch, observations_of, to_learner
from esper.envs.registration import how_to_install
from esper.envs.rendering import RenderedVectorEnv
from esper.envs.success import Successes
from esper.settings.options import ConfigError, nearest
from esper.system.machine import usable_cores

_DECIDED_BY_THE_RUN = {"num_envs", "batch_size", "max_num_players", "seed", "env_seed"}


class EnvPoolVectorEnv:
    """A pool in EnvPool's synchronous mode, which returns environments in order.

    The step after an episode's last one only resets: it is step 0 of the next episode, and marked `ignored`. An episode
    that terminates exactly at the time limit counts as truncated, as EnvPool does not distinguish the two. EnvPool does
    not report the state of environments, and an error in one of them ends the process.
    """

    action_masks = None

    def __init__(self, make: Callable[[int], Any], scale_actions: ScaleActions = "auto") -> None:
        """`make` makes the pool for a seed."""
        self._make = make
        self._pool = make(0)
        self.observation_space, self.action_space = self._pool.observation_space, self._pool.action_space
        actions = actions_of(self.action_space, scale_actions)
        self._to_space = to_space(self.action_space, actions)
        self.spec = EnvSpec(
            num_envs=self._pool.num_envs,
            observations=observations_of(self.observation_space),
            actions=actions,
            resets_in_a_step=True,
            max_episode_steps=self._pool.config.get("max_episode_steps"),
            action_bounds=bounds_of(self.action_space, actions),
        )
        self._successes = Successes()

    def reset(self, seed: int) -> ObsArray:
        # A pool takes its seed only when it is made.
        self._pool.close()
        self._pool = self._make(seed)
        obs, _ = self._pool.reset()
        return _to_learner(self.observation_space, obs)

    def step(self, actions: NDArray[np.generic]) -> Step:
        obs, reward, terminated, truncated, info = self._pool.step(self._to_space(actions))
        obs, resetting = _to_learner(self.observation_space, obs), info["elapsed_step"] == 0
        ended = terminated | truncated
        return Step(
            obs=obs,
            reward=reward.astype(np.float64),
            terminated=terminated,
            truncated=truncated,
            final_obs=obs if ended.any() else None,
            ignored=resetting if resetting.any() else None,
            success=self._successes.of(info, ended) if ended.any() else None,
        )

    def state_dict(self) -> StateTree | None:
        return None

    def load_state_dict(self, state: StateTree) -> None:
        raise ValueError("EnvPool cannot restore a state")

    def close(self) -> None:
        self._pool.close()


def _to_learner(space: Space[Any], obs: Any) -> ObsArray:
    return to_learner(space)(obs if isinstance(space, Box) else flatten_batch(space, obs))


def _make(config: EnvConfig, num_envs: int) -> EnvPoolVectorEnv:
    envpool = _import_envpool()
    if config.env not in (known := envpool.list_all_envs()):
        raise ConfigError("env", config.env, f"is not an EnvPool environment{nearest(config.env, known)}")
    if taken := sorted(_DECIDED_BY_THE_RUN & config.env_kwargs.keys()):
        raise ConfigError("env_kwargs", config.env_kwargs, f"{', '.join(taken)}: decided by the run's own settings")
    # Too few threads, or more than the system has, would end the process.
    threads = config.env_kwargs.get("num_threads", usable_cores())
    if not isinstance(threads, int) or threads < 1:
        raise ConfigError("env_kwargs", config.env_kwargs, "num_threads must be a whole number, at least 1")
    limit = {} if config.max_episode_steps is None else {"max_episode_steps": config.max_episode_steps}
    arguments = {**config.env_kwargs, **limit, "num_threads": min(threads, num_envs)}

    def make(seed: int) -> Any:
        # Independent seeds: EnvPool's consecutive ones would overlap with those of a neighbouring seed.
        seeds = np.random.default_rng(seed).integers(2**31, size=num_envs)
        return _make_pool(envpool, config.env, num_envs=num_envs, batch_size=num_envs, seed=seeds, **arguments)

    try:
        return EnvPoolVectorEnv(make, config.scale_actions)
    except ConfigError as error:
        raise ConfigError("env", config.env, error.allowed) if error.name == "space" else error from None
    except (AssertionError, ImportError, RuntimeError, TypeError, ValueError) as error:
        reason = str(error).partition("\n")[0].removesuffix(". The following argument types are supported:")
        if config.env_kwargs and not isinstance(error, ImportError):
            reason = f"{config.env} refuses them: {type(error).__name__}: {reason}"
            raise ConfigError("env_kwargs", config.env_kwargs, reason) from error
        raise ConfigError("env", config.env, f"cannot be made: {reason}") from error


def _import_envpool() -> Any:
    try:
        import envpool
    except ImportError as error:
        raise ConfigError("vector", "envpool", f"{how_to_install('envpool')}; {error}") from None
    return envpool


def _make_pool(envpool: Any, env: str, **arguments: Any) -> Any:
    with warnings.catch_warnings():
        # Gymnasium warns about bounds that EnvPool gives in float64 for a space of float32.
        warnings.simplefilter("ignore")
        pool = envpool.make_gymnasium(env, **arguments)
        _ = pool.observation_space, pool.action_space  # made at the first access
    if pool.config["max_num_players"] != 1:
        raise ConfigError("env", env, "has several players; only one is supported")
    return pool


class EnvPool(Family):
    """EnvPool's ids, if the setting `vector` selects it; rendered by Gymnasium's environment with that id."""

    prefixes = ("",)
    vectors = ("envpool",)
    extra = "envpool"

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> EnvPoolVectorEnv:
        return _make(config, num_envs)

    make_for_scores = make_for_training

    def make_adapter(self, config: EnvConfig) -> Adapter:
        env = _make(config, 1)
        env.close()
        return Adapter.of(Shell(env.observation_space, env.action_space), config.scale_actions)

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        return family_of_id(config.env).make_rendered(config)

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        return family_of_id(config.env).make_shown(config, fps)


FAMILY = EnvPool()

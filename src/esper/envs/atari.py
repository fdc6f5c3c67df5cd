"""Atari games by ALE's vector environment: made easier to learn from, and as they are to be scored."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from esper.envs.config import EnvConfig
from esper.settings.options import ConfigError
from esper.system.machine import usable_cores

_PREFIX = "ALE/"
# A lost life ends an episode, though the game goes on; `episodic_life` would begin a new game instead.
_EASIER = {"life_loss_info": True, "reward_clipping": True}
_THE_GAME = {"life_loss_info": False, "episodic_life": False, "reward_clipping": False}
_DECIDED_BY_THE_RUN = {"autoreset_mode", "batch_size", "num_envs"}
_FRAMES_PER_SECOND = 60
_PIXELS = 4


def is_atari(env: str) -> bool:
    """Whether `env` is one of ALE's ids, with or without the module that registers it."""
    return env.rpartition(":")[2].startswith(_PREFIX)


def for_training(config: EnvConfig) -> EnvConfig:
    """`config` with what makes a game easier to learn, unless its own arguments say otherwise."""
    return _with(config, {**_EASIER, **config.env_kwargs})


def for_scores(config: EnvConfig) -> EnvConfig:
    """`config` for whole games with their own rewards."""
    return _with(config, {**config.env_kwargs, **_THE_GAME})


def _with(config: EnvConfig, env_kwargs: dict[str, Any]) -> EnvConfig:
    return dataclasses.replace(config, env_kwargs=env_kwargs) if is_atari(config.env) else config


def native_arguments(config: EnvConfig) -> dict[str, Any]:
    """What ALE's vector environment is told besides `config.env_kwargs`.

    Episodes restart in the same step: in the next one ALE would not tell a lost life, after which the game goes on,
    from an end, after which the step does nothing. The final observation of a lost life is then an older one; as the
    episode is terminated, nothing looks at it.

    Raises:
        ConfigError: for arguments that are the run's to decide.
    """
    if taken := sorted(_DECIDED_BY_THE_RUN & config.env_kwargs.keys()):
        raise ConfigError("env_kwargs", config.env_kwargs, f"{', '.join(taken)}: decided by the run's own settings")
    arguments = {"num_threads": usable_cores(), **config.env_kwargs, "autoreset_mode": AutoresetMode.SAME_STEP}
    if config.max_episode_steps is None:
        return arguments
    # A step is an action, done for so many frames.
    own = gymnasium.spec(config.env.rpartition(":")[2]).kwargs["frameskip"]
    if not isinstance(frameskip := config.env_kwargs.get("frameskip", own), int):
        raise ConfigError("env_kwargs", config.env_kwargs, "frameskip must be a whole number")
    return {**arguments, "max_num_frames_per_episode": config.max_episode_steps * frameskip}


def check_vector(config: EnvConfig) -> None:
    """Refuse ways of stepping without the usual preprocessing.

    Raises:
        ConfigError: naming those that have it.
    """
    if config.vector not in ("auto", "native"):
        allowed = f"{config.env} is preprocessed only in its own vector version; use auto or native"
        raise ConfigError("vector", config.vector, allowed)


class Drawn(gymnasium.vector.VectorWrapper[Any, Any, Any]):
    """Draws what the player was last shown, as ALE's vector environment draws nothing."""

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any]) -> None:
        super().__init__(env)
        self.metadata = {**env.metadata, "render_fps": _FRAMES_PER_SECOND // 4}
        self._obs: NDArray[np.uint8] | None = None

    def reset(self, **arguments: Any) -> Any:
        self._obs, info = self.env.reset(**arguments)
        return self._obs, info

    def step(self, actions: Any) -> Any:
        outcome = self.env.step(actions)
        self._obs = outcome[0]
        return outcome

    def render(self) -> tuple[Any, ...]:
        """One image [height, width, 3] per copy: the newest frame."""
        assert self._obs is not None
        frames = self._obs[:, -1].repeat(_PIXELS, axis=1).repeat(_PIXELS, axis=2)
        return tuple(np.stack([frame] * 3, axis=-1) for frame in frames)

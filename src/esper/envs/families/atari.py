"""Atari games by ALE's vector environment: preprocessed for training, and with original episodes for scores."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray

from esper.envs.adapter import Adapter
from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.family import Family
from esper.envs.gym import GymnasiumVectorEnv
from esper.envs.making import adapted, adapter_of, native_vector
from esper.envs.registration import find_spec
from esper.envs.rendering import RenderedVectorEnv
from esper.settings.options import ConfigError
from esper.system.machine import usable_cores

# A lost life ends an episode, though the game goes on; `episodic_life` would begin a new game instead.
_EASIER = {"life_loss_info": True, "reward_clipping": True}
_THE_GAME = {"life_loss_info": False, "episodic_life": False, "reward_clipping": False}
_DECIDED_BY_THE_RUN = {"autoreset_mode", "batch_size", "num_envs"}
_FRAMES_PER_SECOND = 60
_PIXELS = 4


def _arguments(config: EnvConfig) -> dict[str, Any]:
    """The arguments of ALE's vector environment.

    Episodes reset in the same step: with next-step resets ALE does not distinguish a lost life, after which the game
    goes on, from its end, after which the step does nothing. The final observation of a lost life is then an older one;
    as the episode is terminated, it is not used.

    Raises:
        ConfigError: for arguments that the run's own settings decide.
    """
    if taken := sorted(_DECIDED_BY_THE_RUN & config.env_kwargs.keys()):
        raise ConfigError("env_kwargs", config.env_kwargs, f"{', '.join(taken)}: decided by the run's own settings")
    arguments = {"num_threads": usable_cores(), **config.env_kwargs, "autoreset_mode": AutoresetMode.SAME_STEP}
    if config.max_episode_steps is None:
        return arguments
    # A step repeats its action for this many frames.
    own = gymnasium.spec(config.env.rpartition(":")[2]).kwargs["frameskip"]
    if not isinstance(frameskip := config.env_kwargs.get("frameskip", own), int):
        raise ConfigError("env_kwargs", config.env_kwargs, "frameskip must be a whole number")
    return {**arguments, "max_num_frames_per_episode": config.max_episode_steps * frameskip}


class Drawn(gymnasium.vector.VectorWrapper[Any, Any, Any]):
    """Renders the newest observation, as ALE's vector environment cannot render."""

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
        """The newest frame of each environment, an image [height, width, 3]."""
        assert self._obs is not None
        frames = self._obs[:, -1].repeat(_PIXELS, axis=1).repeat(_PIXELS, axis=2)
        return tuple(np.stack([frame] * 3, axis=-1) for frame in frames)


class Atari(Family):
    """ALE's games, always by its vector environment, which preprocesses the frames."""

    prefixes = ("ALE/",)
    module = "ale_py"
    extra = "atari"

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> GymnasiumVectorEnv:
        """The usual simplifications for training, unless the arguments of `config` change them."""
        easier = dataclasses.replace(config, env_kwargs={**_EASIER, **config.env_kwargs})
        return self._make(easier, num_envs, seed)

    def make_for_scores(self, config: EnvConfig, num_envs: int, seed: int | None) -> GymnasiumVectorEnv:
        """Whole games with the original rewards."""
        return self._make(_the_game(config), num_envs, seed)

    def _make(self, config: EnvConfig, num_envs: int, seed: int | None) -> GymnasiumVectorEnv:
        find_spec(config.env)
        if config.vector not in ("auto", "native"):
            allowed = f"{config.env} is preprocessed only by its vector version; use auto or native"
            raise ConfigError("vector", config.vector, allowed)
        return adapted(GymnasiumVectorEnv, config, lambda: native_vector(config, num_envs, _arguments(config)), seed)

    def make_adapter(self, config: EnvConfig) -> Adapter:
        find_spec(config.env)
        game = _the_game(config)
        return adapter_of(game, lambda: native_vector(game, 1, _arguments(game)))

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        find_spec(config.env)
        game = _the_game(config)
        return adapted(RenderedVectorEnv, game, lambda: Drawn(native_vector(game, 1, _arguments(game))))

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        find_spec(config.env)
        allowed = "cannot be shown in a window; esper evaluate --record draws an episode without one"
        raise ConfigError("env", config.env, allowed)


def _the_game(config: EnvConfig) -> EnvConfig:
    return dataclasses.replace(config, env_kwargs={**config.env_kwargs, **_THE_GAME})


FAMILY = Atari()

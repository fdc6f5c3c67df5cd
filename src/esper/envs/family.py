"""What a family of environments is. Each file in `esper.envs.families` has one."""

from __future__ import annotations

import importlib
import logging
from typing import Any, ClassVar

import gymnasium

from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.making import make_gymnasium
from esper.envs.modes import sync_instead
from esper.envs.registration import find_spec, how_to_install
from esper.envs.rendering import RenderedVectorEnv, make_gymnasium_rendered, make_gymnasium_shown
from esper.settings.options import ConfigError

_log = logging.getLogger(__name__)


class Family:
    """Environments whose ids begin alike: how they are registered, wrapped and made.

    Here this is Gymnasium's way for all; a family overrides what it does otherwise.
    """

    # How the ids begin, without the module of `module:ID`.
    prefixes: ClassVar[tuple[str, ...]]
    # The values of the setting `vector` that are this family's to accept or refuse.
    vectors: ClassVar[tuple[str, ...]] = ("auto", "native", "sync", "async")
    # Importing it registers the ids; None where Gymnasium knows them, or `register` does that.
    module: ClassVar[str | None] = None
    # The extra that brings the packages.
    extra: ClassVar[str | None] = None

    def register(self, env: str) -> None:
        """Let Gymnasium know the ids, of which `env` is asked for.

        Raises:
            ConfigError: when packages are missing.
        """
        if self.module is None:
            return
        try:
            importlib.import_module(self.module)
        except ModuleNotFoundError as error:
            advice = f"{how_to_install(self.extra)}; " if self.extra else ""
            raise ConfigError("env", env, f"{advice}{error}") from None

    def wrap(self, env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        """What is put around each environment, before its observations are flattened."""
        return env

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        """`num_envs` environments to learn from; with a `seed`, constructors that draw from global generators use it.

        Raises:
            ConfigError: when they cannot be made as `config` says.
            EnvError: when one of several cannot be made.
        """
        env = make_gymnasium(config, num_envs, seed)
        if sync_instead(config, find_spec(config.env)):
            _log.info("%s is stepped by --vector sync: its own vector version takes no max_episode_steps", config.env)
        return env

    def make_for_scores(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        """The same with whole episodes and the environment's own rewards, where training has others."""
        return make_gymnasium(config, num_envs, seed)

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        """One environment, as for scores, that `render` can draw.

        Raises:
            ConfigError: as `make_for_scores`, and for one that cannot be drawn.
        """
        return make_gymnasium_rendered(config)

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        """One environment in a window, at most `fps` steps a second.

        Raises:
            ConfigError: as `make_for_scores`, and where there can be no window.
        """
        return make_gymnasium_shown(config, fps)

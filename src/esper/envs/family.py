"""The base class of environment families. Each file in `esper.envs.families` has one."""

from __future__ import annotations

import importlib
import logging
from typing import Any, ClassVar

import gymnasium

from esper.envs.adapter import Adapter
from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.making import make_adapter, make_gymnasium
from esper.envs.modes import sync_instead
from esper.envs.registration import find_spec, how_to_install
from esper.envs.rendering import RenderedVectorEnv, make_gymnasium_rendered, make_gymnasium_shown
from esper.settings.options import ConfigError

_log = logging.getLogger(__name__)


class Family:
    """Environments with a common id prefix: how they are registered, wrapped and made.

    The default is Gymnasium's way; a family overrides what differs.
    """

    # Prefixes of the ids, without the module of `module:ID`.
    prefixes: ClassVar[tuple[str, ...]]
    # The values of the setting `vector` that this family handles.
    vectors: ClassVar[tuple[str, ...]] = ("auto", "native", "sync", "async")
    # Importing it registers the ids; None if Gymnasium has them, or `register` registers them.
    module: ClassVar[str | None] = None
    # The extra that installs the packages.
    extra: ClassVar[str | None] = None

    def register(self, env: str) -> None:
        """Register the ids with Gymnasium; `env` is the one that is needed.

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
        """Wrap each environment, before its observations are flattened.

        A wrapper that changes observations also takes a batch of them, each array [N, ...].
        """
        return env

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        """`num_envs` environments to train on; with a `seed`, constructors that draw from global generators use it.

        Raises:
            ConfigError: when they cannot be made with `config`.
            EnvError: when one of several cannot be made.
        """
        env = make_gymnasium(config, num_envs, seed)
        if sync_instead(config, find_spec(config.env)):
            _log.info("%s is stepped with --vector sync: its vector version takes no max_episode_steps", config.env)
        return env

    def make_for_scores(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        """The same, but with whole episodes and the original rewards, if training changes these."""
        return make_gymnasium(config, num_envs, seed)

    def make_adapter(self, config: EnvConfig) -> Adapter:
        """What one environment, as for scores, gives and takes.

        Raises:
            ConfigError: as `make_for_scores`.
        """
        return make_adapter(config)

    def make_rendered(self, config: EnvConfig) -> RenderedVectorEnv:
        """One environment, as for scores, that can be rendered.

        Raises:
            ConfigError: as `make_for_scores`, and if it cannot be rendered.
        """
        return make_gymnasium_rendered(config)

    def make_shown(self, config: EnvConfig, fps: float | None) -> VectorEnv:
        """One environment in a window, at most `fps` steps a second.

        Raises:
            ConfigError: as `make_for_scores`, and if no window can be opened.
        """
        return make_gymnasium_shown(config, fps)

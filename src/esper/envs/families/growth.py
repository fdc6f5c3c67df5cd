"""Growing a network while it is trained, `esper/Growth-v0`: the hosts of all environments in one computation."""

from __future__ import annotations

import dataclasses

import gymnasium

from esper.envs.adapter import Adapter
from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.family import Family
from esper.settings.options import ConfigError

ID = "esper/Growth-v0"


class Growth(Family):
    """By its own vector version; one by one where the setting `vector` says so."""

    prefixes = (ID,)
    extra = "growth"

    def make_for_training(self, config: EnvConfig, num_envs: int, seed: int | None) -> VectorEnv:
        if config.vector not in ("auto", "native"):
            return super().make_for_training(config, num_envs, seed)
        from esper.envs.growth.settings import config_of
        from esper.envs.growth.vector import GrowthVectorEnv

        if config.scale_actions == "on":
            raise ConfigError("scale_actions", "on", f"the actions of {ID} are choices, which are not scaled")
        return GrowthVectorEnv(config_of(config.env_kwargs), num_envs, config.max_episode_steps)

    make_for_scores = make_for_training

    def make_adapter(self, config: EnvConfig) -> Adapter:
        # One environment gives and takes what each of all does; Gymnasium does not know of the vector version.
        return super().make_adapter(dataclasses.replace(config, vector="auto"))


# Registered at import: it needs no package to be known.
gymnasium.register(ID, entry_point="esper.envs.growth.single:GrowthEnv")
FAMILY = Growth()

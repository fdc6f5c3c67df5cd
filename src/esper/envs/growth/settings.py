"""The arguments of `esper/Growth-v0` as a `GrowthConfig`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from esper.envs.growth.config import GrowthConfig
from esper.settings.options import ConfigError, nearest


def config_of(env_kwargs: Mapping[str, Any]) -> GrowthConfig:
    """The settings that `env_kwargs` are.

    Raises:
        ConfigError: for an unknown one, and a value that is not allowed.
    """
    known = [field.name for field in dataclasses.fields(GrowthConfig)]
    for name, value in env_kwargs.items():
        if name not in known:
            allowed = f"is no setting of esper/Growth-v0; there are {', '.join(known)}{nearest(name, known)}"
            raise ConfigError(f"env_kwargs {name}", value, allowed)
    return GrowthConfig(**env_kwargs)

"""The families of environments: one file each, found here by scanning this package.

A file has a `FAMILY`, an `esper.envs.family.Family`. It is imported even if the packages of the family are missing, so
it imports these only where it uses them.
"""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from esper.settings.options import ConfigError

if TYPE_CHECKING:
    import gymnasium

    from esper.envs.config import EnvConfig
    from esper.envs.family import Family


@functools.cache
def families() -> tuple[Family, ...]:
    """All families; longer prefixes come first."""
    names = sorted(module.name for module in pkgutil.iter_modules(__path__))
    found: list[Family] = [importlib.import_module(f"{__name__}.{name}").FAMILY for name in names]
    return tuple(sorted(found, key=lambda family: -max(map(len, family.prefixes))))


def family_of(config: EnvConfig) -> Family:
    """The family that makes the environment of `config`.

    Raises:
        ConfigError: for an environment that was passed from Python before, and now is not.
    """
    from esper.envs.given import GivenFamily

    if config.given is not None:
        return GivenFamily(config.given)
    if config.was_given:
        raise ConfigError("env", config.env, "was passed from Python, where it must be passed again, as env")
    return _find(config.env, config.vector)


def family_of_id(env: str) -> Family:
    """The family of Gymnasium's id `env`, which may begin with the module that registers it."""
    return _find(env, "auto")


def wrapped(env: gymnasium.Env[Any, Any]) -> Any:
    """`env` in the wrappers of its family."""
    spec = env.unwrapped.spec
    return family_of_id(spec.id).wrap(env) if spec else env


def _find(env: str, vector: str) -> Family:
    name = env.rpartition(":")[2]
    return next(family for family in families() if name.startswith(family.prefixes) and vector in family.vectors)

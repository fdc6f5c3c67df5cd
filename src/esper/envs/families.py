"""Environments of packages that an extra of this one brings: what registers them, what is put around them."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gymnasium

from esper.settings.options import ConfigError, nearest
from esper.system.errors import describe_with_place, is_ctrl_c


@dataclass(frozen=True, kw_only=True)
class Family:
    """Environments whose ids begin alike: importing `module` registers them, `extra` brings the packages it needs.

    `wrapper`, as "module:callable", is put around each copy.
    """

    module: str
    extra: str
    wrapper: str | None = None


# By how their ids begin.
FAMILIES = {
    "ALE/": Family(module="ale_py", extra="atari"),
    "MinAtar/": Family(module="esper.envs.minatar", extra="minatar"),
    "MiniGrid-": Family(module="minigrid", extra="minigrid", wrapper="esper.envs.minigrid:OneHotView"),
    "popgym-": Family(module="popgym", extra="popgym"),
}
# Extras for environments that Gymnasium itself registers, by the module prefix of these.
_EXTRAS = {
    "gymnasium.envs.box2d": "box2d",
    "gymnasium.envs.mujoco": "mujoco",
}


def find_spec(env: str) -> gymnasium.envs.registration.EnvSpec:
    """The registered environment called `env`; `module:id` is one that importing `module` registers.

    Raises:
        ConfigError: with the nearest ids.
    """
    module, _, name = env.rpartition(":")
    if module:
        register_module(module, env)
    else:
        register_family(env)
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ValueError, ImportError) as error:
        hint = nearest(env, gymnasium.registry) or f" ({error})"
        raise ConfigError("env", env, f"is no Gymnasium environment here{hint}") from None


def register_family(env: str) -> None:
    """Let Gymnasium know the environments of the family of `env`, if it is of one.

    Raises:
        ConfigError: when the packages are missing.
    """
    family = _family(env)
    if family is None:
        return
    try:
        importlib.import_module(family.module)
    except ModuleNotFoundError as error:
        raise ConfigError("env", env, f"{how_to_install(family.extra)}; {error}") from None


def register_module(module: str, env: str) -> None:
    """Import `module`, which registers `env`.

    Raises:
        ConfigError: when it raises, whatever that is, or is not found; then with what helps.
    """
    try:
        importlib.import_module(module)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        why = str(error) if isinstance(error, ImportError) else describe_with_place(error, first_line=True)
        raise ConfigError("env", env, f"{module} cannot be imported: {why}{_where_it_is(module, error)}") from error


def _where_it_is(module: str, error: BaseException) -> str:
    """What to do where `module` is in the current folder, and Python does not look there."""
    top = module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name != top:
        return ""
    here = any(Path(name).exists() for name in (f"{top}.py", top))
    return "; it is in the current folder, where Python looks with PYTHONPATH=. before the command" if here else ""


def wrapped(env: gymnasium.Env[Any, Any]) -> Any:
    """`env` in the wrapper of its family, if there is one, unless others have changed what is observed."""
    spec = env.unwrapped.spec
    family = _family(spec.id) if spec else None
    if family is None or family.wrapper is None or env.observation_space != env.unwrapped.observation_space:
        return env
    module, _, name = family.wrapper.partition(":")
    return getattr(importlib.import_module(module), name)(env)


def missing_package(env: str, error: Exception) -> str:
    """What a `ConfigError` says where `error`, raised while `env` was made, is about a package that is not there."""
    spec = gymnasium.registry.get(env.rpartition(":")[2])
    for module, extra in _EXTRAS.items():
        if spec and str(spec.entry_point).startswith(module):
            return how_to_install(extra)
    return f"cannot be made: {error}"


def how_to_install(extra: str) -> str:
    """What a `ConfigError` says where the packages of an extra are missing."""
    return f"needs the extra '{extra}': run  make setup EXTRAS={extra}  (or pip install '.[{extra}]')"


def _family(env: str) -> Family | None:
    return next((family for prefix, family in FAMILIES.items() if env.startswith(prefix)), None)

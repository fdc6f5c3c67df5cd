"""Ids in Gymnasium's registry: registering them, and messages for missing packages."""

from __future__ import annotations

import importlib
from pathlib import Path

import gymnasium

from esper.envs.families import family_of_id
from esper.settings.options import ConfigError, nearest
from esper.system.errors import describe_with_place, is_ctrl_c

# Extras for environments that Gymnasium itself registers, by module prefix.
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
        family_of_id(env).register(env)
    try:
        return gymnasium.spec(name)
    except (gymnasium.error.Error, ValueError, ImportError) as error:
        hint = nearest(env, gymnasium.registry) or f" ({error})"
        raise ConfigError("env", env, f"is no Gymnasium environment here{hint}") from None


def register_module(module: str, env: str) -> None:
    """Import `module`, which registers `env`.

    Raises:
        ConfigError: when it raises anything, or is not found; the message says how to fix it.
    """
    try:
        importlib.import_module(module)
    except BaseException as error:
        if is_ctrl_c(error):
            raise
        why = str(error) if isinstance(error, ImportError) else describe_with_place(error, first_line=True)
        raise ConfigError("env", env, f"{module} cannot be imported: {why}{_where_it_is(module, error)}") from error


def _where_it_is(module: str, error: BaseException) -> str:
    """A hint if `module` is in the current folder and that is not on Python's path."""
    top = module.partition(".")[0]
    if not isinstance(error, ModuleNotFoundError) or error.name != top:
        return ""
    here = any(Path(name).exists() for name in (f"{top}.py", top))
    return "; it is in the current folder: put PYTHONPATH=. before the command" if here else ""


def missing_package(env: str, error: Exception) -> str:
    """The message of a `ConfigError` for `error`, raised while `env` was made, about a missing package."""
    spec = gymnasium.registry.get(env.rpartition(":")[2])
    for module, extra in _EXTRAS.items():
        if spec and str(spec.entry_point).startswith(module):
            return how_to_install(extra)
    return f"cannot be made: {error}"


def how_to_install(extra: str) -> str:
    """The message of a `ConfigError` if the packages of an extra are missing."""
    return f"needs the extra '{extra}': pip install 'esper-simic[{extra}]'"

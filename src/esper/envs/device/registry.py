"""All environments in tensors, by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from esper.envs.device.classic_control import CLASSIC_CONTROL
from esper.envs.device.dynamics import Dynamics
from esper.envs.device.minatar import MINATAR

PREFIX = "torch/"
DYNAMICS: Mapping[str, Callable[[], Dynamics]] = {**CLASSIC_CONTROL, **MINATAR}


def full_name(env: str) -> str:
    """The name of what the id `env` stands for: without the prefix, and with the version of a game of MinAtar."""
    name = env.removeprefix(PREFIX)
    return versioned if (versioned := f"{name}-v1") in MINATAR else name

"""Simic is the PPO learner: networks, schedules, rollouts and updates. It knows no environment library and no files.

Its public names load on first use, so that reading a configuration does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esper.schedules import CoefficientConfig as CoefficientConfig
    from esper.schedules import Schedule as Schedule
    from esper.schedules import ScheduleConfig as ScheduleConfig
    from esper.schedules import make_schedule as make_schedule
    from esper.simic.config import NetworkConfig as NetworkConfig
    from esper.simic.config import PPOConfig as PPOConfig
    from esper.simic.config import RuntimeConfig as RuntimeConfig
    from esper.simic.ppo import PPOAgent as PPOAgent
    from esper.simic.vectorized import train_ppo_vectorized as train_ppo_vectorized

_HOMES = {
    "NetworkConfig": "config",
    "PPOConfig": "config",
    "RuntimeConfig": "config",
    "PPOAgent": "ppo",
    "CoefficientConfig": "schedules",
    "Schedule": "schedules",
    "ScheduleConfig": "schedules",
    "make_schedule": "schedules",
    "train_ppo_vectorized": "vectorized",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

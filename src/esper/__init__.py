"""Esper trains policies with PPO under learning-rate schedules.

Its public names load on first use, so that `import esper` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from esper.analysis.runs import load_updates as load_updates
    from esper.envs.make import make_env as make_env
    from esper.policies.policy import load_policy as load_policy
    from esper.runs.callbacks import Callback as Callback
    from esper.runs.train import resume as resume
    from esper.runs.train import train as train
    from esper.schedules import ScheduleConfig as ScheduleConfig
    from esper.schedules import make_schedule as make_schedule
    from esper.simic.config import PPOConfig as PPOConfig
    from esper.simic.ppo import PPOAgent as PPOAgent
    from esper.simic.vectorized import Training as Training
    from esper.simic.vectorized import train_ppo_vectorized as train_ppo_vectorized
    from esper.telemetry.events import UpdateCompleted as UpdateCompleted

__version__ = "0.1.0"

_HOMES = {
    "Callback": "runs.callbacks",
    "PPOAgent": "simic.ppo",
    "PPOConfig": "simic.config",
    "ScheduleConfig": "schedules",
    "Training": "simic.vectorized",
    "UpdateCompleted": "telemetry.events",
    "load_policy": "policies.policy",
    "load_updates": "analysis.runs",
    "make_env": "envs.make",
    "make_schedule": "schedules",
    "resume": "runs.train",
    "train": "runs.train",
    "train_ppo_vectorized": "simic.vectorized",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)

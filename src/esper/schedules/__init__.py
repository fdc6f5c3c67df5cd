"""Values over the updates of a run, free of torch and of PPO: declarations, shapes, resolved schedules."""

from esper.schedules.config import DECAYS, CoefficientConfig, ScheduleConfig
from esper.schedules.schedule import (
    SWITCH,
    BeyondEnd,
    Phase,
    Schedule,
    as_progress_callable,
    make_schedule,
    schedules_enabled,
)

__all__ = [
    "DECAYS",
    "SWITCH",
    "BeyondEnd",
    "CoefficientConfig",
    "Phase",
    "Schedule",
    "ScheduleConfig",
    "as_progress_callable",
    "make_schedule",
    "schedules_enabled",
]

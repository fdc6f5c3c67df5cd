"""Values over the updates of a run, free of torch and of PPO: declarations, shapes, functions, resolved schedules."""

from esper.schedules.combine import clamp, join, scale
from esper.schedules.config import CoefficientConfig, LimitConfig, ScheduleConfig
from esper.schedules.feedback import FeedbackConfig
from esper.schedules.function import Function
from esper.schedules.schedule import (
    SWITCH,
    BeyondEnd,
    Schedule,
    as_progress_callable,
    make_schedule,
    schedules_enabled,
)
from esper.schedules.shape import Phase, Shape
from esper.schedules.shapes import SHAPES

__all__ = [
    "SHAPES",
    "SWITCH",
    "BeyondEnd",
    "CoefficientConfig",
    "FeedbackConfig",
    "Function",
    "LimitConfig",
    "Phase",
    "Schedule",
    "ScheduleConfig",
    "Shape",
    "as_progress_callable",
    "clamp",
    "join",
    "make_schedule",
    "scale",
    "schedules_enabled",
]

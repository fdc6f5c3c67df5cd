"""`esper.schedules` by the name it had first, which programs may use."""

from esper.schedules import *  # noqa: F403

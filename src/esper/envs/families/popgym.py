"""POPGym's environments (Morad et al. 2023), which are partially observable and need a recurrent policy."""

from __future__ import annotations

from esper.envs.family import Family


class Popgym(Family):
    """POPGym's environments, unchanged."""

    prefixes = ("popgym-",)
    module = "popgym"
    extra = "popgym"


FAMILY = Popgym()

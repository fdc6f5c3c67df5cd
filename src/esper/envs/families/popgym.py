"""POPGym's environments (Morad et al. 2023), in which what was seen must be remembered."""

from __future__ import annotations

from esper.envs.family import Family


class Popgym(Family):
    """POPGym's environments as they are."""

    prefixes = ("popgym-",)
    module = "popgym"
    extra = "popgym"


FAMILY = Popgym()

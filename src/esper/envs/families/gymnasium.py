"""What Gymnasium knows by itself, or by the module of `module:ID`."""

from __future__ import annotations

from esper.envs.family import Family


class Gymnasium(Family):
    """Every id that no other family has."""

    prefixes = ("",)


FAMILY = Gymnasium()

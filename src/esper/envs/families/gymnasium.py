"""Environments that Gymnasium registers itself, or the module of `module:ID` does."""

from __future__ import annotations

from esper.envs.family import Family


class Gymnasium(Family):
    """Every id that no other family has."""

    prefixes = ("",)


FAMILY = Gymnasium()

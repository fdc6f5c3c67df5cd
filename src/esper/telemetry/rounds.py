"""The events of controllers that do not learn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


class Flat:
    """An event whose mappings become one name each in a record, as `lr/policy`."""


@dataclass(frozen=True, kw_only=True)
class RoundCompleted(Flat):
    """As many steps of a controller that does not learn as a rollout has, in place of an update: its episodes.

    `user` has means over these episodes, by name.
    """

    update: int
    env_steps: int
    episodes: int
    episode_return_mean: float | None
    episode_return_std: float | None
    episode_return_min: float | None
    episode_return_max: float | None
    episode_length_mean: float | None
    steps_per_second: float
    user: Mapping[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class GrowthEpisode:
    """An episode of `esper/Growth-v0`, an item for each epoch; `accuracy` has that of the untrained host before them.

    By slot: `stage`, `blueprint` (empty: none), `alpha`, and `contribution`, null while the seed is not live.
    `action` is what was done, and `reason` why, where the controller has reasons. Accuracies are in percent.
    """

    update: int
    env_steps: int
    environment: int
    episode_return: float
    final_accuracy: float
    host_parameters: int
    seed_parameters: int
    fossils: int
    diverged: bool
    accuracy: Sequence[float | None]
    reward: Sequence[float | None]
    action: Sequence[str]
    reason: Sequence[str]
    stage: Mapping[str, Sequence[str]]
    blueprint: Mapping[str, Sequence[str]]
    alpha: Mapping[str, Sequence[float]]
    contribution: Mapping[str, Sequence[float | None]]

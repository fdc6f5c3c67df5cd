"""Episodes of `esper/Growth-v0` as events."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import Action, Operation, Slot, Stage
from esper.envs.growth.vector import Epoch
from esper.telemetry.episodes import episode_fields
from esper.telemetry.rounds import GrowthEpisode, RoundCompleted


class Done(NamedTuple):
    """An epoch, and why the controller did what it did in it."""

    epoch: Epoch
    reason: str


def growth_episode(done: Sequence[Done], config: GrowthConfig, **place: int) -> GrowthEpisode:
    """The episode of these epochs; `place` are its update, env_steps and environment."""
    epochs = [each.epoch for each in done]
    hosts = [epoch.after for epoch in epochs]
    last = hosts[-1]

    def by_slot(of: Callable[[Slot], Any]) -> dict[str, list[Any]]:
        return {name: [of(host.slots[index]) for host in hosts] for index, name in enumerate(config.slots)}

    return GrowthEpisode(
        **place,
        episode_return=math.fsum(epoch.reward.total for epoch in epochs),
        final_accuracy=last.val_accuracy,
        host_parameters=last.parameters,
        seed_parameters=last.seed_parameters,
        fossils=sum(slot.stage is Stage.FOSSILIZED for slot in last.slots),
        diverged=last.diverged,
        accuracy=[_finite(host.val_accuracy) for host in (epochs[0].before, *hosts)],
        reward=[_finite(epoch.reward.total) for epoch in epochs],
        action=[in_words(epoch.done, config) for epoch in epochs],
        reason=[each.reason for each in done],
        stage=by_slot(lambda slot: slot.stage.name.lower()),
        blueprint=by_slot(lambda slot: config.blueprints[slot.blueprint - 1] if slot.blueprint else ""),
        alpha=by_slot(lambda slot: slot.alpha),
        contribution=by_slot(lambda slot: None if slot.contribution is None else _finite(slot.contribution)),
    )


def in_words(action: Action, config: GrowthConfig) -> str:
    """`germinate norm in early, linear`, `cull early`, `wait`."""
    slot = config.slots[action.slot]
    match action.operation:
        case Operation.WAIT:
            return "wait"
        case Operation.GERMINATE:
            return f"germinate {config.blueprints[action.blueprint - 1]} in {slot}, {action.blend.name.lower()}"
    return f"{action.operation.name.lower()} {slot}"


def round_completed(episodes: Sequence[GrowthEpisode], *, steps_per_second: float, **place: int) -> RoundCompleted:
    """A round in which these `episodes` ended; `place` is its update and env_steps."""
    names = ("final_accuracy", "seed_parameters", "fossils")
    return RoundCompleted(
        **place,
        **episode_fields([each.episode_return for each in episodes], [len(each.reward) for each in episodes]),
        steps_per_second=steps_per_second,
        user={name: fmean(getattr(each, name) for each in episodes) for name in names} if episodes else None,
    )


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None

"""Controllers of `esper/Growth-v0` that do not learn: rules, random actions, waiting. Pure functions of the hosts.

Nothing here knows of PPO, so that no setting of it can change what the rules decide.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import ClassVar, Literal, Protocol, TypeAlias

import numpy as np

from esper.envs.base import BoolArray
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import CAN_BE_CULLED, Action, Blend, Host, Operation, Slot, Stage, can
from esper.settings.options import Bounds, check_options, option

ControllerName: TypeAlias = Literal["heuristic", "random", "wait"]

_COUNT = Bounds(minimum=1)
_POINTS = Bounds(minimum=0, maximum=100)


@dataclass(frozen=True, kw_only=True)
class HeuristicConfig:
    """The thresholds of the rules."""

    group: ClassVar[str] = "heuristic"

    stable_epochs: int = option(3, "epochs with little gain after which a host is stable", bounds=_COUNT)
    stable_gain: float = option(
        3.0, "little gain: the lowest validation loss falls by less, in percent", bounds=_POINTS
    )
    plateau_epochs: int = option(3, "latest epochs without progress that are a plateau", bounds=_COUNT)
    plateau_gain: float = option(0.5, "no progress: the highest accuracy rises by fewer points", bounds=_POINTS)
    cull_drop: float = option(2.0, "cull a seed that costs more points than this", bounds=_POINTS)

    def __post_init__(self) -> None:
        check_options(self)


@dataclass(frozen=True, kw_only=True)
class Memory:
    """What the rules remember of an episode: the blueprint whose turn it is, and the failures of each, from 0."""

    turn: int = 0
    failures: tuple[int, ...]

    @classmethod
    def of(cls, config: GrowthConfig) -> Memory:
        return cls(failures=(0,) * len(config.blueprints))

    @property
    def next(self) -> int:
        """The blueprint with the fewest failures; of several the one whose turn comes first."""
        count = len(self.failures)
        return min(((self.turn + step) % count for step in range(count)), key=lambda each: self.failures[each])


@dataclass(frozen=True, kw_only=True)
class Decision:
    """An action, and why."""

    action: Action
    reason: str


def decide(host: Host, memory: Memory, config: GrowthConfig, rules: HeuristicConfig) -> tuple[Decision, Memory]:
    """What the rules do with `host`, and what they remember from then on. The first rule that holds decides:

    1. Cull a seed that costs over `cull_drop` points, since its stage began or by its contribution.
    2. Fossilize a holding seed with a positive contribution, if the gate lets it.
    3. Wait while a seed grows, or where no slot is free.
    4. Germinate in the first free slot, once the host has been stable and is on a plateau.
    """
    for number, slot in enumerate(host.slots):
        if _cost(slot) > rules.cull_drop and can(Operation.CULL, slot, config):
            failures = tuple(count + (index == slot.blueprint - 1) for index, count in enumerate(memory.failures))
            reason = f"it costs {_cost(slot):.3g} points"
            return _on(Operation.CULL, number, reason), dataclasses.replace(memory, failures=failures)
    for number, slot in enumerate(host.slots):
        contribution = slot.contribution or 0.0
        if contribution > 0 and can(Operation.FOSSILIZE, slot, config):
            return _on(Operation.FOSSILIZE, number, f"it contributes {contribution:.3g} points"), memory
    if (obstacle := _why_not_plant(host, rules)) is not None:
        return Decision(action=Action(), reason=obstacle), memory
    free = next(number for number, slot in enumerate(host.slots) if slot.stage is Stage.DORMANT)
    blueprint = memory.next
    action = Action(operation=Operation.GERMINATE, slot=free, blueprint=blueprint + 1, blend=Blend.LINEAR)
    return Decision(action=action, reason="the host is on a plateau"), dataclasses.replace(memory, turn=blueprint + 1)


def _on(operation: Operation, slot: int, reason: str) -> Decision:
    return Decision(action=Action(operation=operation, slot=slot), reason=reason)


def _cost(slot: Slot) -> float:
    """The points that the seed in `slot` costs."""
    if slot.stage not in CAN_BE_CULLED:
        return 0.0
    return -min(slot.improvement, math.inf if slot.contribution is None else slot.contribution)


def _why_not_plant(host: Host, rules: HeuristicConfig) -> str | None:
    if any(slot.stage in CAN_BE_CULLED for slot in host.slots):
        return "a seed grows"
    if all(slot.stage is not Stage.DORMANT for slot in host.slots):
        return "no slot is free"
    if not has_been_stable(host.val_losses, rules):
        return "the host is not stable"
    return None if is_on_plateau(host.val_accuracies, rules) else "the host makes progress"


def has_been_stable(losses: Sequence[float], rules: HeuristicConfig) -> bool:
    """Whether `stable_epochs` in a row each lowered the lowest of `losses` by less than `stable_gain` percent."""
    in_a_row, lowest = 0, losses[0]
    for loss in losses[1:]:
        in_a_row = in_a_row + 1 if lowest - loss < rules.stable_gain / 100 * lowest else 0
        if in_a_row == rules.stable_epochs:
            return True
        lowest = min(lowest, loss)
    return False


def is_on_plateau(accuracies: Sequence[float], rules: HeuristicConfig) -> bool:
    """Whether each of the latest `plateau_epochs` raised the highest of `accuracies` by less than `plateau_gain`."""
    highest = [*accumulate(accuracies, max)]
    gains = [after - before for before, after in pairwise(highest[-rules.plateau_epochs - 1 :])]
    return len(gains) == rules.plateau_epochs and all(gain < rules.plateau_gain for gain in gains)


class Controller(Protocol):
    """What acts on hosts in place of a policy."""

    def decide(self, hosts: Sequence[Host], masks: BoolArray) -> list[Decision]:
        """A decision for each of the hosts; `masks` [N, M] are the environment's."""
        ...


class Heuristic:
    """`decide` for hosts in episodes of their own; a host before its first epoch begins one."""

    def __init__(self, config: GrowthConfig, rules: HeuristicConfig, num_envs: int) -> None:
        self._config, self._rules = config, rules
        self._memories = [Memory.of(config)] * num_envs

    def decide(self, hosts: Sequence[Host], masks: BoolArray) -> list[Decision]:
        decisions = []
        for index, host in enumerate(hosts):
            memory = self._memories[index] if host.epoch else Memory.of(self._config)
            decision, self._memories[index] = decide(host, memory, self._config, self._rules)
            decisions.append(decision)
        return decisions


class Random:
    """Each part of an action is one of those that are allowed, with equal chances."""

    def __init__(self, config: GrowthConfig, generator: np.random.Generator) -> None:
        self._ends = np.cumsum([len(names) for names in config.choices])
        self._generator = generator

    def decide(self, hosts: Sequence[Host], masks: BoolArray) -> list[Decision]:
        return [Decision(action=self._draw(mask), reason="at random") for mask in masks]

    def _draw(self, mask: BoolArray) -> Action:
        parts = np.split(mask, self._ends[:-1])
        slot, blueprint, blend, operation = (int(self._generator.choice(np.flatnonzero(part))) for part in parts)
        return Action.of((slot, blueprint, blend, operation))


class Wait:
    """The host alone."""

    def decide(self, hosts: Sequence[Host], masks: BoolArray) -> list[Decision]:
        return [Decision(action=Action(), reason="always")] * len(hosts)


def make_controller(
    name: ControllerName,
    config: GrowthConfig,
    rules: HeuristicConfig,
    *,
    num_envs: int,
    generator: np.random.Generator,
) -> Controller:
    """The controller called `name`, for `num_envs` environments; the random one draws from `generator`."""
    match name:
        case "heuristic":
            return Heuristic(config, rules, num_envs)
        case "random":
            return Random(config, generator)
        case "wait":
            return Wait()

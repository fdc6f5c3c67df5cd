"""Which values of an action do something in a host."""

from __future__ import annotations

import numpy as np

from esper.envs.base import BoolArray
from esper.envs.growth.config import GrowthConfig
from esper.envs.growth.stages import Action, Host, Operation, can


def action_mask(host: Host, config: GrowthConfig) -> BoolArray:
    """[M], true for the allowed values of slot, blueprint, blend and operation, one after the other.

    A slot is allowed if some operation other than WAIT can be done in it, all of them if none is. An operation is
    allowed if it can be done in some slot. While none can be planted, the blueprint is none and the blend the first;
    else the blueprint is not none. An action that is allowed value by value and cannot be done in its slot is WAIT.
    """
    able = np.array([[can(operation, slot, config) for operation in Operation] for slot in host.slots])
    slots, operations = np.logical_or.reduce(able[:, 1:], axis=1), np.logical_or.reduce(able, axis=0)
    plantable = bool(operations[Operation.GERMINATE])
    _, blueprints, blends, _ = map(len, config.choices)
    blueprint, blend = np.full(blueprints, plantable), np.full(blends, plantable)
    blueprint[0], blend[0] = not plantable, True
    return np.concatenate([slots | ~slots.any(), blueprint, blend, operations])


def effective(action: Action, host: Host, config: GrowthConfig) -> Action:
    """What `action` does in `host`: itself, or waiting where it cannot be done in its slot."""
    planting = action.operation is Operation.GERMINATE
    if can(action.operation, host.slots[action.slot], config) and (action.blueprint or not planting):
        return action
    return Action()

"""Checks what `Policy.predict` gets beside the observation.

`count` is the size of a batch, None for one observation.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from esper.envs.actions import check_mask
from esper.envs.base import Actions, BoolArray, ContinuousActions
from esper.envs.rules import as_numbers, shown
from esper.policies.player import first_state
from esper.settings.options import ConfigError
from esper.simic.nets.actor_critic import ActorCritic


def read_masks(mask: Any, actions: Actions, count: int | None, *, needed: bool) -> BoolArray | None:
    """The mask of one observation, or the masks of a batch, as [N, M]; None if there is none and none is `needed`.

    Raises:
        ConfigError: named "mask".
    """
    shape = _shape(actions.outputs, count)
    if mask is None:
        if needed:
            allowed = f"must be {shape}, true for the actions that are allowed: the policy was trained with masks"
            raise ConfigError("mask", None, allowed)
        return None
    if isinstance(actions, ContinuousActions):
        raise ConfigError("mask", shown(mask), "must be None: the actions are continuous")
    array = as_numbers(mask)
    if array is None or array.ndim != (1 if count is None else 2) or (count is not None and len(array) != count):
        raise ConfigError("mask", shown(mask), f"must be {shape}")
    rows = array[None] if count is None else array
    found = np.ones((len(rows), actions.outputs), dtype=np.bool_)
    for index, row in enumerate(rows):
        try:
            found[index] = check_mask(row, actions)
        except ValueError as error:
            where = "" if count is None else f"row {index} "
            raise ConfigError("mask", shown(mask), f"must be {shape}; {where}{error}") from None
    return found


def read_state(state: Any, episode_start: Any, network: ActorCritic, count: int | None) -> torch.Tensor | None:
    """The recurrent state [N, S] to act with, a new tensor; None if `network` has no recurrent layers.

    Raises:
        ConfigError: named "state" or "episode_start".
    """
    begins = _begins(episode_start, count)
    first = first_state(network, 1 if count is None else count)
    if first is None:
        if state is not None:
            raise ConfigError("state", shown(state), "must be None: the policy has no recurrent layers")
        return None
    if state is None:
        return first
    array, shape = as_numbers(state), tuple(first.shape if count is not None else first.shape[1:])
    if array is None or array.shape != shape:
        allowed = f"must be {_shape(network.state_size, count)}, as predict returned it, or None where episodes begin"
        raise ConfigError("state", shown(state), allowed)
    first.copy_(torch.from_numpy(np.array(array, dtype=np.float32)))
    return first if begins is None else first.masked_fill_(begins.to(first.device)[:, None], 0.0)


def _begins(episode_start: Any, count: int | None) -> torch.Tensor | None:
    """[N], whether an episode begins; None if none does."""
    if episode_start is None:
        return None
    array = as_numbers(episode_start)
    # One observation may also have [1], as Stable-Baselines3 has it.
    right = array is not None and (array.size == 1 if count is None else array.shape == (count,))
    if array is None or not right or not ((array == 0) | (array == 1)).all():
        allowed = f"must be {'true or false' if count is None else f'[{count}] of true and false'}"
        raise ConfigError("episode_start", shown(episode_start), allowed)
    return torch.from_numpy(array.reshape(-1).astype(np.bool_))


def _shape(size: int, count: int | None) -> str:
    return f"[{size}]" if count is None else f"[{count}, {size}]"

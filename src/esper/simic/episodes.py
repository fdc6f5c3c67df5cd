"""Finished episodes, which may span several rollouts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from esper.envs.base import BoolArray, StateTree
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm, array


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A finished episode, with the environment's rewards, neither scaled nor clipped."""

    episode_return: float
    length: int
    truncated: bool


class EpisodeLog:
    """Finds the episodes that ended in each rollout; stores the returns and lengths so far of the others."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    def finished(self, rollout: Rollout) -> list[Episode]:
        """The episodes that ended in `rollout`, environment by environment. Waits for the rollout's device."""
        ended = (rollout.terminated | rollout.truncated).cpu().numpy()
        rewards = np.where(rollout.ignored, 0.0, rollout.rewards.cpu().numpy())
        returns, self._returns = _sums(self._returns, rewards, ended)
        lengths, self._lengths = _sums(self._lengths, ~rollout.ignored, ended)
        truncated = ~rollout.terminated.cpu().numpy().T[ended.T]
        episodes = zip(returns.tolist(), lengths.tolist(), truncated.tolist(), strict=True)
        return [Episode(episode_return=total, length=length, truncated=cut) for total, length, cut in episodes]

    def state_dict(self) -> StateTree:
        """The returns and lengths so far of unfinished episodes."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def state_form(self) -> StateForm:
        """The form of `state_dict`."""
        num_envs = len(self._returns)
        return {"returns": array(num_envs, dtype=torch.float64), "lengths": array(num_envs, dtype=torch.int64)}

    def load_state_dict(self, state: StateTree) -> None:
        self._returns, self._lengths = (np.array(state[name]) for name in ("returns", "lengths"))


def _sums(so_far: NDArray[Any], values: NDArray[Any], ended: BoolArray) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of `values` [T, N] over each finished episode, and over each environment's current one [N], from `so_far`.

    Each episode is a segment of a row per environment: `so_far`, the values, and a 0 for an episode that begins after
    the last step.
    """
    num_steps, num_envs = values.shape
    table, begins = (np.zeros((num_envs, num_steps + 2), dtype=dtype) for dtype in (so_far.dtype, np.bool_))
    table[:, 0], table[:, 1:-1] = so_far, values.T
    begins[:, 0], begins[:, 2:] = True, ended.T
    sums = np.add.reduceat(table.ravel(), np.flatnonzero(begins))
    running = begins.sum(axis=1).cumsum() - 1
    return np.delete(sums, running), sums[running]

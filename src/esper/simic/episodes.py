"""Finished episodes, which may span several rollouts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from esper.envs.base import BoolArray, StateTree
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm, array


class Episodes(NamedTuple):
    """Finished episodes: their returns, of the environment's rewards, neither scaled nor clipped, their lengths, and
    whether they were truncated. Lists: thousands may end in a rollout.
    """

    returns: list[float]
    lengths: list[int]
    truncated: list[bool]


class Outcomes:
    """Rewards and ends of `rollout`, on their way to the host since this was made.

    What its device is asked for afterwards goes on meanwhile, and must not change the rollout.
    """

    def __init__(self, rollout: Rollout) -> None:
        self._fields = [rollout.rewards, rollout.terminated, rollout.truncated]
        self.ignored = rollout.ignored
        self._copied: torch.cuda.Event | None = None
        if rollout.rewards.is_cuda:
            # For pageable memory the host would wait.
            here = [torch.empty_like(field, device="cpu", pin_memory=True) for field in self._fields]
            self._fields = [
                copy.copy_(field, non_blocking=True) for copy, field in zip(here, self._fields, strict=True)
            ]
            self._copied = torch.cuda.current_stream(rollout.rewards.device).record_event()

    def arrived(self) -> list[NDArray[Any]]:
        """Rewards, `terminated` and `truncated`, each [T, N]."""
        if self._copied is not None:
            self._copied.synchronize()
        return [field.numpy() for field in self._fields]


class EpisodeLog:
    """Finds the episodes that ended in each rollout; stores the returns and lengths so far of the others."""

    def __init__(self, num_envs: int) -> None:
        self._returns = np.zeros(num_envs)
        self._lengths = np.zeros(num_envs, dtype=np.int64)

    def finished(self, outcomes: Outcomes) -> Episodes:
        """The episodes that ended in the rollout of `outcomes`, environment by environment."""
        rewards, terminated, truncated = (field.T for field in outcomes.arrived())
        ended, counts = terminated | truncated, ~outcomes.ignored.T
        segments = _segments(ended)
        returns, self._returns = _sums(segments, self._returns, np.where(counts, rewards, 0.0))
        lengths, self._lengths = _sums(segments, self._lengths, counts)
        return Episodes(returns.tolist(), lengths.tolist(), (~terminated[ended]).tolist())

    def state_dict(self) -> StateTree:
        """The returns and lengths so far of unfinished episodes."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def state_form(self) -> StateForm:
        """The form of `state_dict`."""
        num_envs = len(self._returns)
        return {"returns": array(num_envs, dtype=torch.float64), "lengths": array(num_envs, dtype=torch.int64)}

    def load_state_dict(self, state: StateTree) -> None:
        self._returns, self._lengths = (np.array(state[name]) for name in ("returns", "lengths"))


class _Segments(NamedTuple):
    """Where episodes begin in a flat table with a row for each environment, and which of them are its current ones."""

    begins: NDArray[np.intp]
    running: NDArray[np.intp]


def _segments(ended: BoolArray) -> _Segments:
    """The segments of episodes that `ended` [N, T]. A row of the table is T + 2 long, as in `_sums`."""
    num_envs, num_steps = ended.shape
    begins = np.zeros((num_envs, num_steps + 2), dtype=np.bool_)
    begins[:, 0], begins[:, 2:] = True, ended
    return _Segments(np.flatnonzero(begins), np.count_nonzero(begins, axis=1).cumsum() - 1)


def _sums(segments: _Segments, so_far: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Sums of `values` [N, T] over each finished episode, and over each environment's current one [N], from `so_far`.

    A row of the table that is summed is `so_far`, the values, and a 0 for an episode that begins after the last step.
    """
    num_envs, num_steps = values.shape
    table = np.zeros((num_envs, num_steps + 2), dtype=so_far.dtype)
    table[:, 0], table[:, 1:-1] = so_far, values
    sums = np.add.reduceat(table.ravel(), segments.begins)
    return np.delete(sums, segments.running), sums[segments.running]

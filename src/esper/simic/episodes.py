"""Finished episodes, which may span several rollouts."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from esper.envs.base import StateTree
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
        ended = terminated | truncated
        num_envs, num_steps = ended.shape
        # A row for each environment, of what it has so far, the steps, and a 0 for an episode that begins after them.
        table = np.zeros((2, num_envs, num_steps + 2))
        returns, lengths = table
        returns[:, 0], returns[:, 1:-1] = self._returns, rewards
        lengths[:, 0], lengths[:, 1:-1] = self._lengths, 1
        if outcomes.ignored.any():
            table[:, :, 1:-1][:, outcomes.ignored.T] = 0
        begins = np.zeros((num_envs, num_steps + 2), dtype=np.bool_)
        begins[:, 0], begins[:, 2:] = True, ended
        sums = np.add.reduceat(table.reshape(2, -1), np.flatnonzero(begins), axis=1)
        # The last episode of each row goes on.
        finished = np.ones(sums.shape[1], dtype=np.bool_)
        finished[begins.sum(axis=1).cumsum() - 1] = False
        self._returns, self._lengths = sums[0, ~finished], sums[1, ~finished].astype(np.int64)
        returns, lengths = sums[:, finished]
        return Episodes(returns.tolist(), lengths.astype(np.int64).tolist(), (~terminated[ended]).tolist())

    def state_dict(self) -> StateTree:
        """The returns and lengths so far of unfinished episodes."""
        return {"returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def state_form(self) -> StateForm:
        """The form of `state_dict`."""
        num_envs = len(self._returns)
        return {"returns": array(num_envs, dtype=torch.float64), "lengths": array(num_envs, dtype=torch.int64)}

    def load_state_dict(self, state: StateTree) -> None:
        self._returns, self._lengths = (np.array(state[name]) for name in ("returns", "lengths"))

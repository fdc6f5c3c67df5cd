"""Filling a rollout: the policy acts, the environments answer."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from esper.envs.base import StateTree, Step, VectorEnv
from esper.simic.networks import ActorCritic
from esper.simic.rollout import FinalObservations, Rollout


@dataclass(frozen=True, kw_only=True)
class Episode:
    """A finished episode as the environment gave it: rewards neither scaled nor clipped."""

    episode_return: float
    length: int


class Collector:
    """Steps `env` with a policy, rollout after rollout; remembers where each environment stands in its episode."""

    def __init__(self, env: VectorEnv, seed: int) -> None:
        self._env = env
        self._obs = env.reset(seed)
        self._returns = np.zeros(env.spec.num_envs)
        self._lengths = np.zeros(env.spec.num_envs, dtype=np.int64)
        self.step = 0  # of the rollout that is being, or was last, collected

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> list[Episode]:
        """Fill `rollout`; returns the episodes that ended in it."""
        num_steps, num_envs = rollout.rewards.shape
        noise = network.noise((num_steps, num_envs), generator)
        rollout.final_obs.clear()
        episodes: list[Episode] = []
        for step in range(num_steps):
            self.step = step
            obs = rollout.obs[step]
            obs.copy_(torch.from_numpy(self._obs))
            actions = rollout.actions[step]
            actions.copy_(network.act(obs, noise[step]))
            outcome = self._env.step(actions.cpu().numpy())
            self._record(rollout, step, outcome)
            episodes += self._finished(outcome)
            self._obs = outcome.obs
        rollout.obs[num_steps].copy_(torch.from_numpy(self._obs))
        return episodes

    def state_dict(self) -> StateTree:
        """What to act on next, and the episodes in flight."""
        return {"obs": self._obs.copy(), "returns": self._returns.copy(), "lengths": self._lengths.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        self._obs, self._returns, self._lengths = (np.array(state[name]) for name in ("obs", "returns", "lengths"))

    def _record(self, rollout: Rollout, step: int, outcome: Step) -> None:
        rollout.rewards[step] = outcome.reward
        rollout.terminated[step] = outcome.terminated
        rollout.truncated[step] = outcome.truncated
        rollout.ignored[step] = False if outcome.ignored is None else outcome.ignored
        if outcome.final_obs is not None:
            envs = np.flatnonzero(outcome.truncated & ~outcome.terminated)
            if envs.size:
                rollout.final_obs.append(FinalObservations(step, envs, outcome.final_obs[envs]))

    def _finished(self, outcome: Step) -> list[Episode]:
        self._returns += outcome.reward
        self._lengths += 1 if outcome.ignored is None else ~outcome.ignored
        if outcome.final_obs is None:
            return []
        ended = np.flatnonzero(outcome.terminated | outcome.truncated)
        episodes = [Episode(episode_return=float(self._returns[env]), length=int(self._lengths[env])) for env in ended]
        self._returns[ended] = 0.0
        self._lengths[ended] = 0
        return episodes

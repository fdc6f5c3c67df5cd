"""Filling a rollout without leaving the device: policy, environment and storage in one function of several steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from esper.envs.base import DeviceEnv, EnvStates, StateTree
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm

# On two cores compiling took 10 s and 1.5 s for each step more; 8 steps a call instead of 4 save 25 us a step of 8
# environments, which only millions of them would make good.
MAX_STEPS_PER_CALL = 4


class Fill(Protocol):
    """Acts and steps for a whole rollout, and returns where the environment's states stand after it."""

    def __call__(
        self, network: ActorCritic, states: EnvStates, noise: Tensor, uniform: Tensor, rollout: Rollout
    ) -> EnvStates:
        """Write all of `rollout` but `obs[T]`, beginning from `states`.

        Step t acts on raw observations with `noise[t]` [N, A], as `ActorCritic.act` does, and episodes that end in it
        begin anew from `uniform[t]` [N, S]. Nothing may make the host wait for the device.
        """
        ...


class DeviceCollector:
    """Steps `env` with a policy, rollout after rollout, on `device`, where `fill` does the steps."""

    step = 0  # No environment raises in the middle of a rollout.

    def __init__(self, env: DeviceEnv, seed: int, device: torch.device, fill: Fill) -> None:
        self._env = env
        self._fill = fill
        env.to(device)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Begin every episode anew."""
        self._env.reset(seed)

    @torch.no_grad()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`."""
        noise = network.noise(rollout.rewards.shape, generator)
        uniform = self._env.draw(len(noise))
        self._env.states = self._fill(network, self._env.states, noise, uniform, rollout)
        rollout.obs[-1] = self._env.observe(self._env.states)

    def state_dict(self) -> StateTree:
        """Nothing: all is in the environment's."""
        return {}

    def state_form(self) -> StateForm:
        return {}

    def load_state_dict(self, state: StateTree) -> None: ...


class Unrolled:
    """A `Fill` in torch for every `DeviceEnv`: a few steps per call, one graph when `compiled`."""

    def __init__(self, env: DeviceEnv, *, compiled: bool) -> None:
        self._steps = unrolled_steps(env)
        if compiled:
            self._steps = torch.compile(self._steps, fullgraph=True, dynamic=False, isolate_recompiles=True)  # type: ignore[call-overload]

    def __call__(
        self, network: ActorCritic, states: EnvStates, noise: Tensor, uniform: Tensor, rollout: Rollout
    ) -> EnvStates:
        size = steps_per_call(len(noise))
        pieces = (torch.split(tensor[: len(noise)], size) for tensor in (*rollout.tensors(), noise, uniform))
        for *targets, piece_noise, piece_uniform in zip(*pieces, strict=True):
            states, columns = self._steps(network, states, piece_noise, piece_uniform)
            for target, column in zip(targets, columns, strict=True):
                target.copy_(column)
        return states


Steps = Callable[[ActorCritic, EnvStates, Tensor, Tensor], tuple[EnvStates, tuple[Tensor, ...]]]


def unrolled_steps(env: DeviceEnv) -> Steps:
    """The function that is compiled: as many steps as it is given noise [K, N, A] and uniform numbers [K, N, S] for.

    Returns where the states stand then, and what happened as `Rollout.tensors` orders it, each [K, N, ...]. Pure.
    """

    def steps(
        network: ActorCritic, states: EnvStates, noise: Tensor, uniform: Tensor
    ) -> tuple[EnvStates, tuple[Tensor, ...]]:
        rows = []
        for step_noise, step_uniform in zip(noise, uniform, strict=True):
            obs = env.observe(states)
            actions = network.act(obs, step_noise)
            states, *outcome = env.advance(states, actions, step_uniform)
            rows.append((obs, actions, *outcome))
        return states, tuple(torch.stack(column) for column in zip(*rows, strict=True))

    return steps


def steps_per_call(num_steps: int) -> int:
    """The largest divisor of `num_steps` up to `MAX_STEPS_PER_CALL`, so that every call is of the same size."""
    return max(size for size in range(1, MAX_STEPS_PER_CALL + 1) if num_steps % size == 0)

"""Collects rollouts without leaving the device: one function of several steps of policy and environment."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import DeviceEnv, EnvStates, StateTree
from esper.simic.compiling import as_one_graph, largest_part
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm, array
from esper.system.torch_defaults import torch_defaults

# On two cores compiling took 10 s, and 1.5 s for each further step; 8 steps a call instead of 4 save 25 us a step of 8
# environments, which pays off only after millions of steps.
MAX_STEPS_PER_CALL = 4


class Fill(Protocol):
    """Collects a whole rollout, and returns the environments' states after it."""

    def __call__(
        self,
        network: ActorCritic,
        states: EnvStates,
        noise: Tensor,
        uniform: Tensor,
        rollout: Rollout,
        recurrent_state: Tensor | None = None,
    ) -> EnvStates:
        """Write all of `rollout` but `obs[T]`, `begins[0]` and `recurrent_state`, beginning from `states`.

        Step t acts on raw observations with `noise[t]` [N, A], as `ActorCritic.act` does, and draws from `uniform[t]`
        [N, draws], as do the episodes that begin after it. The host must not wait for the device. `recurrent_state`
        [N, S], if the policy has one, is updated in place, and reset where episodes begin or it is not finite.
        """
        ...


class DeviceCollector:
    """Collects rollouts from `env` on `device`; `fill` does the steps.

    `recurrent_state` [N, S] is the policy's; None for a policy without one.
    """

    step = 0  # no environment raises within a rollout

    def __init__(
        self,
        env: DeviceEnv,
        seed: int,
        device: torch.device,
        fill: Fill,
        *,
        recurrent_state: Tensor | None = None,
    ) -> None:
        self._env, self._fill, self._recurrent_state = env, fill, recurrent_state
        env.to(device)
        self.reset(seed)

    def reset(self, seed: int) -> None:
        """Reset every environment."""
        self._env.reset(seed)
        if self._recurrent_state is not None:
            self._recurrent_state.zero_()
        self._begins = np.ones(self._env.spec.num_envs, dtype=np.bool_)

    @torch.no_grad()
    @torch_defaults()
    def collect(self, network: ActorCritic, rollout: Rollout, generator: torch.Generator) -> None:
        """Fill `rollout`."""
        noise = network.noise(rollout.rewards.shape, generator)
        uniform = self._env.draw(len(noise))
        if rollout.recurrent_state is not None:
            assert self._recurrent_state is not None
            rollout.recurrent_state.copy_(self._recurrent_state)
            rollout.begins[0] = self._begins
        self._env.states = self._fill(network, self._env.states, noise, uniform, rollout, self._recurrent_state)
        rollout.obs[-1] = self._env.observe(self._env.states)
        self._begins = rollout.begins[-1].copy()

    def state_dict(self) -> StateTree:
        """Empty without a recurrent state: the environment has all other. With one as of `Collector`, which another
        engine has.
        """
        if self._recurrent_state is None:
            return {}
        obs = self._env.observe(self._env.states).numpy()
        return {"obs": obs, "memory": self._recurrent_state.clone(), "begins": self._begins.copy()}

    def state_form(self) -> StateForm:
        if self._recurrent_state is None:
            return {}
        obs = self._env.observe(self._env.states)
        return {
            "obs": array(*obs.shape, dtype=obs.dtype),
            "memory": array(*self._recurrent_state.shape),
            "begins": array(len(obs), dtype=torch.bool),
        }

    def load_state_dict(self, state: StateTree) -> None:
        if self._recurrent_state is not None:
            self._recurrent_state.copy_(torch.as_tensor(state["memory"], device="cpu"))
            self._begins = np.array(state["begins"])


class Unrolled:
    """A `Fill` in torch for any `DeviceEnv`: a few steps per call, one graph if `compiled`."""

    def __init__(self, env: DeviceEnv, *, compiled: bool) -> None:
        steps = unrolled_steps(env)
        self._steps = as_one_graph(steps) if compiled else steps

    def __call__(
        self,
        network: ActorCritic,
        states: EnvStates,
        noise: Tensor,
        uniform: Tensor,
        rollout: Rollout,
        recurrent_state: Tensor | None = None,
    ) -> EnvStates:
        assert recurrent_state is None
        size = largest_part(len(noise), MAX_STEPS_PER_CALL)
        pieces = (torch.split(tensor[: len(noise)], size) for tensor in (*rollout.tensors(), noise, uniform))
        for *targets, piece_noise, piece_uniform in zip(*pieces, strict=True):
            states, columns = self._steps(network, states, piece_noise, piece_uniform)
            for target, column in zip(targets, columns, strict=True):
                target.copy_(column)
        return states


Steps = Callable[[ActorCritic, EnvStates, Tensor, Tensor], tuple[EnvStates, tuple[Tensor, ...]]]


def unrolled_steps(env: DeviceEnv) -> Steps:
    """The function that is compiled: K steps, from noise [K, N, A] and uniform numbers [K, N, draws].

    Returns the next states, and the transitions in the order of `Rollout.tensors`, each [K, N, ...]. Pure.
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

"""N copies of a `Dynamics` in one tensor: time limits, and episodes that restart by themselves."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.base import ContinuousActions, EnvSpec, FloatArray, StateTree, Step
from esper.envs.config import EnvConfig
from esper.envs.device.dynamics import DYNAMICS, Dynamics
from esper.options import ConfigError, nearest

PREFIX = "torch/"


class Copies(NamedTuple):
    """Where all copies stand: states [N, S], and steps of their episodes so far [N], int32."""

    state: Tensor
    steps: Tensor


class DeviceStep(NamedTuple):
    """One step of all copies; `obs` and `final_obs` [N, D] as in `esper.envs.base.Step`, the rest [N]."""

    copies: Copies
    obs: Tensor
    reward: Tensor
    terminated: Tensor
    truncated: Tensor
    final_obs: Tensor


def begin(dynamics: Dynamics, uniform: Tensor) -> Copies:
    """New episodes everywhere, from `uniform` [N, S] in [0, 1)."""
    return Copies(dynamics.begin(uniform), torch.zeros(len(uniform), dtype=torch.int32, device=uniform.device))


def step(dynamics: Dynamics, copies: Copies, action: Tensor, uniform: Tensor) -> DeviceStep:
    """Step every copy; one whose episode ends begins the next one from its row of `uniform` [N, S] in [0, 1).

    Pure, without branches on values: it can be compiled, captured, and unrolled.
    """
    bound = dynamics.action_bound
    continuous = isinstance(dynamics.actions, ContinuousActions)
    outcome = dynamics.step(copies.state, action.clamp(-bound, bound) if continuous else action)
    steps = copies.steps + 1
    truncated = steps >= dynamics.max_episode_steps
    done = outcome.terminated | truncated
    state = torch.where(done[:, None], dynamics.begin(uniform), outcome.state)
    return DeviceStep(
        copies=Copies(state, torch.where(done, 0, steps)),
        obs=dynamics.observe(state).float(),
        reward=outcome.reward,
        terminated=outcome.terminated,
        truncated=truncated,
        final_obs=dynamics.observe(outcome.state).float(),
    )


class DeviceVectorEnv:
    """A `Dynamics` as a `VectorEnv` on the host, in float32."""

    def __init__(self, dynamics: Dynamics, num_envs: int) -> None:
        self._dynamics = dynamics
        self._generator = torch.Generator()
        self.spec = EnvSpec(num_envs=num_envs, observation_size=dynamics.observation_size, actions=dynamics.actions)
        self._copies = begin(dynamics, self._uniform())

    def reset(self, seed: int) -> FloatArray:
        self._generator.manual_seed(seed)
        self._copies = begin(self._dynamics, self._uniform())
        return self._dynamics.observe(self._copies.state).numpy()

    def step(self, actions: NDArray[np.generic]) -> Step:
        outcome = step(self._dynamics, self._copies, torch.from_numpy(actions), self._uniform())
        self._copies = outcome.copies
        obs, reward, terminated, truncated, final_obs = (field.numpy() for field in outcome[1:])
        ended = bool((terminated | truncated).any())
        return Step(obs, reward.astype(np.float64), terminated, truncated, final_obs if ended else None, None)

    def state_dict(self) -> StateTree:
        arrays = {name: field.numpy().copy() for name, field in self._copies._asdict().items()}
        return {**arrays, "generator": self._generator.get_state().numpy()}

    def load_state_dict(self, state: StateTree) -> None:
        now = self.state_dict()
        if set(state) != set(now):
            raise ValueError(f"{', '.join(map(str, state)):.200} are not {', '.join(now)}")
        for name, value in now.items():
            found = np.asarray(state[name])
            if found.shape != value.shape or found.dtype != value.dtype:
                raise ValueError(f"{name} is {found.dtype} {found.shape}, not {value.dtype} {value.shape}")
        self._copies = Copies(*(torch.from_numpy(np.array(state[name])) for name in Copies._fields))
        self._generator.set_state(torch.from_numpy(np.array(state["generator"])))

    def close(self) -> None: ...

    def _uniform(self) -> Tensor:
        return torch.rand((self.spec.num_envs, self._dynamics.state_size), generator=self._generator)


def make_device(config: EnvConfig, num_envs: int) -> DeviceVectorEnv:
    """The environment that `config.env`, a name that begins with `torch/`, asks for.

    Raises:
        ConfigError: for a name or settings that it does not have.
    """
    name = config.env.removeprefix(PREFIX)
    if name not in DYNAMICS:
        allowed = ", ".join(PREFIX + known for known in DYNAMICS)
        raise ConfigError("env", config.env, f"must be one of {allowed}{nearest(name, DYNAMICS)}")
    if config.vector != "auto":
        raise ConfigError("vector", config.vector, f"{config.env} steps all its copies in one tensor; use auto")
    if config.env_kwargs:
        raise ConfigError("env_kwargs", config.env_kwargs, f"{config.env} takes none")
    return DeviceVectorEnv(DYNAMICS[name](), num_envs)


def on_host(config: EnvConfig) -> EnvConfig:
    """Gymnasium's own version of the same environment, which can be drawn."""
    return dataclasses.replace(config, env=config.env.removeprefix(PREFIX))

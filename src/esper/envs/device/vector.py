"""N environments of a `Dynamics` in one tensor: time limits and automatic resets."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.base import (
    ContinuousActions,
    DeviceStep,
    EnvSpec,
    EnvStates,
    ObsArray,
    StateTree,
    Step,
    scaled_to,
)
from esper.envs.config import ScaleActions
from esper.envs.device.dynamics import Dynamics
from esper.envs.device.registry import DYNAMICS, PREFIX
from esper.envs.scaling import bounds_to_scale_to, cannot_scale, clipping_bounds
from esper.system.torch_defaults import torch_defaults


def begin(dynamics: Dynamics, uniform: Tensor) -> EnvStates:
    """Begin the first episode in every environment, from `uniform` [N, draws] in [0, 1)."""
    states = uniform.new_zeros(len(uniform), dynamics.state_size)
    state = dynamics.begin(states, uniform[:, dynamics.step_draws :])
    return EnvStates(state, torch.zeros(len(uniform), dtype=torch.int32, device=uniform.device))


def step(
    dynamics: Dynamics, states: EnvStates, action: Tensor, uniform: Tensor, *, max_episode_steps: int
) -> DeviceStep:
    """Step every environment, and begin the next episode where one ends, from `uniform` [N, draws] in [0, 1).

    Pure, without branches on values: it can be compiled, captured, and unrolled.
    """
    bound, split = dynamics.action_bound, dynamics.step_draws
    continuous = isinstance(dynamics.actions, ContinuousActions)
    outcome = dynamics.step(states.state, action.clamp(-bound, bound) if continuous else action, uniform[:, :split])
    steps = states.steps + 1
    truncated = steps >= max_episode_steps
    done = outcome.terminated | truncated
    state = torch.where(done[:, None], dynamics.begin(outcome.state, uniform[:, split:]), outcome.state)
    return DeviceStep(
        states=EnvStates(state, torch.where(done, 0, steps)),
        reward=outcome.reward,
        terminated=outcome.terminated,
        truncated=truncated,
        final_obs=observe(dynamics, outcome.state),
    )


def observe(dynamics: Dynamics, state: Tensor) -> Tensor:
    """float32 vectors [N, D], or uint8 images [N, C, H, W]."""
    obs = dynamics.observe(state)
    return obs.float() if obs.is_floating_point() else obs


class DeviceVectorEnv:
    """The `Dynamics` called `name`, in float32, as a `DeviceEnv`: in tensors, and as a `VectorEnv` on the host.

    `max_episode_steps` replaces its own time limit.
    """

    action_masks = None

    def __init__(
        self,
        name: str,
        num_envs: int,
        max_episode_steps: int | None = None,
        scale_actions: ScaleActions = "auto",
    ) -> None:
        self.name, self.dynamics = name, (dynamics := DYNAMICS[name]())
        self.max_episode_steps = max_episode_steps or dynamics.max_episode_steps
        actions, bound, clips_at = dynamics.actions, dynamics.action_bound, None
        if isinstance(actions, ContinuousActions):
            high = np.full(actions.size, bound)
            actions = dataclasses.replace(actions, scaled_to=bounds_to_scale_to(scale_actions, -high, high))
            clips_at = clipping_bounds(actions, -high, high)
        elif scale_actions == "on":
            raise cannot_scale(f"the choices of {PREFIX}{name}")
        self._factor = bound if scaled_to(actions) else None
        self.spec = EnvSpec(
            num_envs=num_envs,
            observations=dynamics.observations,
            actions=actions,
            max_episode_steps=self.max_episode_steps,
            action_bounds=clips_at,
        )
        self.to(torch.device("cpu"))

    @torch_defaults()
    def to(self, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self.states = begin(self.dynamics, self.draw(1)[0])

    def draw(self, num_steps: int) -> Tensor:
        shape = (num_steps, self.spec.num_envs, self.dynamics.step_draws + self.dynamics.begin_draws)
        return torch.rand(shape, dtype=torch.float32, generator=self._generator, device=self._generator.device)

    def observe(self, states: EnvStates) -> Tensor:
        return observe(self.dynamics, states.state)

    def advance(self, states: EnvStates, actions: Tensor, uniform: Tensor) -> DeviceStep:
        actions = actions if self._factor is None else actions * self._factor
        return step(self.dynamics, states, actions, uniform, max_episode_steps=self.max_episode_steps)

    @torch_defaults()
    def reset(self, seed: int) -> ObsArray:
        self._generator.manual_seed(seed)
        self.states = begin(self.dynamics, self.draw(1)[0])
        return self.observe(self.states).cpu().numpy()

    @torch_defaults()
    def step(self, actions: NDArray[np.generic]) -> Step:
        on_device = torch.from_numpy(actions).to(self._generator.device)
        self.states, *outcome = self.advance(self.states, on_device, self.draw(1)[0])
        reward, terminated, truncated, final_obs = (field.cpu().numpy() for field in outcome)
        ended = bool((terminated | truncated).any())
        obs = self.observe(self.states).cpu().numpy()
        return Step(obs, reward.astype(np.float64), terminated, truncated, final_obs if ended else None, None)

    def state_dict(self) -> StateTree:
        arrays = {name: field.cpu().numpy().copy() for name, field in self.states._asdict().items()}
        return {**arrays, "generator": self._generator.get_state().numpy(), "device": self._generator.device.type}

    @torch_defaults()
    def load_state_dict(self, state: StateTree) -> None:
        """Restore `state`.

        A generator's state is of no use on another kind of device; there a new stream is seeded from it.
        """
        now = self.state_dict()
        if set(state) != set(now):
            raise ValueError(f"{', '.join(map(str, state)):.200} are not {', '.join(now)}")
        same_device = state["device"] == now["device"]
        for name in (*EnvStates._fields, "generator") if same_device else EnvStates._fields:
            found, value = np.asarray(state[name]), now[name]
            if found.shape != value.shape or found.dtype != value.dtype:
                raise ValueError(f"{name} is {found.dtype} {found.shape}, not {value.dtype} {value.shape}")
        if not self.dynamics.is_possible(torch.tensor(np.asarray(state["state"]))):
            raise ValueError(f"state is none of {PREFIX}{self.name}")
        device, generator = self._generator.device, np.array(state["generator"])
        self.states = EnvStates(*(torch.tensor(np.asarray(state[name]), device=device) for name in EnvStates._fields))
        if same_device:
            self._generator.set_state(torch.from_numpy(generator))
        else:
            self._generator.manual_seed(zlib.crc32(generator.tobytes()))

    def close(self) -> None: ...

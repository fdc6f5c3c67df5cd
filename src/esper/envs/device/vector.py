"""N copies of a `Dynamics` in one tensor: time limits, and episodes that restart by themselves."""

from __future__ import annotations

import dataclasses
import zlib

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from esper.envs.base import (
    ContinuousActions,
    Copies,
    DeviceStep,
    EnvSpec,
    FloatArray,
    StateTree,
    Step,
    Vectors,
    scaled_to,
)
from esper.envs.config import ScaleActions
from esper.envs.device.dynamics import DYNAMICS, Dynamics
from esper.envs.scaling import bounds_to_scale_to, cannot_scale

PREFIX = "torch/"


def begin(dynamics: Dynamics, uniform: Tensor) -> Copies:
    """New episodes everywhere, from `uniform` [N, S] in [0, 1)."""
    return Copies(dynamics.begin(uniform), torch.zeros(len(uniform), dtype=torch.int32, device=uniform.device))


def step(dynamics: Dynamics, copies: Copies, action: Tensor, uniform: Tensor, *, max_episode_steps: int) -> DeviceStep:
    """Step every copy; one whose episode ends begins the next one from its row of `uniform` [N, S] in [0, 1).

    Pure, without branches on values: it can be compiled, captured, and unrolled.
    """
    bound = dynamics.action_bound
    continuous = isinstance(dynamics.actions, ContinuousActions)
    outcome = dynamics.step(copies.state, action.clamp(-bound, bound) if continuous else action)
    steps = copies.steps + 1
    truncated = steps >= max_episode_steps
    done = outcome.terminated | truncated
    state = torch.where(done[:, None], dynamics.begin(uniform), outcome.state)
    return DeviceStep(
        copies=Copies(state, torch.where(done, 0, steps)),
        reward=outcome.reward,
        terminated=outcome.terminated,
        truncated=truncated,
        final_obs=dynamics.observe(outcome.state).float(),
    )


class DeviceVectorEnv:
    """The `Dynamics` called `name`, in float32, as a `DeviceEnv`: by tensors, and as a `VectorEnv` of the host.

    `max_episode_steps` is a time limit in place of its own.
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
        actions, bound = dynamics.actions, dynamics.action_bound
        if isinstance(actions, ContinuousActions):
            high = np.full(actions.size, bound)
            actions = dataclasses.replace(actions, scaled_to=bounds_to_scale_to(scale_actions, -high, high))
        elif scale_actions == "on":
            raise cannot_scale(f"the choices of {PREFIX}{name}")
        self._factor = bound if scaled_to(actions) else None
        self.spec = EnvSpec(
            num_envs=num_envs,
            observations=Vectors(size=dynamics.observation_size),
            actions=actions,
            max_episode_steps=self.max_episode_steps,
        )
        self.to(torch.device("cpu"))

    def to(self, device: torch.device) -> None:
        self._generator = torch.Generator(device)
        self.copies = begin(self.dynamics, self.draw(1)[0])

    def draw(self, num_steps: int) -> Tensor:
        shape = (num_steps, self.spec.num_envs, self.dynamics.state_size)
        return torch.rand(shape, generator=self._generator, device=self._generator.device)

    def observe(self, copies: Copies) -> Tensor:
        return self.dynamics.observe(copies.state).float()

    def advance(self, copies: Copies, actions: Tensor, uniform: Tensor) -> DeviceStep:
        actions = actions if self._factor is None else actions * self._factor
        return step(self.dynamics, copies, actions, uniform, max_episode_steps=self.max_episode_steps)

    def reset(self, seed: int) -> FloatArray:
        self._generator.manual_seed(seed)
        self.copies = begin(self.dynamics, self.draw(1)[0])
        return self.observe(self.copies).cpu().numpy()

    def step(self, actions: NDArray[np.generic]) -> Step:
        on_device = torch.from_numpy(actions).to(self._generator.device)
        self.copies, *outcome = self.advance(self.copies, on_device, self.draw(1)[0])
        reward, terminated, truncated, final_obs = (field.cpu().numpy() for field in outcome)
        ended = bool((terminated | truncated).any())
        obs = self.observe(self.copies).cpu().numpy()
        return Step(obs, reward.astype(np.float64), terminated, truncated, final_obs if ended else None, None)

    def state_dict(self) -> StateTree:
        arrays = {name: field.cpu().numpy().copy() for name, field in self.copies._asdict().items()}
        return {**arrays, "generator": self._generator.get_state().numpy(), "device": self._generator.device.type}

    def load_state_dict(self, state: StateTree) -> None:
        """Go on from `state`.

        A generator's state means nothing to another kind of device; there a new stream begins, decided by that state.
        """
        now = self.state_dict()
        if set(state) != set(now):
            raise ValueError(f"{', '.join(map(str, state)):.200} are not {', '.join(now)}")
        same_device = state["device"] == now["device"]
        for name in (*Copies._fields, "generator") if same_device else Copies._fields:
            found, value = np.asarray(state[name]), now[name]
            if found.shape != value.shape or found.dtype != value.dtype:
                raise ValueError(f"{name} is {found.dtype} {found.shape}, not {value.dtype} {value.shape}")
        device, generator = self._generator.device, np.array(state["generator"])
        self.copies = Copies(*(torch.tensor(np.asarray(state[name]), device=device) for name in Copies._fields))
        if same_device:
            self._generator.set_state(torch.from_numpy(generator))
        else:
            self._generator.manual_seed(zlib.crc32(generator.tobytes()))

    def close(self) -> None: ...

"""Environments with known answers: when one fails, its name says which part is broken."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from esper.envs.base import (
    Actions,
    BoolArray,
    ContinuousActions,
    DiscreteActions,
    EnvSpec,
    FloatArray,
    Images,
    MultiDiscreteActions,
    ObsArray,
    Observations,
    StateTree,
    Step,
    Vectors,
)

NUM_ENVS = 8

# Reward, next (or final) observations [N, 1], terminated and truncated, each for all copies.
Outcome: TypeAlias = tuple[NDArray[np.float64], FloatArray, BoolArray, BoolArray]


class Probe:
    """Copies with observations of one number. A subclass says what a step gives."""

    observations: Observations = Vectors(size=1)
    actions: Actions = DiscreteActions(n=2)
    masked = False
    resets_in_a_step = False

    def __init__(self) -> None:
        self.spec = EnvSpec(
            num_envs=NUM_ENVS,
            observations=self.observations,
            actions=self.actions,
            masked=self.masked,
            resets_in_a_step=self.resets_in_a_step,
        )
        self._rng = np.random.default_rng(0)
        self._obs = self.start()

    def reset(self, seed: int) -> ObsArray:
        self._rng = np.random.default_rng(seed)
        self._obs = self.start()
        return self._obs

    def step(self, actions: NDArray[Any]) -> Step:
        reward, final_obs, terminated, truncated = self.outcome(self._obs[:, 0], np.asarray(actions))
        done = terminated | truncated
        self._obs = np.where(done[:, None], self.start(), final_obs).astype(np.float32)
        return Step(self._obs, reward, terminated, truncated, final_obs if done.any() else None, None)

    @property
    def action_masks(self) -> BoolArray | None:
        return None

    def close(self) -> None: ...

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "obs": self._obs.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        self._rng.bit_generator.state = state["rng"]
        self._obs = np.array(state["obs"])

    def start(self) -> ObsArray:
        """First observations [N, 1]."""
        return np.zeros((NUM_ENVS, 1), dtype=np.float32)

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        raise NotImplementedError

    def one_step(self, reward: NDArray[Any]) -> Outcome:
        """An episode of one step with this reward."""
        yes = np.ones(NUM_ENVS, dtype=np.bool_)
        return reward.astype(np.float64), np.zeros((NUM_ENVS, 1), dtype=np.float32), yes, ~yes


class ConstantReward(Probe):
    """One step, reward 1: V = 1."""

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        return self.one_step(np.ones(NUM_ENVS))


class RewardByObservation(Probe):
    """One step, reward = observation, -1 or 1: V(o) = o."""

    def start(self) -> ObsArray:
        return self._rng.choice([-1.0, 1.0], size=(NUM_ENVS, 1)).astype(np.float32)

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        return self.one_step(obs)


class RewardByImage(RewardByObservation):
    """One step, the right action is where the one bright patch of an image is: left or right, in any row."""

    observations = Images(shape=(1, 6, 6), highest=255)

    def start(self) -> ObsArray:
        images = np.zeros((NUM_ENVS, 1, 6, 6), dtype=np.uint8)
        images[range(NUM_ENVS), 0, self._rng.integers(6, size=NUM_ENVS), self._rng.integers(6, size=NUM_ENVS)] = 255
        return images

    def step(self, actions: NDArray[Any]) -> Step:
        right = self._obs[..., 3:].any(axis=(1, 2, 3))
        self._obs, over = self.start(), np.ones(NUM_ENVS, dtype=np.bool_)
        return Step(self._obs, np.where((actions == 1) == right, 1.0, -1.0), over, ~over, self._obs, None)


class DelayedReward(Probe):
    """Observation 0, then 1, then the end with reward 1: V(1) = 1, V(0) = gamma."""

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        second = obs == 1
        return second.astype(np.float64), np.ones((NUM_ENVS, 1), dtype=np.float32), second, np.zeros_like(second)


class RewardByAction(Probe):
    """One step, action 1 is right."""

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        return self.one_step(np.where(actions == 1, 1.0, -1.0))


class RewardByActionAndObservation(RewardByObservation):
    """One step, the right action is the sign of the observation."""

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        return self.one_step(np.where((actions == 1) == (obs > 0), 1.0, -1.0))


class RewardByEachChoice(RewardByObservation):
    """One step; each of three choices has its own right answer, one of them by the observation, worth 1/3 each."""

    actions = MultiDiscreteActions(nvec=(4, 2, 3))

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        right = np.stack([np.full(NUM_ENVS, 2), obs > 0, np.zeros(NUM_ENVS)], axis=1)
        return self.one_step((actions == right).mean(axis=1))


class RewardByContinuousAction(Probe):
    """One step, the nearer to 0.5 the better."""

    actions = ContinuousActions(size=1)

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        return self.one_step(-((actions[:, 0] - 0.5) ** 2))


class Trapdoors(Probe):
    """Ten steps over trapdoors: of 16 actions all but two, other ones in every step, end the episode at once.

    Of the two, the lower one is worth 1. Nothing is observed, so that who is not told of the trapdoors stays above them
    in a step with a probability of 1/8 at best.
    """

    actions = DiscreteActions(n=16)
    length = 10

    def __init__(self, *, masked: bool = True) -> None:
        self.masked = masked
        super().__init__()
        self.reset(0)

    def reset(self, seed: int) -> ObsArray:
        obs = super().reset(seed)
        self._age, self._solid = np.zeros(NUM_ENVS, dtype=np.int64), self._rng.integers(8, size=NUM_ENVS)
        return obs

    @property
    def action_masks(self) -> BoolArray | None:
        return np.arange(16) % 8 == self._solid[:, None] if self.masked else None

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        self._age += 1
        over = (actions % 8 != self._solid) | (self._age == self.length)
        reward = (actions == self._solid).astype(np.float64)
        self._age[over] = 0
        self._solid = self._rng.integers(8, size=NUM_ENVS)
        return reward, np.zeros((NUM_ENVS, 1), dtype=np.float32), over, np.zeros_like(over)

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"age": self._age.copy(), "solid": self._solid.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        super().load_state_dict(state)
        self._age, self._solid = np.array(state["age"]), np.array(state["solid"])


class Cue(Probe):
    """The first of four observations is -1 or 1, the others are 0; in the last step its sign is the right action.

    Nothing is ever seen of the cue again: without memory the return is 0 on average, with it 1.
    """

    length = 4

    def __init__(self, *, resets_in_a_step: bool = False) -> None:
        self.resets_in_a_step = resets_in_a_step
        super().__init__()
        self.reset(0)

    def reset(self, seed: int) -> ObsArray:
        self._cue, self._age = np.zeros(NUM_ENVS), np.full(NUM_ENVS, self.length)
        self._rng = np.random.default_rng(seed)
        return self._begin(np.ones(NUM_ENVS, dtype=np.bool_))

    def _begin(self, rows: BoolArray) -> FloatArray:
        cues = self._rng.choice([-1.0, 1.0], size=NUM_ENVS)
        self._cue, self._age = np.where(rows, cues, self._cue), np.where(rows, 0, self._age)
        return np.where(self._age == 0, self._cue, 0.0).astype(np.float32)[:, None]

    def step(self, actions: NDArray[Any]) -> Step:
        resetting = self._age == self.length
        self._age += ~resetting
        over = (self._age == self.length) & ~resetting
        reward = np.where(over, np.where((actions == 1) == (self._cue > 0), 1.0, -1.0), 0.0)
        final = np.zeros((NUM_ENVS, 1), dtype=np.float32)
        obs = self._begin(resetting if self.resets_in_a_step else over)
        ignored = resetting if self.resets_in_a_step and resetting.any() else None
        return Step(obs, reward, over, np.zeros_like(over), final if over.any() else None, ignored)

    def state_dict(self) -> dict[str, Any]:
        return {"rng": self._rng.bit_generator.state, "cue": self._cue.copy(), "age": self._age.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        self._rng.bit_generator.state = state["rng"]
        self._cue, self._age = np.array(state["cue"]), np.array(state["age"])


class EndlessReward(Probe):
    """Reward 1 at every step but the first, cut every few steps without a termination: V(1) = 1 / (1 - gamma).

    The first observation is 0 and the others are 1, so V(0) = gamma * V(1): a value taken at the cut from the reset
    observation instead of the final one is too small.
    """

    length = 5

    def __init__(self) -> None:
        self._age = np.arange(NUM_ENVS) % self.length
        super().__init__()

    def outcome(self, obs: NDArray[Any], actions: NDArray[Any]) -> Outcome:
        self._age += 1
        truncated = self._age >= self.length
        self._age[truncated] = 0
        return obs.astype(np.float64), np.ones((NUM_ENVS, 1), dtype=np.float32), np.zeros_like(truncated), truncated

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"age": self._age.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        super().load_state_dict(state)
        self._age = np.array(state["age"])

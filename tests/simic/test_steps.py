"""What a `VectorEnv` returns is checked, and what it gets is its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from esper.envs.base import DiscreteActions, EnvError, EnvSpec, Images, StateTree, Step, Vectors
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.vectorized import Training
from esper.telemetry.events import UpdateCompleted

GOOD: dict[str, Any] = {
    "obs": np.zeros((3, 2), np.float32),
    "reward": np.ones(3),
    "terminated": np.zeros(3, np.bool_),
    "truncated": np.zeros(3, np.bool_),
    "final_obs": None,
    "ignored": None,
}
CUT = np.array([True, False, False])


class Given:
    """A `VectorEnv` that returns what it was given, and writes into the actions that it gets."""

    action_masks = None

    def __init__(self, reset: Any = GOOD["obs"], outcome: Any = None, spec: EnvSpec | None = None, **step: Any) -> None:
        self.spec = spec or EnvSpec(num_envs=3, observations=Vectors(size=2), actions=DiscreteActions(n=2))
        self._reset, self._outcome = reset, outcome if outcome is not None else Step(**(GOOD | step))

    def reset(self, seed: int) -> Any:
        return self._reset

    def step(self, actions: NDArray[np.generic]) -> Any:
        actions[:] = 0
        return self._outcome

    def state_dict(self) -> None:
        return None

    def load_state_dict(self, state: StateTree) -> None: ...

    def close(self) -> None: ...


def training(**given: Any) -> Training:
    env = Given(**given)
    config = PPOConfig(total_timesteps=24, num_envs=3, num_steps=8, runtime=RuntimeConfig(compile="off"))
    return Training(PPOAgent(config, env.spec), env, env_seed=1)


def test_actions_are_recorded_as_they_were_chosen() -> None:
    run = training()
    run.update()
    assert set(run._rollout.actions.flatten().tolist()) == {0, 1}


@pytest.mark.parametrize(
    "given",
    [
        {"obs": [[0.0, 1.0]] * 3},
        {"reward": np.ones(3, np.int64)},
        {"terminated": np.ones(3, np.uint8)},
        {"truncated": CUT, "terminated": CUT},
        {"outcome": (*GOOD.values(), np.full(3, np.nan))},
    ],
)
def test_what_is_unambiguous_is_taken(given: Any) -> None:
    assert isinstance(training(**given).update(), UpdateCompleted)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"reset": np.zeros(2, np.float32)}, r"returned an array \[2\] as observations from reset; .* \[3, 2\]"),
        ({"reset": (GOOD["obs"], {})}, "returned a tuple as observations from reset"),
        ({"obs": np.zeros(2, np.float32)}, r"returned an array \[2\] as observations from step; .* \[3, 2\]"),
        ({"obs": np.zeros((3, 1), np.float32)}, r"returned an array \[3, 1\] as observations"),
        ({"reward": 1.0}, r"returned an array \[\] as reward from step; VectorEnv requires \[3\]"),
        ({"reward": np.ones((3, 1))}, r"returned an array \[3, 1\] as reward"),
        ({"reward": "much"}, "returned a str as reward from step"),
        ({"terminated": False}, r"returned an array \[\] as terminated"),
        ({"truncated": np.full(3, 0.5)}, "returned numbers other than 0 and 1 as truncated"),
        ({"truncated": CUT}, "returned None as final_obs from step; .* where an episode was truncated"),
        ({"truncated": CUT, "final_obs": np.zeros(2, np.float32)}, r"returned an array \[2\] as final_obs"),
        ({"ignored": True}, r"returned an array \[\] as ignored"),
        ({"success": np.ones(1)}, r"returned an array \[1\] as success"),
        ({"outcome": tuple(GOOD.values())[:5]}, "returned a tuple of 5 from step; VectorEnv requires a Step"),
        ({"outcome": 3}, "returned a int from step"),
    ],
)
def test_what_numpy_would_spread_or_cut_is_refused(given: Any, message: str) -> None:
    with pytest.raises(EnvError, match=f"^the vector environment {message}"):
        training(**given).update()


def test_images_must_be_of_uint8() -> None:
    """As 0.5 would become 0."""
    spec = EnvSpec(num_envs=3, observations=Images(shape=(1, 5, 5)), actions=DiscreteActions(n=2))
    with pytest.raises(EnvError, match="an array of float32 as observations from reset; VectorEnv requires uint8"):
        training(reset=np.full((3, 1, 5, 5), 0.5, np.float32), spec=spec)

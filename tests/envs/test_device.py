"""The torch environments against Gymnasium's own, step by step."""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import gymnasium
import numpy as np
import pytest
import torch

from esper.envs.base import ContinuousActions, EnvStates
from esper.envs.device.classic_control import CLASSIC_CONTROL
from esper.envs.device.vector import begin, step
from esper.envs.make import make_env
from esper.settings.options import ConfigError

NAMES = list(CLASSIC_CONTROL)
NO_DRAWS = torch.zeros(1, 0)


def state_of(env: gymnasium.Env[Any, Any]) -> torch.Tensor:
    return torch.tensor(np.array([env.unwrapped.state]), dtype=torch.float64)  # type: ignore[attr-defined]


def as_tensor(action: Any) -> torch.Tensor:
    return torch.as_tensor(np.array([action]))


class Walked(NamedTuple):
    """Steps of Gymnasium's environment, a row each."""

    before: torch.Tensor
    actions: torch.Tensor
    after: torch.Tensor
    obs: torch.Tensor
    rewards: torch.Tensor
    terminated: torch.Tensor


def walk_in_gymnasium(name: str, steps: int, seed: int) -> Walked:
    """Random actions, with resets where an episode ends."""
    env, rows = gymnasium.make(name, disable_env_checker=True), []
    env.action_space.seed(seed)
    env.reset(seed=seed)
    for _ in range(steps):
        action, before = env.action_space.sample(), np.array(env.unwrapped.state, np.float64)  # type: ignore[attr-defined]
        obs, reward, terminated, truncated, _ = env.step(action)
        after = np.array(env.unwrapped.state, np.float64)  # type: ignore[attr-defined]
        rows.append((before, action, after, obs, float(reward), terminated))
        if terminated or truncated:
            env.reset()
    return Walked(*(torch.from_numpy(np.stack(column)) for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("name", NAMES)
class TestAgainstGymnasium:
    def test_every_step_of_long_random_trajectories(self, name: str) -> None:
        """From Gymnasium's state each time, so that errors cannot add up and each step is judged by itself."""
        dynamics, walked = CLASSIC_CONTROL[name](), walk_in_gymnasium(name, 5_000, seed=0)
        ours = dynamics.step(walked.before, walked.actions, NO_DRAWS)
        # With continuous actions Gymnasium computes part of the step, or keeps the state, in float32.
        tolerance = 1e-7 if isinstance(dynamics.actions, ContinuousActions) else 1e-12
        torch.testing.assert_close(ours.state, walked.after, rtol=0, atol=tolerance)
        torch.testing.assert_close(dynamics.observe(ours.state).float(), walked.obs, rtol=1e-6, atol=1e-6)
        torch.testing.assert_close(ours.reward.double(), walked.rewards, rtol=0, atol=1e-6)
        assert ours.terminated.equal(walked.terminated)

    def test_whole_episodes_in_one_go(self, name: str) -> None:
        """Free running, with the time limit, as float64 keeps together what chaos would pull apart."""
        env, dynamics = gymnasium.make(name, disable_env_checker=True), CLASSIC_CONTROL[name]()
        env.action_space.seed(1)
        for seed in range(3):
            env.reset(seed=seed)
            copies = EnvStates(state_of(env), torch.zeros(1, dtype=torch.int32))
            ended = False
            while not ended:
                action = env.action_space.sample()
                obs, _, terminated, truncated, _ = env.step(action)
                uniform = torch.rand(1, dynamics.begin_draws).double()
                limit = dynamics.max_episode_steps
                outcome = step(dynamics, copies, as_tensor(action), uniform, max_episode_steps=limit)
                copies, ended = outcome.states, terminated or truncated
                assert (outcome.terminated.item(), outcome.truncated.item()) == (terminated, truncated)
                # The final observation is there although the next episode has begun.
                torch.testing.assert_close(outcome.final_obs[0], torch.tensor(obs), rtol=1e-3, atol=1e-3)
            assert copies.steps.item() == 0

    def test_float32_takes_the_same_step_up_to_its_rounding(self, name: str) -> None:
        dynamics, walked = CLASSIC_CONTROL[name](), walk_in_gymnasium(name, 1_000, seed=2)
        ours = dynamics.step(walked.before.float(), walked.actions, NO_DRAWS).state
        assert ours.dtype == torch.float32
        # An angle at pi may be wrapped to either end by the rounding.
        error = (ours.double() - walked.after).abs()
        assert torch.minimum(error, (error - 2 * np.pi).abs()).max() < 2e-4

    def test_episodes_begin_where_gymnasiums_do(self, name: str) -> None:
        env, dynamics = gymnasium.make(name, disable_env_checker=True), CLASSIC_CONTROL[name]()
        theirs = torch.cat([env.reset(seed=seed) and state_of(env) for seed in range(400)])
        uniform = torch.rand(20_000, dynamics.state_size, generator=torch.Generator().manual_seed(0))
        ours = begin(dynamics, uniform).state
        low, high = (begin(dynamics, torch.full((1, dynamics.state_size), end)).state[0] for end in (0.0, 1.0))
        assert (theirs >= low - 1e-6).all()
        assert (theirs <= high + 1e-6).all()
        # A uniform distribution between the same bounds: mean in the middle, deviation (high - low) / sqrt(12).
        torch.testing.assert_close(ours.mean(0), (low + high) / 2, rtol=0, atol=0.03)
        torch.testing.assert_close(theirs.std(0).float(), (high - low) / 12**0.5, rtol=0.15, atol=1e-6)

    def test_compiles_to_one_graph_without_breaks(self, name: str) -> None:
        dynamics = CLASSIC_CONTROL[name]()
        continuous = isinstance(dynamics.actions, ContinuousActions)
        copies = begin(dynamics, torch.rand(4, dynamics.state_size))
        action = torch.zeros(4, 1) if continuous else torch.ones(4, dtype=torch.int64)
        explanation = torch._dynamo.explain(lambda c, a, u: step(dynamics, c, a, u, max_episode_steps=500))(
            copies, action, torch.rand(4, dynamics.state_size)
        )
        assert (explanation.graph_count, explanation.graph_break_count) == (1, 0)


@pytest.mark.parametrize("name", NAMES)
class TestVectorEnv:
    def test_sizes_are_gymnasiums(self, name: str) -> None:
        ours, theirs = (make_env(prefix + name, num_envs=3) for prefix in ("torch/", ""))
        assert ours.spec == dataclasses.replace(theirs.spec, resets_in_a_step=False)

    def test_goes_on_to_the_last_bit(self, name: str) -> None:
        env, other = (make_env(f"torch/{name}", num_envs=3) for _ in range(2))
        env.reset(0)
        walk(env, 150)
        other.reset(1)
        other.load_state_dict(env.state_dict() or {})
        assert walk(other, 250) == walk(env, 250)

    def test_copies_have_episodes_of_their_own(self, name: str) -> None:
        env = make_env(f"torch/{name}", num_envs=3)
        obs = env.reset(0)
        assert len({row.tobytes() for row in obs}) == 3
        assert env.reset(0).tobytes() == obs.tobytes() != env.reset(1).tobytes()

    def test_goes_on_with_another_stream_where_the_generator_is_of_another_kind(self, name: str) -> None:
        env = make_env(f"torch/{name}", num_envs=3)
        env.reset(0)
        walk(env, 150)
        state = {**(env.state_dict() or {}), "device": "cuda", "generator": np.arange(16, dtype=np.uint8)}
        walks = []
        for _ in range(2):
            env.load_state_dict(state)
            walks.append(walk(env, 250))
        assert walks[0] == walks[1]


def walk(env: Any, steps: int) -> list[Any]:
    generator, seen = np.random.default_rng(0), []
    for _ in range(steps):
        if isinstance(env.spec.actions, ContinuousActions):
            action: Any = generator.normal(size=(3, 1)).astype(np.float32) * 3
        else:
            action = generator.integers(env.spec.actions.n, size=3)
        seen.append([None if part is None else np.array(part).tolist() for part in env.step(action)])
    return seen


class TestActionsAndState:
    def test_continuous_actions_are_clipped_before_they_cost(self) -> None:
        costs = []
        for action in (1.0, 50.0):
            env = make_env("torch/MountainCarContinuous-v0", num_envs=1)
            env.reset(0)
            costs.append(env.step(np.array([[action]], dtype=np.float32)).reward[0])
        assert costs[0] == costs[1] == pytest.approx(-0.1)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"state": np.zeros((2, 4), dtype=np.float32)}, r"state is float32 \(2, 4\), not float32 \(3, 4\)"),
            ({"steps": np.zeros(3)}, "steps is float64"),
            ({"more": 1}, "are not state, steps, generator, device"),
        ],
    )
    def test_a_state_of_another_form(self, change: dict[str, Any], message: str) -> None:
        env = make_env("torch/CartPole-v1", num_envs=3)
        with pytest.raises(ValueError, match=message):
            env.load_state_dict({**(env.state_dict() or {}), **change})

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"env": "torch/CartPoll-v1"}, "must be one of torch/CartPole-v1, .*did you mean 'CartPole-v1'"),
            ({"env": "torch/CartPole-v1", "vector": "sync"}, "steps all environments in one tensor; use auto"),
            ({"env": "torch/CartPole-v1", "env_kwargs": {"x": 1}}, "takes none"),
        ],
    )
    def test_bad_input(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            make_env(**arguments, num_envs=2)

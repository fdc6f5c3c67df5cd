"""Environments that draw from generators which are not their own: each seed gives one run, and nobody else notices."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor, nn

from esper.envs.base import EnvError, VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.make import make_env, make_for_training
from esper.envs.snapshot import _decode
from esper.policies.evaluate import evaluate
from esper.policies.policy import load_policy
from esper.policies.show import record_gif
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import run
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized
from esper.simic.vectorized import Training
from esper.system.seeding import GlobalGenerators, global_state, set_global_state

BOX = spaces.Box(-1, 1, (1,))


class Inner(gymnasium.Env[Any, Any]):
    """Within another environment, which does not seed it."""

    action_space = spaces.Box(-1, 1, (1,))


class Draws(gymnasium.Env[Any, Any]):
    """Shows what it draws, from what `kind` says. Its spaces are its class's; no reset of it seeds anything."""

    observation_space, action_space = spaces.Box(-1, 1, (1,)), spaces.Discrete(2)
    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, kind: str = "random", raise_at: int = -1, render_mode: str | None = None) -> None:
        self._inner, self._parts = Inner(), spaces.Dict({"a": spaces.Tuple([BOX])})
        self._constant, self._kind, self._raise_at, self.render_mode = random.random(), kind, raise_at, render_mode
        self._age = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self._age = 0
        return self._draw(), {}

    def step(self, action: Any) -> Any:
        self._age += 1
        if self._age == self._raise_at:
            raise ValueError("no more")
        obs = self._draw()
        return obs, float(obs[0]), False, self._age == 5, {}

    def render(self) -> Any:
        return np.full((4, 4, 3), 255 * abs(self._draw()[0]), dtype=np.uint8)

    def _draw(self) -> Any:
        sources: dict[str, Callable[[], Any]] = {
            "random": random.random,
            "numpy": np.random.random,
            "torch": lambda: float(torch.rand(())),
            "action space": lambda: sum(self.action_space.sample() << bit for bit in range(30)) / 2**30,
            "observation space": lambda: self.observation_space.sample()[0],
            "part of a space": lambda: self._parts.sample()["a"][0][0],
            "np_random": lambda: self.np_random.random(),
            "space within": lambda: self._inner.action_space.sample()[0],
            "np_random within": lambda: self._inner.np_random.random(),
            "constructor": lambda: self._constant,
        }
        return np.array([sources[self._kind]()], dtype=np.float32)


KINDS = (
    *("random", "numpy", "torch", "action space", "observation space", "part of a space", "np_random"),
    *("space within", "np_random within", "constructor"),
)


@pytest.fixture(autouse=True)
def draws() -> Iterator[None]:
    gymnasium.register("Draws-v0", entry_point=cast(Any, Draws))
    yield
    del gymnasium.registry["Draws-v0"]


def made(kind: str, vector: Any, seed: int | None = None, **kwargs: Any) -> VectorEnv:
    return make_for_training(EnvConfig(env="Draws-v0", env_kwargs={"kind": kind, **kwargs}, vector=vector), 3, seed)


def agent_of(env: VectorEnv, **network: Any) -> PPOAgent:
    sizes = {"num_envs": 3, "num_steps": 8, "num_minibatches": 1, "update_epochs": 1, "total_timesteps": 48}
    settings = {"network": NetworkConfig(hidden_sizes=(4,), **network), "runtime": RuntimeConfig(compile="off")}
    return PPOAgent(PPOConfig(**sizes, **settings), env.spec, seed=1)  # type: ignore[arg-type]


def trained(env: VectorEnv, seed: int, **network: Any) -> dict[str, Any]:
    agent = agent_of(env, **network)
    try:
        train_ppo_vectorized(agent, env, env_seed=seed)
    finally:
        env.close()
    return {name: tensor.tolist() for name, tensor in agent.network.state_dict().items()}


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_gives_one_policy(kind: str, vector: str) -> None:
    policies = [trained(made(kind, vector, seed), seed) for seed in (3, 3, 4)]
    assert policies[0] == policies[1] != policies[2]


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize("kind", KINDS)
def test_copies_draw_different_numbers(kind: str, vector: str) -> None:
    env = made(kind, vector, 3)
    numbers = {float(obs[0]) for obs in env.reset(3)}
    env.close()
    assert len(numbers) == 3


def test_fresh_episodes_begin_with_numbers_of_their_seed() -> None:
    env = made("random", "sync")
    training, other = (Training(agent_of(env), env, env_seed=seed) for seed in (3, 4))
    training.load_state_dict({**training.state_dict(), "environment": None}, env_seed=4)
    begun = [each.state_dict()["collector"]["obs"].tolist() for each in (training, other)]
    assert begun[0] == begun[1]


class DrawsAtOnce(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """Steps two copies as one array, which it samples from its spaces."""

    metadata = {"autoreset_mode": gymnasium.vector.AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = BOX, spaces.Discrete(2)
        self.observation_space = spaces.Box(-1, 1, (num_envs, 1))
        self.action_space = spaces.MultiDiscrete([2] * num_envs)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.observation_space.sample(), {}

    def step(self, actions: Any) -> Any:
        over = np.zeros(self.num_envs, dtype=np.bool_)
        return self.observation_space.sample(), self.np_random.random(self.num_envs), over, over, {}


def test_a_vector_environment_is_seeded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gymnasium.envs.registration, "registry", dict(gymnasium.registry))
    gymnasium.register("DrawsAtOnce-v0", entry_point=cast(Any, Draws), vector_entry_point=cast(Any, DrawsAtOnce))
    policies = [trained(make_env("DrawsAtOnce-v0", num_envs=3), seed) for seed in (3, 3, 4)]
    assert policies[0] == policies[1] != policies[2]


def test_what_an_environment_seeds_by_itself_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    class Seeds(Draws):
        def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
            self.observation_space.seed(7)
            return super().reset(seed=seed)

    monkeypatch.setitem(
        gymnasium.registry, "Draws-v0", gymnasium.envs.registration.EnvSpec("Draws-v0", cast(Any, Seeds))
    )
    expected = spaces.Box(-1, 1, (1,), seed=7).sample()
    assert made("observation space", "sync").reset(3).tolist() == [expected.tolist()] * 3


def dropout(shape: tuple[int, ...]) -> nn.Module:
    return nn.Sequential(nn.Linear(shape[0], 8), nn.Dropout(0.5))


def test_a_network_that_draws_from_torch_learns_the_same_again() -> None:
    encoder = f"{__name__}:dropout"
    policies = [trained(made("random", "sync"), 3, encoder=encoder) for _ in range(2)]
    assert policies[0] == policies[1]


def equal(state: Any, other: Any) -> bool:
    if isinstance(state, dict):
        return state.keys() == other.keys() and all(equal(state[name], other[name]) for name in state)
    return bool(state.equal(other)) if isinstance(state, Tensor) else bool(np.array_equal(state, other))


class TestOthersGenerators:
    """What draws in the same process goes on as if nothing had been."""

    @pytest.fixture(autouse=True)
    def unchanged(self) -> Iterator[None]:
        # With a normal number in reserve, as both keep one.
        random.gauss()
        np.random.standard_normal()  # noqa: NPY002
        before = global_state()
        yield
        assert equal(before, global_state())

    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_after_training(self, vector: str) -> None:
        trained(made("numpy", vector, 3), 3)

    def test_after_an_environment_raised(self) -> None:
        env = made("numpy", "sync", 3, raise_at=3)
        with pytest.raises(EnvError, match="no more"):
            trained(env, 3)

    @pytest.mark.parametrize("env", ["Draws-v0", "torch/CartPole-v1"])
    def test_after_a_run_and_all_that_is_done_with_its_policy(self, tmp_path: Path, env: str) -> None:
        run(config(tmp_path / "run", env=env, eval_every=1, eval_episodes=2, tensorboard=True, picture=True))
        policy = load_policy(tmp_path / "run")
        evaluate(policy, episodes=2, seed=0)
        if env == "Draws-v0":
            record_gif(policy, tmp_path / "episode.gif", seed=0)


def config(run_dir: Path, **settings: Any) -> RunConfig:
    small = {"env": "Draws-v0", "num_envs": 2, "num_steps": 8, "total_timesteps": 64, "hidden_sizes": [4]}
    quiet = {"num_minibatches": 1, "threads": 1, "quiet": True, "tensorboard": False, "picture": False}
    return resolve([Layer(source="test", values={**small, **quiet, "run_dir": str(run_dir), **settings})]).config


@pytest.mark.parametrize("kind", ["random", "numpy", "torch", "observation space"])
def test_evaluations_do_not_change_what_is_learned(kind: str, tmp_path: Path) -> None:
    for name, every in (("with", 1), ("without", None)):
        run(config(tmp_path / name, env_kwargs={"kind": kind}, eval_every=every, eval_episodes=2))
    policies = [(tmp_path / name / "policy.safetensors").read_bytes() for name in ("with", "without")]
    assert policies[0] == policies[1]


@pytest.mark.parametrize("kind", KINDS)
def test_a_score_is_the_same_again(kind: str, tmp_path: Path) -> None:
    run(config(tmp_path / "run", env_kwargs={"kind": kind}))
    policy = load_policy(tmp_path / "run")
    scores = [evaluate(policy, episodes=3, seed=seed).returns for seed in (0, 0, 1)]
    assert scores[0] == scores[1] != scores[2]


def test_an_episode_is_drawn_the_same_again(tmp_path: Path) -> None:
    run(config(tmp_path / "run"))
    policy = load_policy(tmp_path / "run")
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        record_gif(policy, tmp_path / f"{name}.gif", seed=seed)
    a, b, c = ((tmp_path / f"{name}.gif").read_bytes() for name in "abc")
    assert a == b != c


class TestGlobalGenerators:
    def test_have_their_own_numbers_within(self) -> None:
        generators, seen = GlobalGenerators(3), []
        before = global_state()
        for _ in range(2):
            with generators.in_place(), generators.in_place():
                seen.append([random.random(), np.random.random(), float(torch.rand(()))])  # noqa: NPY002
            assert equal(before, global_state())
        with GlobalGenerators(3).in_place():
            again = [[random.random(), np.random.random(), float(torch.rand(()))] for _ in range(2)]  # noqa: NPY002
        assert seen == again
        assert len({*seen[0], *seen[1]}) == 6

    def test_are_given_back_when_something_is_raised(self) -> None:
        before = global_state()
        with contextlib.suppress(ZeroDivisionError), GlobalGenerators(3).in_place():
            raise ZeroDivisionError
        assert equal(before, global_state())

    @pytest.mark.parametrize("pos", [-1, 625, 10**8])
    def test_a_position_outside_of_memory_is_refused(self, pos: int) -> None:
        state = global_state()
        state["numpy"]["state"]["pos"] = pos
        with pytest.raises(ValueError, match="pos"):
            set_global_state(state)
        with pytest.raises(ValueError, match="pos"):
            _decode({"random_state": state["numpy"]})

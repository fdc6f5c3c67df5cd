"""Time limits: the environment's own, another one in its place, and what cannot have one."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode

from esper.envs.base import VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.make import make_env, make_for_training, make_from_config
from esper.runs.layers import Layer, resolve
from esper.runs.resume.point import ResumeError
from esper.runs.run import resume_run, run
from esper.settings.options import ConfigError


class Forever(gymnasium.Env[Any, Any]):
    """No episode ends by itself; an observation is the age of its episode."""

    observation_space = Box(0, np.inf, (1,))
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.age = 0
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> Any:
        self.age += 1
        return np.full(1, self.age, np.float32), 1.0, False, False, {}


class ForeverTogether(gymnasium.vector.VectorEnv[Any, Any, Any]):
    """The same, all copies at once, without a time limit."""

    metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.single_observation_space, self.single_action_space = Forever.observation_space, Forever.action_space

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.age = 0
        return np.zeros((self.num_envs, 1), np.float32), {}

    def step(self, actions: Any) -> Any:
        self.age += 1
        no, ages = np.zeros(self.num_envs, np.bool_), np.full((self.num_envs, 1), self.age, np.float32)
        return ages, np.ones(self.num_envs), no, no, {}


@pytest.fixture(autouse=True)
def environments() -> Iterator[None]:
    gymnasium.register("Forever-v0", entry_point=cast(Any, Forever))
    gymnasium.register("Five-v0", entry_point=cast(Any, Forever), max_episode_steps=5)
    gymnasium.register("Together-v0", entry_point=cast(Any, Forever), vector_entry_point=cast(Any, ForeverTogether))
    yield
    for env in ("Forever-v0", "Five-v0", "Together-v0"):
        del gymnasium.registry[env]


def lengths(env: VectorEnv, steps: int) -> list[int]:
    """Of the first copy's episodes, each of which must be truncated, and the last observation kept."""
    env.reset(0)
    found: list[int] = []
    length = 0
    still = 1 if hasattr(env.spec.actions, "n") else np.zeros((env.spec.num_envs, 1), np.float32)
    for _ in range(steps):
        step = env.step(still if isinstance(still, np.ndarray) else np.ones(env.spec.num_envs, np.int64))
        length += step.ignored is None or not step.ignored[0]
        assert not step.terminated[0]
        if step.truncated[0]:
            assert step.final_obs is not None
            found, length = [*found, length], 0
    env.close()
    return found


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("env", "limit", "found"),
    [
        ("Forever-v0", None, []),
        ("Forever-v0", 4, [4, 4, 4]),
        ("Five-v0", None, [5, 5]),
        ("Five-v0", 3, [3, 3, 3, 3]),
        ("Five-v0", 7, [7]),
    ],
)
def test_copies(env: str, limit: int | None, found: list[int], vector: Any) -> None:
    made = make_env(env, num_envs=2, vector=vector, max_episode_steps=limit)
    assert made.spec.max_episode_steps == (limit or (5 if env == "Five-v0" else None))
    assert lengths(made, 13) == found


def test_a_limit_within_the_environment_is_replaced_too() -> None:
    assert make_env("PendulumNoVel-v1", num_envs=1).spec.max_episode_steps == 200
    made = make_env("PendulumNoVel-v1", num_envs=1, max_episode_steps=210)
    assert made.spec.max_episode_steps == 210
    assert lengths(made, 215) == [210]


@pytest.mark.parametrize("env", ["CartPole-v1", "torch/Pendulum-v1", "torch/MountainCar-v0"])
def test_all_copies_at_once(env: str) -> None:
    assert make_env(env, num_envs=1).spec.max_episode_steps == (500 if env == "CartPole-v1" else 200)
    made = make_env(env, num_envs=3, max_episode_steps=3)
    assert made.spec.max_episode_steps == 3
    assert lengths(made, 12) == ([3, 3, 3] if made.spec.resets_in_a_step else [3, 3, 3, 3])


def test_a_vector_version_without_time_limits(caplog: pytest.LogCaptureFixture) -> None:
    assert make_env("Together-v0", num_envs=2).spec.resets_in_a_step
    with pytest.raises(ConfigError, match="max_episode_steps = 4: the vector version of Together-v0 takes none"):
        make_env("Together-v0", num_envs=2, vector="native", max_episode_steps=4)
    with caplog.at_level(logging.INFO, "esper"):
        config = EnvConfig(env="Together-v0", max_episode_steps=4)
        made = make_for_training(config, 2)
        # For the evaluations of the same run.
        make_from_config(config, 2)
    assert [record.getMessage() for record in caplog.records] == [
        "Together-v0 is stepped with --vector sync: its vector version takes no max_episode_steps"
    ]
    assert lengths(made, 9) == [4, 4]
    # One who asks for a limit of an evaluation cannot say how its copies are stepped.
    evaluated = EnvConfig(env="Together-v0", vector="native", env_kwargs={"max_episode_steps": 3}).limited(4)
    assert lengths(make_from_config(evaluated, 2), 9) == [4, 4]


@pytest.mark.parametrize("frameskip", [None, 2])
def test_atari_counts_frames(frameskip: int | None) -> None:
    pytest.importorskip("ale_py")
    arguments = {} if frameskip is None else {"frameskip": frameskip}
    own = make_env("ALE/Pong-v5", num_envs=1, env_kwargs=arguments)
    assert own.spec.max_episode_steps == 108_000 // (frameskip or 4)
    made = make_env("ALE/Pong-v5", num_envs=2, env_kwargs=arguments, max_episode_steps=6)
    assert made.spec.max_episode_steps == 6
    assert lengths(made, 13) == [6, 6]


def test_a_pool_is_made_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """By what stands in for EnvPool: where its copies are in their episodes is all that it tells."""
    made: list[dict[str, Any]] = []

    def make_gymnasium(env: str, **arguments: Any) -> Any:
        made.append(arguments)
        config = {"max_num_players": 1, "max_episode_steps": arguments.get("max_episode_steps", 500)}
        spaces = {"observation_space": Forever.observation_space, "action_space": Forever.action_space}
        return SimpleNamespace(**spaces, config=config, num_envs=arguments["num_envs"], close=lambda: None)

    pool = SimpleNamespace(list_all_envs=lambda: ["Pool-v0"], make_gymnasium=make_gymnasium)
    monkeypatch.setitem(sys.modules, "envpool", pool)
    assert make_env("Pool-v0", num_envs=2, vector="envpool").spec.max_episode_steps == 500
    assert make_env("Pool-v0", num_envs=2, vector="envpool", max_episode_steps=7).spec.max_episode_steps == 7
    assert ["max_episode_steps" in arguments for arguments in made] == [False, True]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_episode_steps": 0}, "max_episode_steps = 0: must be at least 1"),
        ({"max_episode_steps": 10**9}, "max_episode_steps = 1000000000: must be at least 1 and at most"),
        ({"max_episode_steps": 2.5}, "max_episode_steps = 2.5: must be a whole number"),
        (
            {"max_episode_steps": 9, "env_kwargs": {"max_episode_steps": 3}},
            "max_episode_steps = 9: env_kwargs has max_episode_steps, which means the same; give one of them",
        ),
    ],
)
def test_bad_input(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EnvConfig(env="Five-v0", **settings)


def test_it_decides_what_is_learned_and_stays_on_resume(tmp_path: Path) -> None:
    settings = {"env": "Five-v0", "max_episode_steps": 3, "num_envs": 2, "num_steps": 8, "total_timesteps": 32}
    settings |= {"quiet": True, "picture": False, "run_dir": str(tmp_path / "run")}
    run(resolve([Layer(source="test", values=settings)]).config)
    with pytest.raises(ResumeError, match="max_episode_steps: 3, now 4"):
        resume_run(tmp_path / "run", [Layer(source="again", values={"max_episode_steps": 4})])

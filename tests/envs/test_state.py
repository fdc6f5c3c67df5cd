"""Where environments stand, taken and given back; and what happens when they raise."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Discrete

from esper.envs.base import EnvError, VectorEnv
from esper.envs.make import make_env
from esper.envs.making import flatten_observations
from esper.envs.snapshot import capture, restore

FAMILIES = ("gymnasium.envs.classic_control", "gymnasium.envs.mujoco")
# Gymnasium refuses Pusher-v4 with the MuJoCo of today; ids below v4 need a package that is no more.
KNOWN = sorted(
    name
    for name, spec in gymnasium.registry.items()
    if str(spec.entry_point).startswith(FAMILIES) and name not in ("Pusher-v4", "CartPole-v0")
)


def make(name: str) -> gymnasium.Env[Any, Any]:
    env: gymnasium.Env[Any, Any] = flatten_observations(gymnasium.make(name, disable_env_checker=True))
    return env


def walk(env: gymnasium.Env[Any, Any], actions: list[Any]) -> list[Any]:
    seen: list[Any] = []
    for action in actions:
        obs, reward, terminated, truncated, _ = env.step(action)
        seen += [obs.tobytes(), float(reward), terminated, truncated]
        if terminated or truncated:
            seen.append(env.reset()[0].tobytes())
    return seen


@pytest.mark.filterwarnings("ignore:.*out of date:DeprecationWarning", "ignore:.*out of date:UserWarning")
@pytest.mark.parametrize("name", KNOWN)
def test_a_restored_environment_goes_on_to_the_last_bit(name: str) -> None:
    env, other = make(name), make(name)
    env.action_space.seed(0)
    actions = [env.action_space.sample() for _ in range(400)]
    env.reset(seed=3)
    walk(env, actions[:150])
    other.reset(seed=4)
    walk(other, actions[:40])
    state = capture(env)
    assert state is not None
    restore(other, state)
    assert walk(other, actions[150:]) == walk(env, actions[150:])


def test_the_families_are_all_there() -> None:
    assert {"CartPole-v1", "MountainCarContinuous-v0", "HalfCheetah-v4", "Humanoid-v5"} <= set(KNOWN)


class Counter(gymnasium.Env[Any, Any]):
    """Counts to 5. With `own_state` it can tell and take its count; at `raise_at` it raises."""

    observation_space = Box(0, 10, (1,))
    action_space = Discrete(2)

    def __init__(self, *, own_state: bool = False, raise_at: int = -1, raise_in: int = -1) -> None:
        self.count, self.raise_at, self.index = 0, raise_at, raise_in
        if own_state:
            self.state_dict = lambda: {"count": self.count}
            self.load_state_dict = lambda state: setattr(self, "count", state["count"])

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.count = 0
        if seed is not None:
            self.seed = seed
        return np.zeros(1, dtype=np.float32), {}

    def step(self, action: Any) -> Any:
        if self.count == self.raise_at and self.seed == 10 + self.index:
            raise FileNotFoundError("no such track")
        self.count += 1
        return np.array([self.count], dtype=np.float32), 1.0, self.count == 5, False, {}


@pytest.fixture(autouse=True)
def counter() -> Iterator[None]:
    gymnasium.register("Counter-v0", entry_point=cast(Any, Counter))
    yield
    del gymnasium.registry["Counter-v0"]


def step_many(env: VectorEnv, steps: int) -> list[Any]:
    outcomes = []
    generator = np.random.default_rng(0)
    for _ in range(steps):
        step = env.step(generator.integers(2, size=env.spec.num_envs))
        outcomes.append([None if part is None else np.array(part).tolist() for part in step])
    return outcomes


class TestVectors:
    @pytest.mark.parametrize("vector", ["native", "sync", "async"])
    def test_go_on_to_the_last_bit(self, vector: Any) -> None:
        envs = [make_env("CartPole-v1", num_envs=3, vector=vector) for _ in range(2)]
        envs[0].reset(5)
        # 47 steps of random actions: native copies 0 and 2 are just being reset, the others are in their episodes.
        step_many(envs[0], 47)
        envs[1].reset(6)
        state = envs[0].state_dict()
        assert state is not None
        envs[1].load_state_dict(state)
        assert step_many(envs[1], 60) == step_many(envs[0], 60)
        for env in envs:
            env.close()

    def test_of_something_unknown_have_no_state(self) -> None:
        env = make_env("Counter-v0", num_envs=2)
        env.reset(0)
        assert env.state_dict() is None

    def test_an_environment_can_offer_its_own(self) -> None:
        env, other = (make_env("Counter-v0", num_envs=2, env_kwargs={"own_state": True}) for _ in range(2))
        for each in (env, other):
            each.reset(0)
        step_many(env, 3)
        state = env.state_dict()
        assert state is not None
        other.load_state_dict(state)
        assert step_many(other, 1)[0][0] == [[4.0], [4.0]]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda s: {**s, "copies": {}}, "states of 0 environments do not fit 2"),
            (lambda s: {**s, "resetting": np.zeros(3, dtype=bool)}, "resetting is bool"),
            (lambda s: {**s, "copies": {"0": {}, "1": {}}}, "state of 0 layers"),
            (lambda s: {**s, "copies": {k: {**v, "2": {}} for k, v in s["copies"].items()}}, "state of 3 layers"),
            (lambda s: changed(s, "mass", 1.0), "are not those of"),
            (lambda s: changed(s, "state", {"array": np.zeros(5)}), "state has 5 numbers; AcrobotEnv has 4"),
            (lambda s: changed(s, "state", {"code": "import os"}), "is not a state"),
        ],
    )
    def test_refuse_a_state_that_is_not_theirs(self, change: Any, message: str) -> None:
        env = make_env("Acrobot-v1", num_envs=2)
        env.reset(0)
        with pytest.raises(ValueError, match=message):
            env.load_state_dict(change(env.state_dict()))


def changed(state: Any, name: str, value: Any) -> Any:
    copy = state["copies"]["0"]
    depth = max(copy["env"])
    env = {**copy["env"], depth: {**copy["env"][depth], name: value}}
    return {**state, "copies": {**state["copies"], "0": {**copy, "env": env}}}


class TestErrors:
    @pytest.mark.filterwarnings("ignore")  # Gymnasium reports a worker's error as a warning too.
    @pytest.mark.parametrize("vector", ["sync", "async"])
    def test_name_the_copy_and_the_cause(self, vector: Any) -> None:
        env = make_env("Counter-v0", num_envs=3, vector=vector, env_kwargs={"raise_at": 2, "raise_in": 1})
        env.reset(10)
        step_many(env, 2)
        with pytest.raises(
            EnvError,
            match=r"environment 1 raised in a step: FileNotFoundError: no such track \(.*test_state.py, line \d+\)",
        ):
            step_many(env, 1)
        env.close()

    @pytest.mark.filterwarnings("ignore")
    def test_a_process_that_died_is_named(self) -> None:
        env: Any = make_env("CartPole-v1", num_envs=2, vector="async")
        env.reset(0)
        os.kill(env._env.processes[1].pid, signal.SIGKILL)
        env._env.processes[1].join()
        with pytest.raises(EnvError, match="the process of environment 1 was killed by SIG"):
            step_many(env, 1)
        env.close()

    def test_processes_live_on_when_the_terminal_interrupts_them(self) -> None:
        env: Any = make_env("CartPole-v1", num_envs=2, vector="async")
        env.reset(0)
        for process in env._env.processes:
            os.kill(process.pid, signal.SIGINT)
        assert len(step_many(env, 5)) == 5
        env.close()

    @pytest.mark.skipif(sys.platform != "linux", reason="asks the Linux kernel")
    def test_processes_do_not_outlive_a_killed_run(self) -> None:
        code = (
            "import time; from esper.envs.make import make_env; env = make_env('CartPole-v1', num_envs=2, "
            "vector='async'); print(*(process.pid for process in env._env.processes), flush=True); time.sleep(60)"
        )
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as run:
            assert run.stdout is not None
            workers = [int(pid) for pid in run.stdout.readline().split()]
            run.kill()
        assert len(workers) == 2
        deadline = time.monotonic() + 120
        while any(_runs(pid) for pid in workers):
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _runs(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False

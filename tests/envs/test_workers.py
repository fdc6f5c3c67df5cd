"""`--vector async`: environments in worker processes, several in each, learn what they learn in this process."""

from __future__ import annotations

import functools
import os
import re
import signal
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from test_given import LENGTH, MASKS, Walk

from esper.envs.base import EnvError, VectorEnv
from esper.envs.config import EnvConfig
from esper.envs.make import make_env
from esper.envs.workers import WorkerVectorEnv
from esper.runs.layers import Layer, SettingsError, resolve
from esper.settings.options import ConfigError

NUM_ENVS = 5


class Lengths(Walk):
    """A `Walk` of one to three steps, drawn by a generator, that says whether it succeeded; each object is counted."""

    action_space = spaces.Discrete(3)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        outcome = super().reset(seed=seed)
        self.length = int(self.np_random.integers(1, LENGTH + 1))
        return outcome

    def step(self, action: Any) -> Any:
        obs, reward, _, _, info = super().step(action)
        over = self.steps >= self.length
        return obs, reward, over and self.length % 2 == 0, over, {**info, "is_success": self.length > 1}


class Numbers(Walk):
    """Box actions, in a shape of their own."""

    action_space: Any = spaces.Box(-1, 1, (2, 2))

    def step(self, action: Any) -> Any:
        obs, _, terminated, truncated, info = super().step(0)
        return obs, float(action.sum()), terminated, truncated, info


class Pictures(Walk):
    observation_space: Any = spaces.Box(0, 255, (6, 5, 3), np.uint8)

    def outcome(self) -> Any:
        return self.np_random.integers(0, 256, (6, 5, 3), np.uint8), {}


def play(env: VectorEnv, num_steps: int = 12) -> list[Any]:
    """All that a learner sees in steps with random actions, and the states after them."""
    rng = np.random.default_rng(3)
    seen: list[Any] = [env.reset(11).copy()]
    for _ in range(num_steps):
        masks = env.action_masks
        actions = rng.normal(size=(NUM_ENVS, 4)) if env.spec.action_bounds else rng.integers(0, 3, NUM_ENVS)
        step = env.step(actions.astype(np.float32) if env.spec.action_bounds else actions)
        seen += [None if masks is None else masks.copy()]
        seen += [None if field is None else np.array(field) for field in step]
    return [*seen, env.state_dict()]


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "classic control": ("Acrobot-v1", {"max_episode_steps": 4}),
    "lengths": (Lengths, {}),
    "masks": (Walk, {"env_kwargs": {"masks": MASKS}}),
    "numbers": (Numbers, {}),
    "pictures": (Pictures, {}),
}


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_the_same_as_in_this_process(kind: str, workers: int) -> None:
    env, settings = KINDS[kind]
    here = make_env(env, num_envs=NUM_ENVS, vector="sync", **settings)
    there = make_env(env, num_envs=NUM_ENVS, vector="async", env_workers=workers, **settings)
    try:
        assert here.spec == there.spec
        expected, found = play(here), play(there)
        assert any(each is not None for each in expected[3::8]), "no episode ended"
        for one, other in zip(expected[:-1], found[:-1], strict=True):
            np.testing.assert_array_equal(one, other)
            assert one is None or (one.dtype, one.shape) == (other.dtype, other.shape)
    finally:
        there.close()


@pytest.fixture
def split() -> Iterator[Any]:
    """Five environments in two processes."""
    env = make_env("Acrobot-v1", num_envs=NUM_ENVS, vector="async", env_workers=2)
    yield env
    env.close()


def test_neighbours_share_a_process(split: Any) -> None:
    assert isinstance(split._env, WorkerVectorEnv)
    assert split._env.groups == [range(3), range(3, 5)]
    assert len(split._env.processes) == 2
    assert split._env.get_attr("env_index") == (0, 1, 2, 3, 4)


def test_a_state_is_taken_and_given_across_any_number_of_processes(split: Any) -> None:
    split.reset(5)
    actions = np.arange(NUM_ENVS) % 3
    split.step(actions)
    state = split.state_dict()
    expected = [split.step(actions).obs.copy() for _ in range(4)]
    other = make_env("Acrobot-v1", num_envs=NUM_ENVS, vector="async", env_workers=5)
    other.reset(0)
    other.load_state_dict(state)
    np.testing.assert_array_equal(expected, [other.step(actions).obs.copy() for _ in range(4)])
    other.close()


def test_actions_and_observations_may_be_kept(split: Any) -> None:
    class Keeps(Walk):
        first: Any = None

        def step(self, action: Any) -> Any:
            self.first = action if self.steps == 0 else self.first
            obs, _, terminated, truncated, info = super().step(action)
            return obs, float(self.first), terminated, truncated, info

    env = make_env(Keeps, num_envs=2, vector="async", env_workers=1)
    obs = env.reset(0)
    kept = obs.copy()
    first = env.step(np.array([1, 2]))
    reward = first.reward
    env.step(np.array([0, 0]))
    assert env.step(np.array([0, 0])).reward.tolist() == [1, 2]
    assert reward.tolist() == [1, 2]
    np.testing.assert_array_equal(obs, kept)
    env.close()


def fails(*right: Any) -> Any:
    raise ZeroDivisionError("no such step")


def breaks(odd: Any, at: int) -> Any:
    """`Walk`s of which the one at index `at` is odd."""
    made = iter(range(100))
    # The first one is made for its spaces, in this process.
    return lambda: Walk(odd=odd if next(made) == at + 1 else None)


def test_an_error_names_the_environment_and_has_the_traceback_of_its_process() -> None:
    env = make_env(breaks(fails, 3), num_envs=4, vector="async", env_workers=1)
    env.reset(0)
    env.step(np.zeros(4, np.int64))
    place = r"test_workers.py, line \d+"
    with pytest.raises(EnvError, match=rf"environment 3 raised in a step: ZeroDivisionError: no such step \(.*{place}"):
        env.step(np.zeros(4, np.int64))
    env.close()


def test_the_traceback_is_a_note() -> None:
    env = make_env(breaks(fails, 1), num_envs=2, vector="async", env_workers=1)
    env.reset(0)
    env.step(np.zeros(2, np.int64))
    with pytest.raises(EnvError) as error:
        env.step(np.zeros(2, np.int64))
    (note,) = error.value.__notes__
    assert note.startswith("In the worker process:\n")
    assert re.search(r"in fails\n.*no such step", note)
    env.close()


@pytest.mark.parametrize(("process", "named"), [(0, "environments 0 to 2"), (1, "environments 3 to 4")])
def test_a_killed_process_is_named(split: Any, process: int, named: str) -> None:
    split.reset(0)
    os.kill(split._env.processes[process].pid, signal.SIGKILL)
    with pytest.raises(EnvError, match=f"the process of {named} was killed by SIGKILL"):
        split.step(np.zeros(NUM_ENVS, np.int64))


class Dies(Walk):
    def __init__(self, parent: int) -> None:
        super().__init__()
        if os.getpid() != parent:
            os._exit(3)


def test_a_process_that_dies_in_a_constructor_is_named_and_none_is_left() -> None:
    make = functools.partial(Dies, os.getpid())
    with pytest.raises(EnvError, match=r"the process of environments? 0.* has died in its constructor"):
        make_env(make, num_envs=4, vector="async", env_workers=2)
    assert not _children()


def test_closing_leaves_no_process(split: Any) -> None:
    processes = split._env.processes
    split.reset(0)
    split.close()
    assert not any(process.is_alive() for process in processes)


def _children() -> list[str]:
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        with open(f"/proc/{os.getpid()}/task/{os.getpid()}/children") as file:
            children = [pid for pid in file.read().split() if _is_worker(pid)]
        if not children:
            return []
        time.sleep(0.05)
    return children


def _is_worker(pid: str) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_settings_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"env_workers = 2: needs vector = async, not sync"):
        EnvConfig(vector="sync", env_workers=2)
    with pytest.raises(ConfigError, match=r"env_workers"):
        EnvConfig(vector="async", env_workers=0)
    values = {"vector": "async", "env_workers": 9, "num_envs": 8}
    with pytest.raises(SettingsError, match=r"env_workers = 9.*must be at most num_envs, 8"):
        resolve([Layer(source="flags", values=values)])

"""Every space of fixed size, in every vector mode, is what a plain loop over single environments makes of it."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.spaces.utils import flatten
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from gymnasium.vector.utils import concatenate, create_empty_array

from esper.envs.base import EnvError
from esper.envs.make import make_env
from esper.envs.observations import channels_first, is_image
from esper.settings.options import ConfigError

NUM_ENVS = 3
LENGTH = 3


class Draws(gymnasium.Env[Any, Any]):
    """Observations that its seed draws from a space; episodes of 3 steps."""

    def __init__(self, space: spaces.Space[Any], action_space: Any = None) -> None:
        self.observation_space, self.action_space = space, spaces.Discrete(2) if action_space is None else action_space
        self.taken: list[Any] = []

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if seed is not None:
            self.observation_space.seed(seed)
        self.steps = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.taken.append(action)
        return self.observation_space.sample(), 1.0, self.steps == LENGTH, False, {}


class DrawsAtOnce(VectorEnv[Any, Any, Any]):
    """The same of copies together, with final observations as objects, or as one batch."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012

    def __init__(self, num_envs: int, space: spaces.Space[Any], batch: bool = False, wrong: Any = None) -> None:
        self.num_envs, self.batch, self.wrong = num_envs, batch, wrong
        self.copies = [Draws(_again(space)) for _ in range(num_envs)]
        self.single_observation_space, self.single_action_space = space, spaces.Discrete(2)

    def together(self, observations: list[Any]) -> Any:
        empty: Any = create_empty_array(self.single_observation_space, self.num_envs)
        return concatenate(self.single_observation_space, observations, empty)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        return self.together([each.reset(seed=seed + i)[0] for i, each in enumerate(self.copies)]), {"odd": object()}

    def step(self, actions: Any) -> Any:
        last = [each.step(0)[0] for each in self.copies]
        done, none = np.full(self.num_envs, self.copies[0].steps == LENGTH), np.zeros(self.num_envs, bool)
        obs, info = self.together(last), {}
        if done[0]:
            objects = np.full(self.num_envs, None, dtype=object)
            for i, final in enumerate(last):
                objects[i] = final
            info = {"final_obs": obs if self.batch else objects}
            obs = self.together([each.reset()[0] for each in self.copies])
        right = (obs, np.ones(self.num_envs), done, none, info)
        return right if self.wrong is None else self.wrong(*right)


def _again(space: spaces.Space[Any]) -> Any:
    """A space of its own for each copy, as each has its own generator."""
    return copy.deepcopy(space)


def make_draws(space: Any, action_space: Any = None) -> Draws:
    return Draws(_again(space), action_space)


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    gymnasium.register("Draws-v0", entry_point=cast(Any, make_draws), vector_entry_point=cast(Any, DrawsAtOnce))
    gymnasium.register("TheirSync-v0", vector_entry_point=cast(Any, their_sync))
    yield
    del gymnasium.registry["Draws-v0"], gymnasium.registry["TheirSync-v0"]


def their_sync(num_envs: int, space: Any, mode: str = "SameStep") -> SyncVectorEnv:
    """A vector environment of Gymnasium's that somebody else has made."""
    makers = [lambda: make_draws(space)] * num_envs
    return SyncVectorEnv(makers, autoreset_mode=AutoresetMode(mode))


def random_space(rng: np.random.Generator, depth: int) -> Any:
    shape = tuple(map(int, rng.integers(1, 4, rng.integers(0, 4))))
    kinds = ["box", "whole", "discrete", "choices", "table", "binary", "bits", *["dict", "tuple"] * (2 if depth else 0)]
    match kinds[int(rng.integers(len(kinds)))]:
        case "box":
            return spaces.Box(-9, 9, shape, dtype=[np.float32, np.float64, np.float16][rng.integers(3)])
        case "whole":
            return spaces.Box(0, 100, shape, dtype=[np.uint8, np.int8, np.uint16, np.int32, np.int64][rng.integers(5)])
        case "discrete":
            return spaces.Discrete(
                int(rng.integers(1, 9)), start=int(rng.integers(-5, 5)), dtype=[np.int32, np.int64][rng.integers(2)]
            )
        case "choices":
            nvec = rng.integers(1, 5, int(rng.integers(1, 4)))
            return spaces.MultiDiscrete(nvec, start=rng.integers(-3, 3, len(nvec)))
        case "table":
            return spaces.MultiDiscrete(rng.integers(1, 5, (2, 3)), dtype=np.int32)
        case "binary":
            return spaces.MultiBinary(int(rng.integers(1, 5)))
        case "bits":
            return spaces.MultiBinary([2, 3])
        case "dict":
            return spaces.Dict({name: random_space(rng, depth - 1) for name in "cab"[: rng.integers(1, 4)]})
        case _:
            return spaces.Tuple([random_space(rng, depth - 1) for _ in range(rng.integers(1, 4))])


def loop(space: Any, num_steps: int) -> list[np.ndarray]:
    """What is acted on, [N, D] each, and what episodes ended with."""
    copies = [make_draws(space) for _ in range(NUM_ENVS)]
    seen = [[flatten(space, each.reset(seed=7 + i)[0]) for i, each in enumerate(copies)]]
    for _ in range(num_steps):
        outcomes = [each.step(0) for each in copies]
        seen.append([flatten(space, outcome[0]) for outcome in outcomes])
        if outcomes[0][2]:
            seen.append([flatten(space, each.reset()[0]) for each in copies])
    return [np.array(rows, dtype=np.float32) for rows in seen]


def played(space: Any, num_steps: int, vector: Any, env: str = "Draws-v0", **kwargs: Any) -> list[np.ndarray]:
    made = make_env(env, num_envs=NUM_ENVS, vector=vector, env_kwargs={"space": space, **kwargs})
    seen = [made.reset(7).copy()]
    in_a_step = made.spec.resets_in_a_step
    for _ in range(num_steps + in_a_step * num_steps // LENGTH):
        step = made.step(np.zeros(NUM_ENVS, np.int64))
        # Where the next step resets, `obs` is the final observation, too.
        seen += [obs.copy() for obs in (None if in_a_step else step.final_obs, step.obs) if obs is not None]
    made.close()
    return seen


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "number" in metafunc.fixturenames:
        metafunc.parametrize("number", range(100 if metafunc.config.getoption("--all") else 30))


def test_observations_are_those_of_a_plain_loop(number: int) -> None:
    space = random_space(np.random.default_rng(number), depth=2 if number % 3 else 3)
    modes: list[tuple[Any, dict[str, Any]]] = [("sync", {}), ("async", {}), ("native", {}), ("native", {"batch": True})]
    modes += [("native", {"env": "TheirSync-v0", "mode": mode}) for mode in ("SameStep", "NextStep")]
    expected = loop(space, 2 * LENGTH)
    for vector, kwargs in modes:
        for ours, theirs in zip(played(space, 2 * LENGTH, vector, **kwargs), expected, strict=True):
            assert ours.dtype == (np.uint8 if is_image(space) else np.float32)
            flat = np.moveaxis(ours, 1, -1) if is_image(space) and not channels_first(space) else ours
            np.testing.assert_array_equal(flat.reshape(NUM_ENVS, -1), theirs)


VARIABLE = {
    "Sequence": spaces.Sequence(spaces.Discrete(2)),
    "Graph": spaces.Graph(spaces.Box(0, 1, (1,)), None),
    "Text": spaces.Text(5),
    "OneOf": spaces.OneOf([spaces.Discrete(2), spaces.Box(0, 1, (1,))]),
}


@pytest.mark.parametrize("vector", ["sync", "async", "native"])
@pytest.mark.parametrize("name", VARIABLE)
def test_spaces_without_a_fixed_size_are_refused_by_name(name: str, vector: Any) -> None:
    nested = spaces.Dict(b=spaces.Box(0, 1), deep=spaces.Tuple([spaces.Discrete(2), spaces.Dict(x=VARIABLE[name])]))
    for space, where in ((VARIABLE[name], ""), (nested, "at 'deep', at 1, at 'x', ")):
        message = f"env = Draws-v0: has observations that cannot become a vector: {where}there is a {name};"
        with pytest.raises(ConfigError, match=re.escape(message)):
            make_env("Draws-v0", num_envs=2, vector=vector, env_kwargs={"space": space})


@pytest.mark.parametrize("vector", ["sync", "native"])
def test_observations_without_numbers_are_refused(vector: Any) -> None:
    for space in (spaces.Box(0, 1, (0,)), spaces.Box(0, 1, (2, 0))):
        with pytest.raises(ConfigError, match="env = Draws-v0: has empty observations"):
            make_env("Draws-v0", num_envs=2, vector=vector, env_kwargs={"space": space})


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda *right: right[:4], "step returned a tuple of 4 values; Gymnasium requires a tuple of observation, rew"),
        (
            lambda obs, *rest: (obs[:2], *rest),
            "step returned a batch of observations that is an array of int64 [2]; its space has",
        ),
        (lambda obs, *rest: (obs + 9, *rest), "that is not in its space, MultiDiscrete([4 4 4]"),
        (lambda obs, reward, *rest: (obs, reward[:, None], *rest), "an array of float64 [3, 1] as reward; Gymnasium"),
        (lambda obs, reward, *rest: (obs, None, *rest), "step returned None as reward; Gymnasium requires [3]"),
        (lambda o, r, end, cut, i: (o, r, None, cut, i), "step returned None as terminated; Gymnasium requires [3]"),
        (lambda o, r, end, cut, i: (o, r, end, cut + 2, i), "numbers other than 0 and 1 as truncated"),
        (lambda o, r, end, cut, i: (o, r, ~end, cut, None), "step returned no final_obs in info where an episode"),
        (lambda o, r, end, cut, i: (o, r, ~end, cut, {"final_obs": [None] * 3}), "is a list of 3 values; its space"),
    ],
)
def test_what_a_native_version_returns_wrongly_is_named(wrong: Any, message: str) -> None:
    env = make_env("Draws-v0", num_envs=3, env_kwargs={"space": spaces.Discrete(4), "wrong": wrong})
    env.reset(0)
    with pytest.raises(EnvError, match="3 environments together break Gymnasium's rules: ") as error:
        env.step(np.zeros(3, np.int64))
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda obs, *rest: (obs[:, :2], *rest), "an array of uint8 [3, 2]; its space has the shape [3, 4]"),
        (lambda obs, *rest: (obs + 0.5, *rest), "has float64 numbers that its space, of uint8, cannot hold"),
    ],
)
def test_arrays_of_a_native_version_are_looked_at(wrong: Any, message: str) -> None:
    space = spaces.Box(0, 9, (4,), np.uint8)
    env = make_env("Draws-v0", num_envs=3, env_kwargs={"space": space, "wrong": wrong})
    env.reset(0)
    with pytest.raises(EnvError, match=re.escape(message)):
        env.step(np.zeros(3, np.int64))


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(4, start=5, dtype=np.int32), [0, 3]),
        (spaces.Discrete(4, start=-2), [0, 3]),
        (spaces.Discrete(200, start=50, dtype=np.uint8), [0, 199]),
        (spaces.MultiDiscrete([3, 2], start=[1, -1], dtype=np.int32), [[0, 0], [2, 1]]),
        (spaces.MultiDiscrete(np.array([[3, 2]]), dtype=np.int8), [[0, 0], [2, 1]]),
        (spaces.MultiBinary(2), [[0, 1], [1, 1]]),
        (spaces.Box(-1, 1, (2,), dtype=np.float32), [[-9.0, 0.5], [9.0, 0.1]]),
        (spaces.Box(-1, np.inf, (1, 2), dtype=np.float64), [[-9.0, 0.5], [9.0, 0.1]]),
        (spaces.Box(*np.array([[0.1, -1], [0.3, 1]], np.float16), dtype=np.float16), [[-9.0, 0.5], [9.0, 0.1]]),
    ],
    ids=str,
)
def test_actions_are_elements_of_their_space(space: Any, actions: Any, vector: Any) -> None:
    kwargs = {"space": spaces.Box(0, 1), "action_space": space}
    env = make_env("Draws-v0", num_envs=2, vector=vector, env_kwargs=kwargs)
    env.reset(0)
    env.step(np.array(actions, dtype=np.float32 if isinstance(space, spaces.Box) else np.int64))
    for (action,) in env._env.get_attr("taken"):  # type: ignore[attr-defined]
        assert space.contains(action)
        assert action.dtype == space.dtype
    env.close()


@pytest.mark.parametrize("vector", ["sync", "async"])
@pytest.mark.parametrize(
    ("space", "message"),
    [
        (spaces.Box(-1, 1, (0,)), "has empty actions: its space is Box"),
        (spaces.Box(-1, 1, (2, 0)), "has empty actions: its space is Box"),
        (spaces.Box(0, 5, (2,), dtype=np.int64), "is an action space that is not supported; Discrete, MultiDiscrete,"),
        (spaces.Dict(a=spaces.Discrete(2)), "is an action space that is not supported"),
        (spaces.Tuple([spaces.Discrete(2)]), "is an action space that is not supported"),
    ],
    ids=str,
)
def test_actions_that_cannot_be_chosen_are_refused_when_it_is_made(space: Any, message: str, vector: Any) -> None:
    kwargs = {"space": spaces.Box(0, 1), "action_space": space}
    with pytest.raises(ConfigError, match=message) as error:
        make_env("Draws-v0", num_envs=2, vector=vector, env_kwargs=kwargs)
    assert str(error.value).startswith("env = Draws-v0: ")


class Far(gymnasium.Env[Any, Any]):
    """Sees a number that float32 does not hold."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return np.array([1e300, 0.0]), {}

    def step(self, action: Any) -> Any:
        return np.array([-1e300, 0.0]), 0.0, False, False, {}


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_numbers_beyond_float32_are_infinite_without_a_warning(mode: Any) -> None:
    env = make_env(SyncVectorEnv([Far, Far], autoreset_mode=mode))
    assert env.reset(1)[:, 0].tolist() == [np.inf, np.inf]
    assert env.step(np.zeros(2, np.int64)).obs[:, 0].tolist() == [-np.inf, -np.inf]

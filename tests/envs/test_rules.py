"""Environments that break Gymnasium's rules are named: which copy, which call, what came, what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import gymnasium
import numpy as np
import pytest
from gymnasium.spaces import Box, Dict, Discrete, MultiDiscrete, Space, Text, Tuple

from esper.envs.base import EnvError
from esper.envs.make import make_env
from esper.envs.rules import conformed
from esper.scripts.train import main

SPACES: dict[str, Space[Any]] = {
    "vector": Box(-9, 9, (3,)),
    "matrix": Box(-9, 9, (2, 2)),
    "image": Box(0, 255, (4, 4, 3), np.uint8),
    "whole": Box(0, 9, (2,), np.int8),
    "choice": Discrete(3, start=5),
    "choices": MultiDiscrete([2, 3]),
    "dict": Dict(a=Box(-1, 1, (2,)), b=Discrete(2)),
    "tuple": Tuple((Box(-1, 1, (2,)), Discrete(2))),
}
GOOD: dict[str, Any] = {
    "vector": np.zeros(3, np.float32),
    "matrix": np.zeros((2, 2), np.float32),
    "image": np.zeros((4, 4, 3), np.uint8),
    "whole": np.zeros(2, np.int8),
    "choice": 6,
    "choices": np.array([1, 2]),
    "dict": {"a": np.zeros(2, np.float32), "b": 1},
    "tuple": (np.zeros(2, np.float32), 1),
}


class Breaks(gymnasium.Env[Any, Any]):
    """Its second copy does what `wrong` makes of what it should return in `call`, from the second step on."""

    action_space = Discrete(2)

    def __init__(self, space: str = "vector", call: str = "step", wrong: Any = None, limit: bool = False) -> None:
        self.observation_space = SPACES[space]
        self.good, self.call, self.wrong = GOOD[space], call, wrong
        self.index = self.steps = 0

    def outcome(self, call: str, *right: Any) -> Any:
        odd = self.index == 1 and self.call == call and (call == "reset" or self.steps > 1)
        return self.wrong(*right) if odd else right

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.index = self.index if seed is None else seed % 2
        return self.outcome("reset", self.good, {})

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self.outcome("step", self.good, 1.0, False, False, {})


class Old(Breaks):
    """As gym had it: no seed."""

    def reset(self) -> Any:  # type: ignore[override]
        return self.good


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    # A time limit is a wrapper of Gymnasium's that would fail at what is to be named.
    gymnasium.register("Breaks-v0", entry_point=cast(Any, Breaks), max_episode_steps=50)
    gymnasium.register("Old-v0", entry_point=cast(Any, Old), max_episode_steps=50)
    yield
    del gymnasium.registry["Breaks-v0"], gymnasium.registry["Old-v0"]


def play(vector: Any, **kwargs: Any) -> list[Any]:
    env = make_env("Breaks-v0", num_envs=2, env_kwargs=kwargs, vector=vector)
    try:
        return [env.reset(0), *(env.step(np.zeros(2, np.int64)) for _ in range(3))]
    finally:
        env.close()


def reward(value: Any) -> Any:
    return lambda obs, reward, terminated, truncated, info: (obs, value, terminated, truncated, info)


def end(value: Any) -> Any:
    return lambda obs, reward, terminated, truncated, info: (obs, reward, value, truncated, info)


def cut(value: Any) -> Any:
    return lambda obs, reward, terminated, truncated, info: (obs, reward, terminated, value, info)


def seen(value: Any) -> Any:
    return lambda obs, *rest: (value, *rest)


STEP = "Gymnasium requires a tuple of observation, reward, terminated, truncated, info"
RESET = "Gymnasium requires a tuple of observation, info"
WRONG: list[tuple[str, str, Any, str]] = [
    ("vector", "step", lambda *right: right[:4], f"step returned a tuple of 4 values; {STEP}"),
    ("vector", "step", lambda *right: None, f"step returned None; {STEP}"),
    ("vector", "step", lambda *right: right[0], f"step returned an array of float32 [3]; {STEP}"),
    ("vector", "step", reward(None), "step returned None as reward; Gymnasium requires a number"),
    ("vector", "step", reward("much"), "step returned 'much' as reward; Gymnasium requires a number"),
    ("vector", "step", reward(np.ones(2)), "step returned an array of float64 [2] as reward; Gymnasium requires a"),
    ("vector", "step", reward({}), "step returned a value of type dict as reward"),
    ("vector", "step", reward([[1], [1, 2]]), "step returned a list of 2 values as reward"),
    ("vector", "step", reward(1j), "step returned a value of type complex as reward"),
    ("vector", "step", end(None), "step returned None as terminated; Gymnasium requires True or False"),
    ("vector", "step", end("no"), "step returned 'no' as terminated"),
    ("vector", "step", end(np.zeros(2, bool)), "step returned an array of bool [2] as terminated"),
    ("vector", "step", cut({"TimeLimit.truncated": True}), "step returned a value of type dict as truncated"),
    ("vector", "step", cut(2), "step returned 2 as truncated"),
    (
        "vector",
        "step",
        lambda *right: (*right[:4], None),
        "step returned None as info; Gymnasium requires a dictionary",
    ),
    ("vector", "step", seen(None), "step returned an observation that is None; its space has the shape [3]"),
    (
        "vector",
        "step",
        seen(np.zeros(4)),
        "an observation that is an array of float64 [4]; its space has the shape [3]",
    ),
    ("vector", "step", seen(np.zeros((1, 3))), "is an array of float64 [1, 3]; its space has the shape [3]"),
    ("vector", "step", seen([1, "a", 2]), "an observation that is a list of 3 values; its space has the shape [3]"),
    ("matrix", "step", seen(np.zeros(4)), "is an array of float64 [4]; its space has the shape [2, 2]"),
    ("image", "step", seen(np.full((4, 4, 3), 0.5)), "has float64 numbers that its space, of uint8, cannot hold"),
    ("whole", "step", seen(np.array([0, 300])), "has int64 numbers that its space, of int8, cannot hold"),
    ("whole", "step", seen(np.array([0, np.nan])), "has float64 numbers that its space, of int8, cannot hold"),
    ("choice", "step", seen(2), "an observation that is 2; that is not in its space, Discrete(3, start=5)"),
    ("choice", "step", seen(8), "an observation that is 8; that is not in its space, Discrete(3, start=5)"),
    ("choice", "step", seen(5.5), "an observation that is 5.5; its space, Discrete(3, start=5), has whole numbers"),
    ("choices", "step", seen([0, -1]), "that is [0, -1]; that is not in its space, MultiDiscrete([2 3])"),
    ("dict", "step", seen({"a": np.zeros(2)}), "an observation that has the keys ['a']; its space has ['a', 'b']"),
    ("dict", "step", seen(np.zeros(3)), "an observation that is an array of float64 [3]; its space is a Dict"),
    ("dict", "step", seen({"a": 0, "b": 0}), "an observation that at 'a' is 0; its space has the shape [2]"),
    ("tuple", "step", seen((np.zeros(2),)), "an observation that is a tuple of 1 value; its space is a Tuple of 2"),
    ("tuple", "step", seen((np.zeros(2), "x")), "an observation that at 1 is 'x'; its space, Discrete(2), has whole"),
    ("vector", "reset", lambda *right: right[0], f"reset returned an array of float32 [3]; {RESET}"),
    ("dict", "reset", lambda *right: right[0], f"reset returned a value of type dict; {RESET}"),
    ("tuple", "reset", lambda *right: right[0], "reset returned 1 as info; Gymnasium requires a dictionary"),
    ("vector", "reset", lambda *right: (*right, 0), f"reset returned a tuple of 3 values; {RESET}"),
    ("vector", "reset", seen(np.zeros(2)), "reset returned an observation that is an array of float64 [2]; its space"),
]


@pytest.mark.parametrize(("space", "call", "wrong", "message"), WRONG)
def test_what_is_wrong_is_named(space: str, call: str, wrong: Any, message: str) -> None:
    with pytest.raises(EnvError) as error:
        play("sync", space=space, call=call, wrong=wrong)
    assert str(error.value).startswith("environment 1 breaks Gymnasium's rules: ")
    assert message in str(error.value)


@pytest.mark.parametrize(("space", "call", "wrong", "message"), WRONG[::7])
def test_what_is_wrong_in_a_process_is_named(space: str, call: str, wrong: Any, message: str) -> None:
    with pytest.raises(EnvError) as error:
        play("async", space=space, call=call, wrong=wrong)
    assert str(error.value).startswith("environment 1 breaks Gymnasium's rules: ")
    assert message in str(error.value)


def test_a_reset_without_a_seed_is_of_an_old_interface(capsys: pytest.CaptureFixture[str], tmp_path: Any) -> None:
    with pytest.raises(SystemExit) as exit:
        main(["ppo", "--env", "Old-v0", "--quiet", "--run-dir", str(tmp_path / "run")])
    assert exit.value.code == 1
    rules = "environment 0 breaks Gymnasium's rules"
    message = f"{rules}: reset takes no seed and options; Gymnasium requires both, by name"
    assert capsys.readouterr().err == f"esper ppo: error: {message}\n"


@pytest.mark.parametrize(
    ("space", "wrong", "reward", "ended"),
    [
        ("vector", reward(np.array([2.5])), 2.5, False),
        ("vector", reward(np.float16(2.5)), 2.5, False),
        ("vector", reward(np.array(2)), 2.0, False),
        ("vector", reward(True), 1.0, False),
        ("vector", reward(float("nan")), float("nan"), False),
        ("vector", end(np.True_), 1.0, True),
        ("vector", end(np.array([1])), 1.0, True),
        ("vector", cut(1), 1.0, True),
        ("vector", lambda *right: list(right), 1.0, False),
        ("vector", seen([0.0, 0.0, 0.0]), 1.0, False),
        ("vector", seen(np.zeros(3)), 1.0, False),
        ("vector", seen(np.array([0, np.nan, np.inf])), 1.0, False),
        ("image", seen(np.zeros((4, 4, 3))), 1.0, False),
        ("whole", seen([1.0, 2.0]), 1.0, False),
        ("choice", seen(np.array([5])), 1.0, False),
        ("choice", seen(7.0), 1.0, False),
        ("choices", seen((1, 2)), 1.0, False),
        ("dict", seen({"b": np.int8(1), "a": (0, 0), "more": None}), 1.0, False),
        ("tuple", seen([[0, 0], 1]), 1.0, False),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value encountered in cast")
def test_what_is_unambiguous_is_taken(space: str, wrong: Any, reward: float, ended: bool) -> None:
    *_, step = play("sync", space=space, wrong=wrong)
    np.testing.assert_array_equal(step.reward, [1.0, reward])
    assert (step.terminated | step.truncated).tolist() == [False, ended]
    assert len(step.obs) == 2


def test_a_text_is_left_to_the_wrapper_that_leaves_it_out() -> None:
    space = Dict(seen=SPACES["vector"], text=Text(3))
    assert conformed(space, {"seen": [1, 2, 3], "text": "far too long"}, "it")["text"] == "far too long"

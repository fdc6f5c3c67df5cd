"""Environments that misbehave in a call, in a way, and at a moment that their arguments say.

`cases()` has each call with each kind of wrong value, in every vector mode.
"""

from __future__ import annotations

import dataclasses
import itertools
import multiprocessing
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Discrete
from gymnasium.vector import AutoresetMode, VectorEnv
from odd_attributes import ATTRIBUTES, TOGETHER, made_instead
from wrong_values import ENDS, INFOS, OBSERVATIONS, OUTCOMES, RAISED, REWARDS, Value

LENGTH = 5  # of an episode
PARTS: dict[str, tuple[str, ...]] = {
    "reset": ("observation", "info"),
    "step": ("observation", "reward", "terminated", "truncated", "info"),
}
VALUES: dict[str, dict[str, Value]] = {
    "observation": OBSERVATIONS,
    "reward": REWARDS,
    "terminated": ENDS,
    "truncated": ENDS,
    "info": INFOS,
    "final_obs": OBSERVATIONS,
    "outcome": OUTCOMES,
}
made = itertools.count()


@dataclass(frozen=True)
class Case:
    """In `call`, at a moment `when`, `part` of what is returned is of a `kind`; or it raises, exits, hangs."""

    mode: str
    call: str
    part: str
    kind: str
    when: str

    def __str__(self) -> str:
        return "-".join(dataclasses.astuple(self)).replace(" ", "_")

    @property
    def ends(self) -> bool | None:
        """Whether it ends the run; None where either is right."""
        if self.part == "attribute":
            return (TOGETHER if self.mode == "native" else ATTRIBUTES)[self.kind].ends
        if self.part in ("raise", "exit", "hang"):
            return self.call != "close"
        if self.part not in VALUES:
            return None
        ends = VALUES[self.part][self.kind].ends
        if ends == "either" or self.call in ("action_masks", "state_dict"):
            return None
        if self.mode != "native":
            return ends in ("all", "copies")
        if self.when == "copy 1":
            return None
        return ends in ("all", "together") or (ends == "copies" and (self.call, self.when) == ("step", "end"))


class Odd:
    """What both kinds of environments have: whether it is time, and what is returned then."""

    index = 0

    def plan(self, call: str = "", part: str = "", kind: str = "", when: str = "") -> None:
        self.call, self.part, self.kind, self.when = call, part, kind, when
        self.steps = self.age = 0

    def due(self, call: str) -> bool:
        if call != self.call:
            return False
        return {
            "copy 1": self.index == 1 or isinstance(self, VectorEnv),
            "step 7": self.steps == 7,
            "end": self.age == LENGTH,
            "after a reset": self.steps > LENGTH and self.age == 1,
            "later": self.steps > 0,
        }.get(self.when, True)

    def misbehave(self, call: str) -> None:
        """Where nothing is returned that is of use."""
        if not self.due(call):
            return
        if self.part == "raise":
            raise RAISED[self.kind]()
        if self.part == "exit":
            os._exit(7)
        if self.part == "hang":
            time.sleep(1000)

    def outcome(self, call: str, *right: Any) -> Any:
        self.misbehave(call)
        if not self.due(call) or self.part not in VALUES:
            return right
        make = VALUES[self.part][self.kind].make
        if self.part == "outcome":
            return make(right)
        if self.part == "final_obs":
            info = {"final_obs": self.of_one(make, right[-1]["final_obs"])} if right[-1] else {}
            return (*right[:-1], info)
        index = PARTS[call].index(self.part)
        return (*right[:index], self.of_one(make, right[index]), *right[index + 1 :])

    def of_one(self, make: Any, right: Any) -> Any:
        """Of copies that are stepped together, one can be the odd one."""
        if isinstance(self, VectorEnv) and self.when == "copy 1" and self.part != "info":
            return [right[0], make(right[1])]
        return make(right)


class Misbehaves(Odd, gymnasium.Env[Any, Any]):
    """Episodes of 5 steps; its policy is rewarded for the second action."""

    observation_space = Box(-1, 1, (3,))
    action_space = Discrete(2)
    metadata = {"render_modes": ["rgb_array"]}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **plan: str) -> None:
        self.render_mode = render_mode
        self.plan(**plan)
        name = multiprocessing.current_process().name
        self.index = int(name.rpartition("-")[2]) if name.startswith("Worker") else next(made)
        self.misbehave("constructor")

    def observation(self) -> Any:
        return np.full(3, self.age / LENGTH, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.age = 0
        return self.outcome("reset", self.observation(), {})

    def step(self, action: Any) -> Any:
        self.steps += 1
        self.age += 1
        return self.outcome("step", self.observation(), float(action), self.age == LENGTH, False, {})

    def render(self) -> Any:
        frame = np.zeros((8, 8, 3), np.uint8)
        self.misbehave("render")
        return VALUES["observation"][self.kind].make(frame) if self.call == "render" and self.part != "raise" else frame

    def close(self) -> None:
        self.misbehave("close")


class States(Odd):
    """It tells where it stands."""

    def state_dict(self) -> Any:
        self.misbehave("state_dict")
        state = {"age": self.age, "steps": self.steps}
        wrong = self.due("state_dict") and self.part == "outcome"
        return OUTCOMES[self.kind].make((state, 1)) if wrong else state

    def load_state_dict(self, state: Any) -> None:
        self.misbehave("load_state_dict")
        self.age, self.steps = state["age"], state["steps"]


class Stateful(States, Misbehaves):
    pass


class Masked(Misbehaves):
    """It tells which actions are allowed."""

    def action_masks(self) -> Any:
        self.misbehave("action_masks")
        right = np.array([True, True])
        wrong = self.due("action_masks") and self.part == "terminated"
        return ENDS[self.kind].make(right) if wrong else right


class Together(Odd, VectorEnv[Any, Any, Any]):
    """The same of copies that are stepped at once, and reset in the step that ends their episodes."""

    metadata = {"autoreset_mode": AutoresetMode.SAME_STEP}  # noqa: RUF012
    single_observation_space = Misbehaves.observation_space
    single_action_space = Misbehaves.action_space

    def __init__(self, num_envs: int, **plan: str) -> None:
        self.num_envs = num_envs
        self.plan(**plan)
        self.misbehave("constructor")

    def observation(self) -> Any:
        return np.full((self.num_envs, 3), self.age / LENGTH, np.float32)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.age = 0
        return self.outcome("reset", self.observation(), {})

    def step(self, actions: Any) -> Any:
        self.steps += 1
        self.age += 1
        done = np.full(self.num_envs, self.age == LENGTH)
        info: dict[str, Any] = {"final_obs": self.observation()} if done[0] else {}
        obs = self.observation() * ~done[:, None]
        right = self.outcome("step", obs, np.asarray(actions, np.float64), done, np.zeros_like(done), info)
        self.age %= LENGTH
        return right

    def close(self, **arguments: Any) -> None:
        self.misbehave("close")


class StatefulTogether(States, Together):
    pass


def make(**arguments: Any) -> Any:
    """One copy, as `arguments` say."""
    if arguments.get("part") == "instead":
        return made_instead(arguments["kind"], Misbehaves)
    kinds = {"action_masks": Masked, "state_dict": Stateful, "load_state_dict": Stateful}
    kind: Any = kinds.get(arguments.get("call", ""), Misbehaves)
    odd = arguments.get("part") == "attribute"
    return (type("Misbehaves", (kind,), dict(ATTRIBUTES[arguments["kind"]].names)) if odd else kind)(**arguments)


def make_together(**arguments: Any) -> Any:
    """All copies."""
    if arguments.get("part") == "instead":
        return made_instead(arguments["kind"], Misbehaves)
    kind: Any = StatefulTogether if "state_dict" in arguments.get("call", "") else Together
    odd = arguments.get("part") == "attribute"
    return (type("Together", (kind,), dict(TOGETHER[arguments["kind"]].names)) if odd else kind)(**arguments)


def cases() -> list[Case]:
    """All of them, at moments in turn."""
    return [*_values(), *_raised(), *_others()]


def _values() -> Iterator[Case]:
    for mode in ("sync", "async", "native"):
        moments = {
            "step": itertools.cycle(("at once", "copy 1", "step 7", "end", "after a reset")),
            "reset": itertools.cycle(("at once", "copy 1", *(("later",) if mode != "native" else ()))),
        }
        for call in ("reset", "step"):
            for part in (*PARTS[call], "outcome"):
                for kind in VALUES[part]:
                    when = next(moments[call])
                    whole = mode == "native" and part in ("info", "outcome")
                    if whole:
                        when = "end" if (call, part) == ("step", "info") else "at once"
                    yield Case(mode, call, part, kind, when)
    for kind, when in zip(OBSERVATIONS, itertools.cycle(("end", "copy 1"))):
        yield Case("native", "step", "final_obs", kind, when)


def _raised() -> Iterator[Case]:
    for mode in ("sync", "async", "native"):
        for call, moments in (
            ("constructor", ("at once", "copy 1")),
            ("reset", ("at once", "copy 1", *(("later",) if mode != "native" else ()))),
            ("step", ("at once", "copy 1", "step 7", "end", "after a reset")),
            ("close", ("at once", "copy 1")),
        ):
            for kind, when in zip(RAISED, itertools.cycle(moments)):
                yield Case(mode, call, "raise", kind, when)
    for call in ("state_dict", "load_state_dict", "action_masks", "render"):
        modes = {"render": ("sync",), "action_masks": ("sync", "async")}.get(call, ("sync", "async", "native"))
        for kind, mode in zip(RAISED, itertools.cycle(modes)):
            yield Case(mode, call, "raise", kind, "at once" if call == "render" else "copy 1")
    for call, when in (("constructor", "copy 1"), ("reset", "later"), ("step", "step 7"), ("close", "copy 1")):
        yield Case("async", call, "exit", "os._exit", when)
    for mode in ("sync", "native"):
        yield Case(mode, "constructor", "exit", "os._exit", "at once")
        yield Case(mode, "close", "exit", "os._exit", "at once")
    for mode in ("sync", "async", "native"):
        yield Case(mode, "close", "hang", "hang", "copy 1")


def _others() -> Iterator[Case]:
    for mode, kinds in (("sync", ATTRIBUTES), ("async", ATTRIBUTES), ("native", TOGETHER)):
        for kind in kinds:
            yield Case(mode, "attributes", "attribute", kind, "at once")
        for kind in ("None", "text", "a class", "a generator", "a single environment", "a wrapper of nothing"):
            if (mode, kind) != ("native", "a single environment"):
                yield Case(mode, "constructor", "instead", kind, "at once")
    yield Case("native", "constructor", "instead", "a single environment", "at once")
    for kind in ENDS:
        yield Case("sync", "action_masks", "terminated", kind, "copy 1")
    for kind in OUTCOMES:
        yield Case("sync", "state_dict", "outcome", kind, "at once")
    for kind in OBSERVATIONS:
        yield Case("sync", "render", "frame", kind, "at once")

"""Attributes that environments must not have, or may have: spaces, metadata, and what looks them up."""

from __future__ import annotations

from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, Graph, MultiDiscrete, Sequence, Space, Text
from gymnasium.vector import AutoresetMode

SPACE = Box(-1, 1, (3,))


class Attributes(NamedTuple):
    """Of the class, by name. `ends` says whether a run with them ends; None where either is right."""

    names: dict[str, Any]
    ends: bool | None = True


class Own(Space[Any]):
    """A space of somebody's own, of numbers as they are."""

    def __init__(self) -> None:
        super().__init__((3,), np.float32)

    def sample(self, *arguments: Any, **more: Any) -> Any:
        return np.zeros(3, np.float32)

    def contains(self, x: Any) -> bool:
        return True


class Raising(Exception):
    pass


def raises(*arguments: Any) -> Any:
    raise Raising("no such thing")


def missing(self: Any) -> Any:
    raise AttributeError("there is none")


def answers(self: Any, name: str) -> Any:
    """Everything is a method that returns a number."""
    if name.startswith("_"):
        raise AttributeError(name)
    return lambda *arguments, **more: 7


def differs(one: Any, other: Any) -> property:
    return property(lambda self: other if self.index == 1 else one)


def changes(one: Any, other: Any) -> property:
    """Each time it is asked for."""

    def ask(self: Any) -> Any:
        self.__dict__["asked"] = not self.__dict__.get("asked", False)
        return one if self.__dict__["asked"] else other

    return property(ask)


def grows(one: Any, other: Any) -> property:
    return property(lambda self: other if getattr(self, "steps", 0) > 3 else one)


def _spaces(name: str, good: Any, other: Any) -> dict[str, Attributes]:
    return {
        f"{name} missing": Attributes({name: property(missing)}),
        f"{name} raises": Attributes({name: property(raises)}),
        f"{name} None": Attributes({name: None}),
        f"{name} text": Attributes({name: "Box(3)"}),
        f"{name} a number": Attributes({name: 3}),
        f"{name} a shape": Attributes({name: (3,)}),
        f"{name} a plain dictionary": Attributes({name: {"a": good}}),
        f"{name} a class": Attributes({name: type(good)}),
        f"{name} a function": Attributes({name: lambda self: good}),
        f"{name} of one's own": Attributes({name: Own()}),
        f"{name} Text": Attributes({name: Text(3)}),
        f"{name} Sequence": Attributes({name: Sequence(Discrete(2))}),
        f"{name} Graph": Attributes({name: Graph(Box(0, 1), None)}),
        f"{name} of complex numbers": Attributes({name: _complex()}),
        f"{name} without numbers": Attributes({name: Box(0, 1, (0,))}),
    }


def _complex() -> Any:
    space: Any = Box(0, 1, (3,))
    space.dtype = np.dtype(np.complex64)
    return space


ATTRIBUTES: dict[str, Attributes] = {
    **_spaces("observation_space", SPACE, Box(-1, 1, (4,))),
    **_spaces("action_space", Discrete(2), Discrete(3)),
    "observation_space differs": Attributes({"observation_space": differs(SPACE, Box(-1, 1, (4,)))}),
    "observation_space of another type in a copy": Attributes({"observation_space": differs(SPACE, Discrete(3))}),
    "observation_space None in a copy": Attributes({"observation_space": differs(SPACE, None)}),
    "action_space differs": Attributes({"action_space": differs(Discrete(2), Discrete(3))}),
    "action_space None in a copy": Attributes({"action_space": differs(Discrete(2), None)}),
    "observation_space changes": Attributes({"observation_space": changes(SPACE, Box(-1, 1, (4,)))}, None),
    "action_space changes": Attributes({"action_space": changes(Discrete(2), MultiDiscrete([2, 2]))}, None),
    "observation_space grows": Attributes({"observation_space": grows(SPACE, Box(-1, 1, (4,)))}, None),
    "action_space grows": Attributes({"action_space": grows(Discrete(2), Discrete(3))}, None),
    "observation_space of equal bounds": Attributes({"observation_space": Box(0, 0, (3,))}, False),
    "observation_space of other things": Attributes({"observation_space": Dict(a=SPACE)}),
    "observation_space as large as memory": Attributes({"observation_space": Discrete(2**62)}),
    "action_space as large as memory": Attributes({"action_space": Discrete(2**62)}),
    "metadata None": Attributes({"metadata": None}, None),
    "metadata text": Attributes({"metadata": "human"}, None),
    "metadata of other things": Attributes({"metadata": {"render_modes": 3, "autoreset_mode": "never"}}, None),
    "metadata raises": Attributes({"metadata": property(raises)}),
    "render_mode": Attributes({"render_mode": property(lambda self: 5, lambda self, value: None)}, None),
    "spec raises": Attributes({"spec": property(raises, raises)}),
    "unwrapped None": Attributes({"unwrapped": None}),
    "unwrapped raises": Attributes({"unwrapped": property(raises)}),
    "answers everything": Attributes({"__getattr__": answers}, None),
    "answers nothing": Attributes({"__getattr__": raises}, None),
    "is not shown": Attributes({"__repr__": raises, "__str__": raises}, False),
    "is not compared": Attributes({"__eq__": raises, "__hash__": None}, False),
    "is never true": Attributes({"__bool__": lambda self: False, "__len__": lambda self: 0}, False),
    "np_random": Attributes({"np_random": None}, False),
    "close is None": Attributes({"close": None}, False),
    "step is None": Attributes({"step": None}),
    "reset is None": Attributes({"reset": None}),
    "step takes nothing": Attributes({"step": lambda self: None}),
    "reset takes nothing": Attributes({"reset": lambda self: None}),
    "step is a generator": Attributes({"step": lambda self, action: (yield)}),
    "no reset of its own": Attributes({"reset": gymnasium.Env.reset}),
    "no step of its own": Attributes({"step": gymnasium.Env.step}),
}

_MODE = "autoreset_mode"
TOGETHER: dict[str, Attributes] = {
    **_spaces("single_observation_space", SPACE, Box(-1, 1, (4,))),
    **_spaces("single_action_space", Discrete(2), Discrete(3)),
    "observation_space": Attributes({"observation_space": None}, False),
    "another single_observation_space": Attributes({"single_observation_space": Box(-1, 1, (4,))}),
    "num_envs missing": Attributes({"num_envs": property(missing, lambda self, value: None)}),
    "num_envs None": Attributes({"num_envs": property(lambda self: None, lambda self, value: None)}),
    "num_envs text": Attributes({"num_envs": property(lambda self: "2", lambda self, value: None)}),
    "num_envs another": Attributes({"num_envs": property(lambda self: 3, lambda self, value: None)}),
    "metadata None": Attributes({"metadata": None}),
    "metadata missing": Attributes({"metadata": {}}),
    "metadata raises": Attributes({"metadata": property(raises)}),
    "resets never": Attributes({"metadata": {_MODE: AutoresetMode.DISABLED}}),
    "resets by a text": Attributes({"metadata": {_MODE: "SameStep"}}, None),
    "resets by another text": Attributes({"metadata": {_MODE: "sometimes"}}),
    "spec raises": Attributes({"spec": property(raises, raises)}),
    "unwrapped None": Attributes({"unwrapped": None}),
    "is not shown": Attributes({"__repr__": raises, "__str__": raises}, False),
    "is not compared": Attributes({"__eq__": raises, "__hash__": None}, False),
    "answers everything": Attributes({"__getattr__": answers}, None),
    "close is None": Attributes({"close": None}, False),
    "step is None": Attributes({"step": None}),
    "reset is None": Attributes({"reset": None}),
    "step takes nothing": Attributes({"step": lambda self: None}),
    "reset takes nothing": Attributes({"reset": lambda self: None}),
    "step is a generator": Attributes({"step": lambda self, action: (yield)}),
}


def made_instead(kind: str, single: Any) -> Any:
    """What a constructor makes in place of an environment, such as `single`, or of copies."""
    match kind:
        case "None":
            return None
        case "text":
            return "CartPole-v1"
        case "a class":
            return single
        case "a generator":
            return (single() for _ in range(1))
        case "a wrapper of nothing":
            return gymnasium.Wrapper(None)  # type: ignore[arg-type]
        case _:
            return single()

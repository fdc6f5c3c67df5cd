"""Exact states of environments, as trees of arrays and JSON values.

Gymnasium has no interface for the state of an environment. This module knows the families whose whole state is in plain
attributes (classic control), or in those and MuJoCo's `mjData`; any other environment can define `state_dict()` and
`load_state_dict(state)`. All others have no snapshot.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from importlib.metadata import version
from typing import Any

import gymnasium
import numpy as np
from gymnasium.wrappers import FlattenObservation, OrderEnforcing, PassiveEnvChecker, TimeLimit

from esper.envs.base import StateTree
from esper.envs.generators import Generators
from esper.envs.masks import MaskTaken
from esper.envs.rules import Checked
from esper.system.seeding import checked_twister

_KNOWN_FAMILIES = ("gymnasium.envs.classic_control.", "gymnasium.envs.mujoco.")
# `_encode` returns it for a value that is not state: spaces, models, names, images.
_CONSTANT: Any = object()


class StateInAttributes:
    """A wrapper of one of these types has its whole state in plain attributes."""


_KNOWN_WRAPPERS = (FlattenObservation, MaskTaken, OrderEnforcing, StateInAttributes, TimeLimit)


def capture(env: Any) -> StateTree | None:
    """The state of `env`, an environment or a vector environment; None if it is not available."""
    layers = _layers(env)
    if layers is None:
        return None
    return {str(depth): _state(layer) for depth, layer in enumerate(layers)}


def restore(env: Any, state: Mapping[str, Any]) -> None:
    """Restore `state` into `env`, which was made and reset as the captured one was.

    Raises:
        ValueError: when `state` does not fit this environment.
    """
    layers = _layers(env)
    if layers is None or set(state) != {str(depth) for depth in range(len(layers))}:
        raise ValueError(f"state of {len(state)} layers does not fit {env}")
    for depth, layer in enumerate(layers):
        _restore(layer, state[str(depth)])


def capture_all(env: Any, generators: Generators) -> StateTree | None:
    """The same, with the `generators` that `env` may draw from besides its own."""
    state = capture(env)
    return None if state is None else {"env": state, "generators": generators.state_dict()}


def restore_all(env: Any, generators: Generators, state: Mapping[str, Any]) -> None:
    """Restore both.

    States of older versions have no generators: these stay as the reset seeded them.

    Raises:
        ValueError: as `restore`.
    """
    if set(state) != {"env", "generators"}:
        restore(env, state)
        return
    restore(env, state["env"])
    generators.load_state_dict(state["generators"])


def _layers(env: Any) -> list[Any] | None:
    """The wrappers of `env` and the environment itself, or None if one of them is unknown."""
    layers = [env]
    while isinstance(layers[-1], gymnasium.Wrapper):
        layers.append(layers[-1].env)
    # `Checked` has no state and is not a layer: states from before it existed still fit.
    layers = [layer for layer in layers if not isinstance(layer, Checked | PassiveEnvChecker)]
    *wrappers, core = layers
    known = _speaks_for_itself(core) or f"{type(core).__module__}.".startswith(_KNOWN_FAMILIES)
    return layers if known and all(isinstance(wrapper, _KNOWN_WRAPPERS) for wrapper in wrappers) else None


def _speaks_for_itself(env: Any) -> bool:
    return callable(getattr(env, "state_dict", None)) and callable(getattr(env, "load_state_dict", None))


def _state(layer: Any) -> Any:
    # The environment may go on changing what it returned.
    return copy.deepcopy(layer.state_dict()) if _speaks_for_itself(layer) else attributes_of(layer)


def _restore(layer: Any, state: Any) -> None:
    if _speaks_for_itself(layer):
        layer.load_state_dict(state)
    else:
        set_attributes(layer, state)


def attributes_of(owner: Any) -> dict[str, Any]:
    """The attributes of `owner` that can change: numbers, arrays, generators, and sequences of these."""
    encoded = {name: _encode(value) for name, value in vars(owner).items()}
    return {name: value for name, value in encoded.items() if value is not _CONSTANT}


def set_attributes(owner: Any, state: Any) -> None:
    """Set the attributes of `owner` that `attributes_of` returned.

    Raises:
        ValueError: when `state` does not fit this object.
    """
    now = attributes_of(owner)
    if not isinstance(state, Mapping) or set(state) != set(now):
        raise ValueError(f"attributes {sorted(state)} are not those of {type(owner).__name__}: {sorted(now)}")
    for name, value in state.items():
        current = getattr(owner, name)
        if _is_mujoco_data(current):
            _restore_mujoco(current, value)
            continue
        decoded = _decode(value)
        if current is not None and decoded is not None and _size(value) != _size(now[name]):
            raise ValueError(f"{name} has {_size(value)} numbers; {type(owner).__name__} has {_size(now[name])}")
        setattr(owner, name, decoded)


# Python's numbers, NumPy's scalars, tuples and arrays compute differently, so each is restored as its own type: a plain
# JSON value stands for itself, anything else is tagged by its kind.
def _encode(value: Any) -> Any:
    if isinstance(value, np.generic):  # before float, which np.float64 is too
        return {"scalar": np.asarray(value), "python": False}
    if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, float):
        return {"scalar": np.asarray(value, dtype=np.float64), "python": True}
    if isinstance(value, np.ndarray):
        return {"array": value.copy()} if value.dtype.kind in "biuf" else _CONSTANT
    if isinstance(value, np.random.Generator):
        return {"generator": value.bit_generator.state}
    if isinstance(value, np.random.RandomState):
        return {"random_state": value.get_state(legacy=False)}
    if isinstance(value, tuple | list):
        items = [_encode(item) for item in value]
        if any(item is _CONSTANT for item in items):
            return _CONSTANT
        return {"items": {str(index): item for index, item in enumerate(items)}, "tuple": isinstance(value, tuple)}
    return _encode_mujoco(value) if _is_mujoco_data(value) else _CONSTANT


def _decode(value: Any) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case {"scalar": scalar, "python": python}:
            return np.asarray(scalar).item() if python else np.asarray(scalar)[()]
        case {"array": array}:
            return np.array(array)
        case {"generator": state}:
            generator = np.random.default_rng()
            generator.bit_generator.state = state
            return generator
        case {"random_state": state}:
            random_state = np.random.RandomState()
            random_state.set_state(checked_twister(state))
            return random_state
        case {"items": items, "tuple": is_tuple}:
            decoded = [_decode(items[str(index)]) for index in range(len(items))]
            return tuple(decoded) if is_tuple else decoded
    raise ValueError(f"{value!r:.60} is not a state")


def _size(value: Any) -> int:
    """The number of numbers in an encoded value; lists, which can grow, count as one."""
    match value:
        case {"array": array}:
            return int(np.asarray(array).size)
        case {"items": items, "tuple": True}:
            return sum(_size(item) for item in items.values())
    return 1


def _is_mujoco_data(value: Any) -> bool:
    return type(value).__name__ == "MjData" and type(value).__module__.startswith("mujoco")


def _mujoco_fields(data: Any) -> list[Any]:
    """The float64 arrays of `data` whose size depends on the model, as views to read and write.

    MuJoCo's own integration state is not enough: environments read derived quantities (positions of bodies, forces)
    from before the last integration, and these must be the same. Index arrays are left out: a step computes them again,
    and a wrong one from a file would cause access out of bounds.
    """
    blank = type(data)(data.model)
    names = (name for name in dir(data) if not name.startswith("_"))
    arrays = ((getattr(data, name), getattr(blank, name)) for name in names)
    return [a for a, b in arrays if isinstance(a, np.ndarray) and a.dtype == np.float64 and a.shape == b.shape]


def _encode_mujoco(data: Any) -> dict[str, Any]:
    fields = _mujoco_fields(data)
    return {"mujoco": version("mujoco"), "numbers": np.concatenate([[data.time], *(field.ravel() for field in fields)])}


def _restore_mujoco(data: Any, state: Any) -> None:
    if state["mujoco"] != version("mujoco"):
        raise ValueError(f"state of MuJoCo {state['mujoco']!r:.20}; here is {version('mujoco')}")
    fields = _mujoco_fields(data)
    numbers = np.asarray(state["numbers"], dtype=np.float64)
    if numbers.size != 1 + sum(field.size for field in fields):
        raise ValueError(f"{numbers.size} numbers are not those of this MuJoCo model")
    data.time = float(numbers[0])
    ends = np.cumsum([1, *(field.size for field in fields)])
    for field, start, end in zip(fields, ends[:-1], ends[1:], strict=True):
        field[...] = numbers[start:end].reshape(field.shape)

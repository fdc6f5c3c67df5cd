"""Random generators that an environment may use and that Gymnasium's `reset` does not seed, mostly of its spaces."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Space

from esper.envs.base import StateTree
from esper.system.seeding import global_state, host_generator, seeded_globals, set_global_state

_ENVIRONMENTS = gymnasium.Env | gymnasium.vector.VectorEnv


class Lent(np.random.Generator):
    """The `np_random` of an environment before its first seeded reset; it would be seeded from the operating system."""


class Generators:
    """The generators of `env`, an environment or a vector environment: of its spaces, and of the environments in it.

    With `alone` also the global generators, if the process has no other environment.
    """

    def __init__(self, env: Any) -> None:
        self._env = env
        self._environments: list[Any] = []
        self._spaces: list[Space[Any]] = []
        self.alone = False

    def seed(self, seed: int) -> None:
        """Seed them before a reset, so that the environment can still override what it seeds itself."""
        if self.alone:
            set_global_state(seeded_globals(seed))
        seeds = host_generator(seed, "generators of an environment")
        self._environments = list(_within(self._env, _ENVIRONMENTS, {}))
        spaces = {id(space): space for env in self._environments for space in _spaces_of(env)}
        for space in spaces.values():
            space.seed(int(seeds.integers(2**31)))
        self._spaces = [part for space in spaces.values() for part in _within(space, Space, {})]
        for env in self._environments:
            # Wrappers have none.
            if isinstance(vars(env).get("_np_random", getattr(type(env), "_np_random", self)), Lent | None):
                env._np_random = Lent(np.random.PCG64(int(seeds.integers(2**31))))

    def state_dict(self) -> StateTree:
        own = {str(index): generator.bit_generator.state for index, generator in enumerate(self._all())}
        return {"own": own, **({"global": global_state()} if self.alone else {})}

    def load_state_dict(self, state: StateTree) -> None:
        """Restore `state`, after a seeded reset.

        Raises:
            ValueError: when it does not fit this environment.
        """
        generators, own = list(self._all()), state["own"]
        if set(own) != {str(index) for index in range(len(generators))}:
            raise ValueError(f"states of {len(own)} generators do not fit {len(generators)}")
        for index, generator in enumerate(generators):
            generator.bit_generator.state = own[str(index)]
        if self.alone:
            set_global_state(state["global"])

    def _all(self) -> Iterator[np.random.Generator]:
        yield from (space.np_random for space in self._spaces)
        lent = (vars(env).get("_np_random") for env in self._environments)
        yield from (generator for generator in lent if isinstance(generator, Lent))


def _within(whole: Any, kind: Any, seen: dict[int, Any]) -> Iterator[Any]:
    """`whole`, and all objects of this `kind` among its attributes, recursively."""
    if id(whole) in seen:
        return
    seen[id(whole)] = whole
    yield whole
    for value in list(vars(whole).values()):
        inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, tuple | list) else (value,)
        for part in inner:
            if isinstance(part, kind):
                yield from _within(part, kind, seen)


def _spaces_of(env: Any) -> list[Space[Any]]:
    """The spaces among the attributes of `env`; those shared through its class are copied first."""
    shared = {name: value for cls in reversed(type(env).__mro__) for name, value in vars(cls).items()}
    for name, value in shared.items():
        if isinstance(value, Space) and name not in vars(env):
            setattr(env, name, copy.deepcopy(value))
    return [value for value in vars(env).values() if isinstance(value, Space)]

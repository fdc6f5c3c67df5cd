"""One environment as a policy meets it outside of a vector: observations as it gives them, actions as it takes them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gymnasium
import numpy as np
from gymnasium.spaces import Box, Dict, Discrete, MultiBinary, MultiDiscrete, Space, Tuple
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from esper.envs.actions import actions_of, to_space
from esper.envs.base import (
    Actions,
    ContinuousActions,
    DiscreteActions,
    EnvSpec,
    Images,
    MultiDiscreteActions,
    ObsArray,
    Observations,
)
from esper.envs.config import ScaleActions
from esper.envs.families import wrapped
from esper.envs.masks import NAME, without_mask
from esper.envs.observations import flatten_batch, observations_of, to_learner
from esper.envs.rules import BrokenRule, as_numbers, lossless, shown


class Shell(gymnasium.Env[Any, Any]):
    """Spaces without an environment. A reset returns the observation in `options`, so wrappers around it change it."""

    def __init__(self, observation_space: Space[Any], action_space: Space[Any]) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        assert options is not None
        return options["observation"], {}


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """Converts what an environment gives to what a policy takes, and the policy's actions to what it takes.

    `view` is a `Shell` in the wrappers that training has around such an environment, `actions` are the learner's.
    Where not `scales`, the environment scales the actions by itself.
    """

    observation_space: Space[Any]
    action_space: Space[Any]
    view: gymnasium.Env[Any, Any]
    actions: Actions
    scales: bool = True

    @classmethod
    def of(
        cls, env: gymnasium.Env[Any, Any] | gymnasium.vector.VectorEnv[Any, Any, Any], scale_actions: ScaleActions
    ) -> Adapter:
        """That of `env`, or of each environment in it; only its spaces are read.

        Raises:
            ConfigError: named "space" or "scale_actions", for spaces that are not supported.
        """
        if type(env) is SyncVectorEnv:
            env = env.envs[0]
        view: gymnasium.Env[Any, Any]
        if isinstance(env, gymnasium.vector.VectorEnv):
            view = shell = Shell(env.single_observation_space, env.single_action_space)
        else:
            shell = Shell(env.observation_space, env.action_space)
            view = without_mask(_around(shell, env))
        observed, taken = shell.observation_space, shell.action_space
        actions = actions_of(taken, scale_actions)
        observations_of(view.observation_space)
        return cls(observation_space=observed, action_space=taken, view=view, actions=actions)

    @classmethod
    def of_spec(cls, spec: EnvSpec) -> Adapter:
        """That of an `esper.envs.base.VectorEnv`, which takes the learner's actions."""
        seen, actions = spec.observations, spec.actions
        observed: Space[Any]
        if isinstance(seen, Images):
            observed = Box(0, seen.highest, seen.shape, np.uint8)
        else:
            observed = Box(-np.inf, np.inf, seen.shape, np.float32)
        taken: Space[Any]
        match actions:
            case DiscreteActions(n=n):
                taken = Discrete(n)
            case MultiDiscreteActions(nvec=nvec):
                taken = MultiDiscrete(list(nvec))
            case ContinuousActions(size=size):
                taken = Box(-np.inf, np.inf, (size,), np.float32)
        shell = Shell(observed, taken)
        return cls(observation_space=observed, action_space=taken, view=shell, actions=actions, scales=False)

    @property
    def observations(self) -> Observations:
        """The learner's observations."""
        return observations_of(self.view.observation_space)

    @property
    def one_hot(self) -> bool:
        """Whether an observation is one number of a Discrete space, which the learner sees one-hot."""
        return isinstance(self.observation_space, Discrete)

    def to_learner(self, observation: Any) -> tuple[ObsArray, Any, bool]:
        """One observation, or a batch of N with each array [N, ...], as the learner's [N, ...].

        Also the mask or masks in it, None if there are none, and whether it is a batch.

        Raises:
            BrokenRule: when it is not from the environment's space.
        """
        batch, count = _batch(self.observation_space, observation, "the observation")
        try:
            seen, info = self.view.reset(options={"observation": batch})
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:
            raise BrokenRule(f"the observation has values that its environment does not give: {error}") from error
        space = self.view.observation_space
        flat = seen if isinstance(space, Box) else flatten_batch(space, seen)
        if flat.dtype.kind == "f" and np.isnan(flat).any():
            raise BrokenRule("the observation has NaN")
        masks = info.get(NAME)
        return to_learner(space)(flat), masks if masks is None or count is not None else masks[0], count is not None

    def to_environment(self, actions: NDArray[Any]) -> NDArray[Any]:
        """The learner's actions for N observations as N elements of the environment's action space, in its dtype."""
        takes = self.actions
        if isinstance(takes, ContinuousActions) and not self.scales:
            takes = dataclasses.replace(takes, scaled_to=None)
        return to_space(self.action_space, takes)(actions)


def _around(shell: Shell, env: gymnasium.Env[Any, Any]) -> Any:
    """`shell` in the wrappers that the family of `env` has around it."""
    outer = wrapped(env)
    if outer is env:
        return shell
    inner = outer
    while inner.env is not env:
        inner = inner.env
    inner.env = shell
    return outer


def _batch(space: Space[Any], given: Any, name: str) -> tuple[Any, int | None]:
    """`given`, one element of `space` or a batch of N, as a batch in the dtypes of `space`; N, or None if it is one.

    N is -1 where it cannot be known.

    Raises:
        BrokenRule: when it is neither; `name` is the subject of the message.
    """
    if isinstance(space, Dict):
        keys = list(space.spaces)
        if not isinstance(given, Mapping) or not space.spaces.keys() <= given.keys():
            found = f"the keys {list(given)}" if isinstance(given, Mapping) else shown(given)
            raise BrokenRule(f"{name} must be a dictionary with the keys {keys}, not {found}")
        named = {key: _batch(part, given[key], f"{name} at {key!r}") for key, part in space.spaces.items()}
        return {key: part for key, (part, _) in named.items()}, _same([count for _, count in named.values()], name)
    if isinstance(space, Tuple):
        if not isinstance(given, tuple | list) or len(given) != len(space.spaces):
            raise BrokenRule(f"{name} must be a tuple of {len(space.spaces)}, not {shown(given)}")
        parts = [_batch(part, given[i], f"{name} at {i}") for i, part in enumerate(space.spaces)]
        return tuple(part for part, _ in parts), _same([count for _, count in parts], name)
    if not isinstance(space, Box | Discrete | MultiBinary | MultiDiscrete):
        return given, -1  # as the text of a mission, which a view drops
    array, shape = as_numbers(given), space.shape or ()
    if array is None:
        raise BrokenRule(f"{name} must be numbers, not {shown(given)}")
    if array.shape != shape and (not array.ndim or array.shape[1:] != shape):
        sizes = ", ".join(map(str, shape))
        batch = f"[N, {sizes}]" if shape else "[N]"
        raise BrokenRule(f"{name} must have the shape [{sizes}], or {batch} for a batch, not {list(array.shape)}")
    array = lossless(array, space.dtype, name)
    return (array[None], None) if array.shape == shape else (array, len(array))


def _same(counts: list[int | None], name: str) -> int | None:
    """The one number that all parts have.

    Raises:
        BrokenRule: when they differ.
    """
    known = [count for count in counts if count != -1]
    if len(set(known)) > 1:
        numbers = ", ".join("one" if count is None else f"a batch of {count}" for count in known)
        raise BrokenRule(f"{name} has parts of different numbers: {numbers}")
    return known[0] if known else -1

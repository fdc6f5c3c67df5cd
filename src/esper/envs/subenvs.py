"""The wrapper of each environment that is stepped one by one: its index in errors, its state, its action masks."""

from __future__ import annotations

import logging
from typing import Any

import gymnasium
from gymnasium.spaces import Space

from esper.envs import limits, masks
from esper.envs.actions import actions_of, check_mask
from esper.envs.base import BoolArray, EnvError, StateTree
from esper.envs.generators import Generators
from esper.envs.rules import BrokenRule, as_frame
from esper.envs.snapshot import capture_all, restore_all
from esper.envs.success import success_of
from esper.settings.options import ConfigError
from esper.system.errors import describe_with_place, is_ctrl_c
from esper.system.stopping import Overdue

_log = logging.getLogger(__name__)


class SubEnv(gymnasium.Wrapper[Any, Any, Any, Any]):
    """One of several environments. `env_index`, `pending_state`, `masked` and `mask_row` are set by
    `VectorEnv.set_attr`.

    The caller may keep the final observation of an episode; others are valid until the next step of any environment.
    Unused infos are dropped: they need not fit those of other environments, nor travel between processes. If `masked`,
    every info but that of an episode's end has "action_mask", as booleans, or `mask_row` is filled with it; that of an
    end has what `success_of` returns.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.env_index = 0
        self.pending_state: StateTree = {}
        self.generators = Generators(env)
        self.masked = None
        self.mask_row: BoolArray | None = None
        self._last: Any = None  # the observation object that the environment returned last

    @property
    def masked(self) -> tuple[str, ...] | None:
        """Where masks are found; None before `find_masks`, or if the actions cannot have masks."""
        return self._masked

    @masked.setter
    def masked(self, sources: tuple[str, ...] | None) -> None:
        self._masked = sources
        if sources:
            self._mask_in, self._actions = masks.reader(self.env, sources), actions_of(self.action_space)

    def step(self, action: Any) -> Any:
        try:
            obs, reward, terminated, truncated, info = self.env.step(action)
            ended = terminated or truncated
            last, self._last = self._last, obs
            if ended or obs is last or obs.base is not None:
                # The caller keeps it, or the environment may write into it again.
                obs = obs.copy()
            used = success_of(info) if ended else {}
            if self._masked or (self._masked is not None and "action_mask" in info):
                used = {**used, **self._mask_of(info, ended=ended)}
            return obs, reward, terminated, truncated, used
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("in a step", error) from error

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        try:
            if seed is not None:
                self.generators.seed(seed)
            obs, info = self.env.reset(seed=seed, options=options)
            self._last = obs
            return obs.copy(), self._mask_of(info, ended=False)
        except EnvError:
            raise
        except BaseException as error:
            raise self._failed("on reset", error) from error

    def find_masks(self) -> tuple[tuple[str, ...], list[str]]:
        """Where a reset reports action masks, and which names look like masks but are not.

        Only the first environment is reset and checked, for all.
        """
        if self.env_index:
            return (), []
        try:
            self.generators.seed(0)
            info = self.env.reset(seed=0)[1]
            sources = masks.sources_of(self.env, info)
            return sources, masks.unused(self.env, info, sources)
        except BaseException as error:
            raise self._failed("on reset", error) from error

    @property
    def time_limit(self) -> int | None:
        return limits.time_limit(self.env)

    def _mask_of(self, info: dict[str, Any], *, ended: bool) -> dict[str, Any]:
        """The part of `info` that is used for actions; `mask_row` is filled with it instead, if there is one."""
        if not self._masked:
            if self._masked is not None and info.get("action_mask") is not None:
                raise EnvError(f"environment {self.env_index} gave an action mask; the first reset came without one")
            return {}
        if ended:
            # No action follows, and often none is allowed there.
            return {}
        mask = self._mask_in(info)
        if mask is None:
            raise EnvError(f"environment {self.env_index} gave no action mask; the first reset came with one")
        try:
            checked = check_mask(mask, self._actions)
        except ValueError as error:
            raise EnvError(f"the action mask of environment {self.env_index} {error}") from None
        if self.mask_row is None:
            return {"action_mask": checked}
        self.mask_row[:] = checked
        return {}

    def capture_state(self) -> StateTree | None:
        try:
            return capture_all(self.env, self.generators)
        except BaseException as error:
            raise self._failed("in state_dict", error) from error

    def restore_pending_state(self) -> None:
        try:
            restore_all(self.env, self.generators, self.pending_state)
        except BaseException as error:
            why = str(self._failed("in load_state_dict", error)).partition(": ")[2]
            raise ValueError(
                f"environment {self.env_index} cannot be restored: {why}; --fresh-episodes begins new episodes"
            ) from error

    def render(self) -> Any:
        try:
            return as_frame(self.env.render())
        except BaseException as error:
            raise self._failed("in render", error) from error

    def close(self) -> None:
        """Errors are only logged, so that the other environments are closed, too."""
        try:
            self.env.close()
        except Overdue:
            raise
        except BaseException as error:
            _log.warning("%s", self._failed("on close", error))

    def _failed(self, call: str, error: BaseException) -> EnvError:
        """What to raise in place of `error`; Ctrl-C is raised again."""
        if is_ctrl_c(error):
            raise error
        if isinstance(error, BrokenRule):
            return EnvError(f"environment {self.env_index} breaks Gymnasium's rules: {error}")
        return EnvError(f"environment {self.env_index} raised {call}: {describe_with_place(error)}")


def check_same_spaces(env: gymnasium.Env[Any, Any], *spaces: Space[Any]) -> None:
    """Check that the observation and the action space of an environment equal those of the first one.

    Raises:
        BrokenRule: when they differ.
    """
    for name, space, first in zip(
        ("observation", "action"), (env.observation_space, env.action_space), spaces, strict=True
    ):
        if space != first:
            raise BrokenRule(f"its {name} space is {space}; that of environment 0 is {first}")


def in_constructor(index: int, error: BaseException) -> str:
    """The message for `error`, raised while environment `index` was made."""
    if isinstance(error, BrokenRule):
        return f"environment {index} breaks Gymnasium's rules: {error}"
    if isinstance(error, ConfigError):
        return f"environment {index}: {error.allowed}"
    return f"environment {index} raised in its constructor: {describe_with_place(error)}"

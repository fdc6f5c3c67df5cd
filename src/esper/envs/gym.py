"""Gymnasium environments as `VectorEnv`."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, NoReturn, TypeGuard

import gymnasium
import numpy as np
from gymnasium.vector import SyncVectorEnv
from numpy.typing import NDArray

from esper.envs.actions import actions_of, bounds_of, to_space
from esper.envs.adopted import adopt, why_it_failed
from esper.envs.base import BoolArray, ContinuousActions, EnvError, EnvSpec, ObsArray, StateTree, Step
from esper.envs.config import ScaleActions
from esper.envs.generators import Generators
from esper.envs.limits import vector_time_limit
from esper.envs.native import Native, resets_in_a_step
from esper.envs.observations import observations_of, to_learner
from esper.envs.processes import close
from esper.envs.snapshot import capture_all, restore_all
from esper.envs.subenvs import SubEnv
from esper.envs.success import Successes
from esper.envs.workers import WorkerVectorEnv
from esper.system.errors import is_ctrl_c

_log = logging.getLogger(__name__)


class GymnasiumVectorEnv:
    """Any Gymnasium vector environment, in each autoreset mode, as `VectorEnv`.

    A same-step environment reports final observations beside those of the reset. A next-step environment returns the
    final observation and uses the next step to reset: that step is marked `ignored`.
    """

    def __init__(self, env: gymnasium.vector.VectorEnv[Any, Any, Any], scale_actions: ScaleActions = "auto") -> None:
        self._env = env
        # Environments stepped one by one, each in a `SubEnv`; None if a native vector environment steps them all.
        self._subenvs = env if _is_of_subenvs(env) else None
        self._next_step = resets_in_a_step(env)
        space = env.single_observation_space
        observations = observations_of(space)
        self._native = None if self._subenvs else Native(env)
        if self._subenvs is None:
            adopt(env)
        self._generators = Generators(env)
        self._resetting = np.zeros(env.num_envs, dtype=np.bool_)
        self._successes = Successes()
        self.action_masks: BoolArray | None = None
        # Filled by environments in this process: what they have in infos Gymnasium puts together more slowly.
        self._mask_rows: BoolArray | None = None
        self._to_learner = to_learner(space, copy=self._subenvs is not None)
        actions = actions_of(env.single_action_space, scale_actions)
        self._to_space = to_space(env.single_action_space, actions)
        self.spec = EnvSpec(
            num_envs=env.num_envs,
            observations=observations,
            actions=actions,
            masked=not isinstance(actions, ContinuousActions) and self._find_masks(actions.outputs),
            resets_in_a_step=self._next_step,
            max_episode_steps=self._subenvs.get_attr("time_limit")[0] if self._subenvs else vector_time_limit(env),
            action_bounds=bounds_of(env.single_action_space, actions),
        )

    def reset(self, seed: int) -> ObsArray:
        self._resetting[:] = False
        with self._errors("on reset"):
            if self._native:
                self._generators.seed(seed)
            outcome = self._env.reset(seed=seed)
            obs, info = self._native.reset(outcome) if self._native else outcome
            self._take_masks(info, self._resetting)
        return self._to_learner(obs)

    def step(self, actions: NDArray[np.generic]) -> Step:
        try:
            outcome = self._env.step(self._to_space(actions))
            obs, reward, terminated, truncated, info = self._native.step(outcome) if self._native else outcome
            done = terminated | truncated
            self._take_masks(info, done)
            obs, final_obs, success = self._to_learner(obs), None, None
            if np.count_nonzero(done):  # quicker than any()
                final_obs = obs.copy() if self._next_step else self._final_observations(obs, done, info)
                success = self._successes.of(self._info_of_ends(info), done)
        except BaseException as error:
            self._fail(error, "in a step")
        if not self._next_step:
            return Step(obs, reward, terminated, truncated, final_obs, None, success)
        resetting, self._resetting = self._resetting, done
        ignored = resetting if np.count_nonzero(resetting) else None
        return Step(obs, reward, terminated, truncated, final_obs, ignored, success)

    def _info_of_ends(self, info: Any) -> Any:
        """If episodes are reset in the step that ends them, `info` is of the new ones."""
        return info if self._next_step or not isinstance(info, dict) else info.get("final_info")

    def _final_observations(self, obs: ObsArray, done: BoolArray, info: Any) -> ObsArray:
        finals = self._native.finals(info, done) if self._native else np.stack(info["final_obs"][done])
        final_obs = obs.copy()
        final_obs[done] = self._to_learner(finals)
        return final_obs

    def _find_masks(self, outputs: int) -> bool:
        """Whether the environments have action masks; from here on all resets and steps must agree with the first."""
        with self._errors("on reset"):
            if self._native:
                found, unused = self._native.find_masks(self._native.reset(self._env.reset(seed=0))[1])
            else:
                assert self._subenvs is not None
                (found, unused), *_ = self._subenvs.call("find_masks")
                # A list is one value for each environment.
                self._subenvs.set_attr("masked", [found] * self._subenvs.num_envs)
                if found and isinstance(self._subenvs, SyncVectorEnv):
                    self._mask_rows = np.ones((self._subenvs.num_envs, outputs), dtype=np.bool_)
                    self._subenvs.set_attr("mask_row", list(self._mask_rows))
        if unused:
            _log.warning("looks like an action mask, and is not used as one: %s", ", ".join(unused))
        return bool(found)

    def _take_masks(self, info: Any, done: BoolArray) -> None:
        if self.spec.masked:
            # After a reset these are of the new episode: those of the old one are in "final_info".
            if self._native:
                self.action_masks = self._native.masks(info, done if self._next_step else np.zeros_like(done))
            else:
                self.action_masks = info["action_mask"] if self._mask_rows is None else self._mask_rows.copy()
        elif self._native and info:
            self._native.refuse_masks(info)

    def state_dict(self) -> StateTree | None:
        with self._errors("in state_dict"):
            if self._subenvs is None:
                state = capture_all(self._env, self._generators)
            else:
                states = self._subenvs.call("capture_state")
                state = None if None in states else {str(index): state for index, state in enumerate(states)}
        return None if state is None else {"copies": state, "resetting": self._resetting.copy()}

    def load_state_dict(self, state: StateTree) -> None:
        resetting = np.array(state["resetting"])
        if resetting.shape != self._resetting.shape or resetting.dtype != np.bool_:
            raise ValueError(f"resetting is {resetting.dtype} {resetting.shape}, not bool {self._resetting.shape}")
        if self._subenvs is None:
            try:
                with self._errors("in load_state_dict"):
                    restore_all(self._env, self._generators, state["copies"])
            except EnvError as error:
                raise ValueError(f"{error}; --fresh-episodes begins new episodes") from error
        else:
            names = [str(index) for index in range(self.spec.num_envs)]
            if set(state["copies"]) != set(names):
                raise ValueError(f"states of {len(state['copies'])} environments do not fit {len(names)}")
            self._subenvs.set_attr("pending_state", [state["copies"][name] for name in names])
            self._subenvs.call("restore_pending_state")
        self._resetting = resetting

    @contextlib.contextmanager
    def _errors(self, call: str) -> Iterator[None]:
        """Turn whatever the environment raises in `call` into an `EnvError`."""
        try:
            yield
        except BaseException as error:
            self._fail(error, call)

    def _fail(self, error: BaseException, call: str) -> NoReturn:
        if isinstance(error, EnvError) or is_ctrl_c(error):
            raise error
        # A context manager would take a RuntimeError from a StopIteration for that StopIteration.
        raise EnvError(why_it_failed(self._env, error, call)) from (None if isinstance(error, StopIteration) else error)

    def close(self) -> None:
        close(self._env)


def _is_of_subenvs(env: Any) -> TypeGuard[SyncVectorEnv | WorkerVectorEnv]:
    """Whether `env` steps `SubEnv`s one by one; False for a native vector environment."""
    if isinstance(env, SyncVectorEnv):
        return all(type(each) is SubEnv for each in env.envs)
    return isinstance(env, WorkerVectorEnv)

"""A policy that was exported, held to the policy."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import mixed_env
import numpy as np
import torch
from covering import Row
from gymnasium.spaces import Box
from gymnasium.vector.utils import batch_space
from mixed_parts import PARTS
from numpy.typing import NDArray

from esper.envs.base import MultiDiscreteActions
from esper.policies.export import export_policy
from esper.policies.policy import load_policy

# A step's inputs by their names, and what comes out: actions, and the memory after them if there is one.
Act: TypeAlias = Callable[[dict[str, NDArray[Any]]], Sequence[NDArray[Any]]]
STEPS, COUNT = 3, 5


def check_exported(run_dir: Path, row: Row, env_kwargs: dict[str, Any]) -> None:
    """Hold the actions of the policy in `run_dir`, exported to a file, to those of `Policy.predict`.

    Raises:
        AssertionError: where actions or memory are different.
    """
    given: dict[str, Any] = {name: PARTS[row["part"]].get(name) for name in ("network", "encoder", "activation")}
    if row["passed"] == "class":
        given["env"] = functools.partial(mixed_env.Mixed, **env_kwargs)
    policy = load_policy(run_dir, trust=True, **given)
    path = run_dir / f"policy.{row['export']}"
    export_policy(policy, path)
    act = {"pt2": _in_torch, "onnx": _in_onnx}[row["export"]](path)
    adapter, memory = policy._adapter, np.zeros((COUNT, policy.network.state_size), np.float32)
    masks = _some_allowed(policy.network.actions) if policy.masked else None
    space = batch_space(adapter.observation_space, COUNT)
    space.seed(0)
    for _ in range(STEPS):
        observations = space.sample()
        inputs = {"observations": adapter.to_learner(observations)[0], "masks": masks, "memory": memory}
        if not policy.network.state_size:
            inputs.pop("memory")
        actions, *after = act({name: each for name, each in inputs.items() if each is not None})
        if isinstance(adapter.action_space, Box):
            # Where they are not scaled, who takes them clips them.
            actions = np.clip(actions, adapter.action_space.low, adapter.action_space.high)
        expected, memory_after = policy.predict(observations, inputs.get("memory"), masks)
        np.testing.assert_allclose(actions, expected, rtol=1e-4, atol=1e-5)
        if memory_after is not None:
            (memory,) = after
            np.testing.assert_allclose(memory, memory_after, rtol=1e-4, atol=1e-5)


def _some_allowed(actions: Any) -> NDArray[np.bool_]:
    """Masks [N, M]: in every choice another value is not allowed."""
    choices = actions.nvec if isinstance(actions, MultiDiscreteActions) else (actions.n,)
    return np.concatenate([np.arange(COUNT)[:, None] % n != np.arange(n) for n in choices], axis=1)


def _in_torch(path: Path) -> Act:
    module = torch.export.load(path).module()

    def act(inputs: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
        observations, *others = (torch.as_tensor(each) for each in inputs.values())
        found = module(observations, **dict(zip(list(inputs)[1:], others, strict=True)))
        return [each.numpy() for each in (found if isinstance(found, tuple) else (found,))]

    return act


def _in_onnx(path: Path) -> Act:
    from onnx.reference import ReferenceEvaluator

    session = ReferenceEvaluator(str(path))
    return lambda inputs: list(session.run(None, inputs))

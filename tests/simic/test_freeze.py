"""`freeze_encoder`: the encoder, or a trunk, does not learn in the first updates; everything else does."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from torch import Tensor, nn

import esper
from esper.runs.checkpoint.folder import load_checkpoint
from esper.settings.options import ConfigError

SMALL: dict[str, Any] = {
    "preset": "none",
    "num_envs": 2,
    "num_steps": 8,
    "num_minibatches": 2,
    "hidden_sizes": [5],
    "lr": 1e-2,
    "total_timesteps": 16 * 4,
    "compile": "off",
    "threads": 1,
    "checkpoint_every": 1,
    "keep_checkpoints": 99,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
}


class Frames(gymnasium.Env[Any, Any]):
    """Random images; episodes of 5 steps."""

    observation_space = Box(0, 255, (1, 8, 8), np.uint8)
    action_space = Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return self._frame(), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        return self._frame(), float(action), self.steps >= 5, False, {}

    def _frame(self) -> np.ndarray:
        return self.np_random.integers(256, size=(1, 8, 8), dtype=np.uint8)


def encoder(shape: tuple[int, ...]) -> nn.Module:
    return nn.Linear(shape[0], 6)


def adamw(groups: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, weight_decay=0.1)


KINDS: dict[str, tuple[Any, dict[str, Any], tuple[str, ...]]] = {
    "trunk, kernels": ("CartPole-v1", {"shared_trunk": True, "compile": "native"}, ("trunk.",)),
    "trunk, torch": ("CartPole-v1", {"shared_trunk": True}, ("trunk.",)),
    "trunk, recurrent": ("CartPole-v1", {"shared_trunk": True, "rnn": "gru", "rnn_size": 3}, ("trunk.",)),
    "images": (Frames, {"encoder": "small"}, ("actor.0.", "critic.0.")),
    "images, trunk": (Frames, {"encoder": "small", "shared_trunk": True}, ("trunk.",)),
    "own encoder": ("CartPole-v1", {"encoder": encoder}, ("actor.0.", "critic.0.")),
    "own optimizer": ("CartPole-v1", {"encoder": encoder, "optimizer": adamw}, ("actor.0.", "critic.0.")),
    "own optimizer, trunk": ("CartPole-v1", {"shared_trunk": True, "optimizer": adamw}, ("trunk.",)),
}


def weights(run: esper.Run, updates: int) -> dict[str, Tensor]:
    network = load_checkpoint(run.folder / "checkpoints" / f"{updates:08}")["training"]["agent"]["network"]
    return {name: tensor for name, tensor in network.items() if "normalizer" not in name}


@pytest.mark.parametrize("kind", KINDS)
def test_learns_nothing_in_the_first_updates_while_the_rest_does(tmp_path: Path, kind: str) -> None:
    env, settings, frozen = KINDS[kind]
    run = esper.train(env, **{**SMALL, **settings}, freeze_encoder=2, lr_decay="linear", run_dir=tmp_path / "run")
    after = [weights(run, updates) for updates in range(5)]
    assert any(name.startswith(frozen) for name in after[0])
    for name in after[0]:
        moves = [not torch.equal(before[name], now[name]) for before, now in itertools.pairwise(after)]
        assert moves == [not name.startswith(frozen)] * 2 + [True, True], name
    rates = run.updates["lr/policy"].tolist()
    assert rates == pytest.approx([1e-2, 7.5e-3, 5e-3, 2.5e-3])
    if frozen == ("trunk.",):
        assert run.updates["lr/shared"].tolist() == [0, 0, *rates[2:]]
        assert run.updates["lr_phase/shared"].tolist() == ["frozen", "frozen", "decay", "decay"]


def test_the_rest_is_that_of_a_run_whose_encoder_has_rate_0(tmp_path: Path) -> None:
    """An encoder of its own that requires no gradient, which torch leaves alone, has the same first update."""

    def fixed(shape: tuple[int, ...]) -> nn.Module:
        made = encoder(shape)
        return made.requires_grad_(False)

    settings = {**SMALL, "max_grad_norm": None}
    frozen = esper.train("CartPole-v1", **settings, encoder=encoder, freeze_encoder=9, run_dir=tmp_path / "frozen")
    still = esper.train("CartPole-v1", **settings, encoder=fixed, run_dir=tmp_path / "still")
    for name, tensor in weights(frozen, 4).items():
        torch.testing.assert_close(tensor, weights(still, 4)[name])


def test_a_resume_within_is_exact(tmp_path: Path) -> None:
    def stop(run: Any) -> None:
        if run.agent.train_steps == 1:
            run.stop("enough")

    settings = {**SMALL, "encoder": encoder, "freeze_encoder": 2}
    whole = esper.train("CartPole-v1", **settings, run_dir=tmp_path / "whole")
    parts = esper.train("CartPole-v1", **settings, callbacks=[stop], run_dir=tmp_path / "parts").resume()
    ours, theirs = (run.folder / "policy.safetensors" for run in (parts, whole))
    assert ours.read_bytes() == theirs.read_bytes()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze_encoder": 3}, "freeze_encoder = 3: needs an encoder or shared_trunk: this network has neither"),
        ({"freeze_encoder": -1}, "freeze_encoder = -1: must be at least 0"),
        ({"freeze_encoder": 0.5}, "freeze_encoder = 0.5: must be a whole number"),
    ],
)
def test_what_cannot_be_frozen_is_refused(tmp_path: Path, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        esper.train("CartPole-v1", **{**SMALL, **settings}, run_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()

"""An exported policy acts as the policy does, for any number of observations."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from esper.envs.base import (
    Actions,
    ContinuousActions,
    DiscreteActions,
    EnvSpec,
    Images,
    MultiDiscreteActions,
    Vectors,
)
from esper.envs.config import EnvConfig
from esper.policies.export import ExportError, export_policy
from esper.policies.policy import Policy, load_policy, save_policy
from esper.scripts.train import main
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig

ACTIONS: list[Actions] = [DiscreteActions(n=3), ContinuousActions(size=2)]
KINDS = ["discrete", "continuous"]
# One value of each of two choices, of three values and of two, whatever the weights are.
ALLOWED = torch.tensor([[False, False, True, True, False], [True, False, False, False, True]])
LEFT = [[2, 0], [0, 1]]


def saved(folder: Path, actions: Actions, **settings: Any) -> Policy:
    """A policy of random weights that has seen observations far from mean 0 and deviation 1."""
    network = NetworkConfig(hidden_sizes=(8, 8), normalize_observations=True, **settings)
    config = PPOConfig(num_envs=2, network=network, runtime=RuntimeConfig(compile="off"))
    agent = PPOAgent(config, EnvSpec(num_envs=2, observations=Vectors(size=5), actions=actions), seed=1)
    assert agent.network.normalizer is not None
    agent.network.normalizer.update(observations(50))
    # The first policy is near uniform: it would hardly tell observations apart.
    with torch.no_grad():
        agent.network.actor[-1].get_parameter("weight").mul_(100)
    save_policy(folder, agent, EnvConfig())
    return load_policy(folder)


def masked_policy(folder: Path, lstm_size: int | None) -> Policy:
    network = NetworkConfig(hidden_sizes=(8,), lstm_size=lstm_size)
    config = PPOConfig(num_envs=4, network=network, runtime=RuntimeConfig(compile="off"))
    spec = EnvSpec(num_envs=4, observations=Vectors(size=5), actions=MultiDiscreteActions(nvec=(3, 2)), masked=True)
    save_policy(folder, PPOAgent(config, spec, seed=1), EnvConfig())
    return load_policy(folder)


def observations(count: int) -> torch.Tensor:
    return 7 + 3 * torch.randn(count, 5, generator=torch.Generator().manual_seed(count))


@pytest.mark.parametrize("shared", [False, True], ids=["apart", "shared"])
@pytest.mark.parametrize("actions", ACTIONS, ids=KINDS)
def test_pt2_acts_as_the_policy(tmp_path: Path, actions: Actions, shared: bool) -> None:
    policy = saved(tmp_path, actions, shared_trunk=shared)
    export_policy(policy, tmp_path / "policy.pt2")
    exported = torch.export.load(tmp_path / "policy.pt2").module()
    for count in (1, 2, 33):
        taken = exported(observations(count))
        expected = policy.network.act(observations(count))
        assert (taken.dtype, taken.shape) == (expected.dtype, expected.shape)
        torch.testing.assert_close(taken, expected)
    # The policy tells these observations apart, or the comparison above would show little.
    assert len(exported(observations(33)).unique(dim=0)) > 1
    assert not [name for name in exported.state_dict() if "critic" in name]


@pytest.mark.parametrize(("rnn", "normalize"), [(None, False), ("lstm", False), ("gru", False), (None, True)])
def test_images_and_memory(tmp_path: Path, rnn: Any, normalize: bool) -> None:
    size = None if rnn is None else 4
    network = NetworkConfig(hidden_sizes=(8,), rnn=rnn, rnn_size=size, normalize_observations=normalize)
    config = PPOConfig(num_envs=4, network=network, runtime=RuntimeConfig(compile="off"))
    seen = Images(shape=(2, 6, 6), highest=9)
    agent = PPOAgent(config, EnvSpec(num_envs=4, observations=seen, actions=ACTIONS[0]), seed=1)
    with torch.no_grad():
        agent.network.actor[-1].get_parameter("weight").mul_(100)
    save_policy(tmp_path, agent, EnvConfig())
    policy = load_policy(tmp_path)
    export_policy(policy, tmp_path / "policy.pt2")
    exported = torch.export.load(tmp_path / "policy.pt2").module()
    generator = torch.Generator().manual_seed(0)
    memory = theirs = torch.zeros(3, policy.network.state_size)
    taken = []
    for _ in range(5):
        obs = torch.randint(10, (3, *seen.shape), dtype=torch.uint8, generator=generator)
        if rnn is None:
            taken += [exported(obs)]
            assert taken[-1].equal(policy.network.act(obs))
        else:
            actions, theirs = exported(obs, memory=theirs)
            memory = memory.clone()
            assert actions.equal(policy.network.act(obs, recurrent_state=memory))
            torch.testing.assert_close(theirs, memory)
            taken += [actions]
    assert len(torch.cat(taken).unique()) > 1
    assert (rnn is None) == (not memory.any())


@pytest.mark.parametrize("lstm_size", [None, 4])
def test_masks(tmp_path: Path, lstm_size: int | None) -> None:
    policy = masked_policy(tmp_path, lstm_size)
    export_policy(policy, tmp_path / "policy.pt2")
    exported = torch.export.load(tmp_path / "policy.pt2").module()
    memory = {"memory": torch.zeros(2, policy.network.state_size)} if lstm_size else {}
    taken = exported(observations(2), masks=ALLOWED, **memory)
    assert (taken[0] if lstm_size else taken).tolist() == LEFT


@pytest.mark.parametrize("actions", ACTIONS, ids=KINDS)
def test_onnx_acts_as_the_policy(tmp_path: Path, actions: Actions) -> None:
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    policy = saved(tmp_path, actions, activation="gelu", layer_norm=True, critic_hidden_sizes=(3,))
    export_policy(policy, tmp_path / "policy.onnx")
    session = reference.ReferenceEvaluator(str(tmp_path / "policy.onnx"))
    for count in (1, 33):
        (taken,) = session.run(None, {"observations": observations(count).numpy()})
        torch.testing.assert_close(torch.from_numpy(taken), policy.network.act(observations(count)).detach())


def test_onnx_with_masks_and_memory(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    reference = pytest.importorskip("onnx.reference")
    policy = masked_policy(tmp_path, 4)
    export_policy(policy, tmp_path / "policy.onnx")
    session = reference.ReferenceEvaluator(str(tmp_path / "policy.onnx"))
    memory, theirs = torch.zeros(2, policy.network.state_size), torch.zeros(2, policy.network.state_size).numpy()
    for count in range(2):
        obs = observations(2) + count
        actions, theirs = session.run(None, {"observations": obs.numpy(), "masks": ALLOWED.numpy(), "memory": theirs})
        policy.network.act(obs, recurrent_state=memory)
        assert actions.tolist() == LEFT
        torch.testing.assert_close(torch.from_numpy(theirs), memory)
    assert memory.any()


def test_onnx_without_its_packages_is_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "onnxscript" else there("torch"))
    policy = saved(tmp_path, ACTIONS[0])
    with pytest.raises(ExportError, match=r"policy.onnx: ONNX needs onnxscript: pip install 'esper-simic\[onnx\]'$"):
        export_policy(policy, tmp_path / "policy.onnx")
    assert not (tmp_path / "policy.onnx").exists()


class TestCommand:
    def test_writes_beside_the_policy(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        policy = saved(tmp_path, ACTIONS[0])
        assert main(["export", str(tmp_path)]) == 0
        assert capsys.readouterr().out == f"policy {tmp_path}/policy.pt2\n"
        exported = torch.export.load(tmp_path / "policy.pt2").module()
        assert exported(observations(9)).equal(policy.network.act(observations(9)))

    @pytest.mark.parametrize(
        ("output", "message"),
        [
            ("a.pt", "a.pt: must end in .pt2 or .onnx"),
            ("policy.json/a.pt2", "policy.json: is no folder"),
        ],
    )
    def test_an_output_that_cannot_be(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str], output: str, message: str
    ) -> None:
        saved(tmp_path, ACTIONS[0])
        with pytest.raises(SystemExit, match="2"):
            main(["export", str(tmp_path), "--output", str(tmp_path / output)])
        err = capsys.readouterr().err
        assert err.startswith(f"esper export: error: --output {tmp_path}/")
        assert err.endswith(f"{message}\n")

    def test_no_run(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["export", str(tmp_path)])
        assert "policy.json: No such file" in capsys.readouterr().err

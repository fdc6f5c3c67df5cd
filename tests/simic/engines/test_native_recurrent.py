"""Recurrent networks in C++ compute what they compute in torch."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from differential import RECURRENT, Case, random_case, tensors
from torch import Tensor

from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.rollout import Rollout
from esper.simic.sequences import evaluate_sequences

# Widths below, at and above those of registers, and more sequences than a block has.
CASES: dict[str, dict[str, Any]] = {
    "as it comes": {},
    "one unit": {"rnn_size": 1},
    "wide": {"rnn_size": 130},
    "no hidden layer": {"hidden_sizes": ()},
    "a shared trunk": {"shared_trunk": True, "hidden_sizes": (9,)},
    "a shared trunk of the recurrent layer alone": {"shared_trunk": True, "hidden_sizes": ()},
    "normalized observations": {"normalize_observations": True},
}


def made(kind: str, engine: str, seed: int = 4, threads: int | None = None, **network: Any) -> tuple[PPOAgent, Rollout]:
    """An agent after an update, and the rollout that it learned from."""
    case: Case = random_case(seed, kind)
    own = replace(case.settings["network"], **network)
    # A state of another size, which `random_case` made for its own network.
    config = PPOConfig(
        **{**case.settings, "network": own, "target_kl": None},
        runtime=RuntimeConfig(compile=engine, threads=threads),  # type: ignore[arg-type]
    )
    agent = PPOAgent(config, case.spec, seed=1)
    generator = torch.Generator().manual_seed(seed)
    state = torch.randn(case.spec.num_envs, agent.network.state_size, generator=generator)
    rollout = replace(case.rollout, recurrent_state=state)
    assert agent.update(rollout).fault is None
    return agent, rollout


@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("changes", CASES.values(), ids=CASES)
class TestAgainstTorch:
    @torch.no_grad()
    @pytest.mark.parametrize("seed", [4, 5, 6])
    def test_evaluation(self, kind: str, changes: dict[str, Any], seed: int) -> None:
        agent, rollout = made(kind, "native", seed, **changes)
        seen = rollout.normalized(agent.network.normalize)
        ours = agent.updater.engine.evaluate_rollout(seen)
        for mine, right in zip(ours, evaluate_sequences(agent.network, seen, agent.config.num_envs), strict=True):
            torch.testing.assert_close(mine, right, rtol=1e-4, atol=1e-5)

    @torch.no_grad()
    def test_acting(self, kind: str, changes: dict[str, Any]) -> None:
        agent, rollout = made(kind, "native", **changes)
        act, generator = agent.updater.engine.actor(agent.network), torch.Generator().manual_seed(1)
        assert rollout.recurrent_state is not None
        ours, theirs = rollout.recurrent_state.clone(), rollout.recurrent_state.clone()
        for step, obs in enumerate(rollout.obs[:-1]):
            noise = agent.network.noise((len(obs),), generator)
            masks = None if rollout.masks is None else rollout.masks[step]
            expected = agent.network.act(obs, noise, masks, theirs)
            actions = torch.zeros_like(expected)
            act(obs, noise, actions, masks, ours)
            torch.testing.assert_close(actions, expected, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("seed", [4, 5, 13])
    def test_updates(self, kind: str, changes: dict[str, Any], seed: int) -> None:
        ours, theirs = (tensors(made(kind, engine, seed, **changes)[0]) for engine in ("native", "off"))
        for name, tensor in theirs.items():
            torch.testing.assert_close(ours[name], tensor, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize("kind", RECURRENT)
def test_the_number_of_threads_changes_no_bit(kind: str) -> None:
    results: list[dict[str, Tensor]] = []
    for threads in (1, 2, 5):
        agent, rollout = made(kind, "native", seed=26, threads=threads)
        # Three blocks of sequences.
        assert agent.config.num_envs > 16
        evaluated = agent.updater.engine.evaluate_rollout(rollout)
        results.append({**tensors(agent), **{str(index): tensor for index, tensor in enumerate(evaluated)}})
    for result in results[1:]:
        for name, tensor in result.items():
            assert tensor.equal(results[0][name]), name


def test_more_environments_than_a_block_has_rows_act() -> None:
    """In two calls of the network, of 64 rows and of 6; each has its own state."""
    case = random_case(4, "gru")
    spec = replace(case.spec, num_envs=70, masked=False)
    config = PPOConfig(
        num_envs=70, num_steps=2, num_minibatches=1, network=NetworkConfig(rnn="gru", rnn_size=5),
        runtime=RuntimeConfig(compile="native"),
    )  # fmt: skip
    agent, generator = PPOAgent(config, spec, seed=1), torch.Generator().manual_seed(0)
    obs = torch.randn(70, *spec.observations.shape, generator=generator)
    ours = torch.randn(70, agent.network.state_size, generator=generator)
    theirs, noise = ours.clone(), agent.network.noise((70,), generator)
    with torch.no_grad():
        expected = agent.network.act(obs, noise, recurrent_state=theirs)
    actions = torch.zeros_like(expected)
    agent.updater.engine.actor(agent.network)(obs, noise, actions, None, ours)
    torch.testing.assert_close(actions, expected)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("kind", RECURRENT)
def test_a_fault_leaves_nothing_behind(kind: Any) -> None:
    """In buffers: blocks of 8 sequences and of 1 take turns in them, and their rows are longer than the 5 units."""
    spec = replace(random_case(4, kind).spec, num_envs=140, masked=False)
    config = PPOConfig(
        num_envs=140, num_steps=3, num_minibatches=1, network=NetworkConfig(rnn=kind, rnn_size=5),
        runtime=RuntimeConfig(compile="native"),
    )  # fmt: skip
    agent, generator = PPOAgent(config, spec, seed=1), torch.Generator().manual_seed(0)
    rollout = agent.allocate_rollout()
    rollout.obs.normal_(generator=generator)
    state = agent.state_dict()
    expected = agent.update(rollout)
    assert expected.fault is None
    faulty = replace(rollout, obs=rollout.obs.clone().fill_(torch.nan))
    assert agent.update(faulty).fault is not None
    agent.load_state_dict(state)
    assert agent.update(rollout) == replace(expected, update=0)

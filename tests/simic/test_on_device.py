"""How data of the host comes to a device, and how much is evaluated there at once."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import probes
from esper.simic.collect import Collector
from esper.simic.config import NetworkConfig, PPOConfig, RuntimeConfig
from esper.simic.ppo import PPOAgent
from esper.simic.rollout import Rollout, on_device


def agent_for(env: probes.Probe, **network: Any) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=16,
        num_minibatches=4,
        network=NetworkConfig(hidden_sizes=(4,), **network),
        runtime=RuntimeConfig(compile="off"),
    )
    return PPOAgent(config, env.spec)


def collected(agent: PPOAgent, env: probes.Probe) -> Rollout:
    rollout, size = agent.allocate_rollout(), agent.network.state_size
    memory = torch.zeros(probes.NUM_ENVS, size) if size else None
    Collector(env, 0, recurrent_state=memory).collect(agent.network, rollout, agent.generators["actions"])
    return rollout


def test_copies_to_a_card_are_pinned_and_the_host_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[Any] = []

    def pin_memory(tensor: Tensor) -> Tensor:
        said.append("pinned")
        return tensor

    def to(tensor: Tensor, *args: Any, **options: Any) -> Tensor:
        said.append((*args, options))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    array = np.arange(3)
    on_device(array, torch.device("cuda:1"))
    assert said == ["pinned", (torch.device("cuda:1"), {"non_blocking": True})]
    here = on_device(array, torch.device("cpu"))
    array[0] = 7
    assert here.tolist() == [7, 1, 2]
    assert len(said) == 2


def test_rows_to_learn_from_are_copied_once(monkeypatch: pytest.MonkeyPatch) -> None:
    env = probes.Cue(resets_in_a_step=True)
    agent = agent_for(env)
    rollout = collected(agent, env)
    copied: list[Any] = []

    def counted(array: Any, device: torch.device) -> Tensor:
        copied.append(array)
        return on_device(array, device)

    monkeypatch.setattr("esper.simic.rollout.on_device", counted)
    rollout.sample_indices(agent.ignored_rows)
    assert len(copied) == 1
    agent.updater.prepare(rollout)
    assert len(copied) == 2


class EndlessImages(probes.RewardByImage):
    """Every episode is cut after a step."""

    def step(self, actions: Any) -> Any:
        step = super().step(actions)
        return step._replace(terminated=step.truncated, truncated=step.terminated, final_obs=step.obs)


class TestRowsAtOnce:
    @pytest.mark.parametrize("encoder", ["small", None])
    def test_images_are_evaluated_a_minibatch_at_a_time_final_ones_too(self, encoder: str | None) -> None:
        env = EndlessImages() if encoder else probes.EndlessReward()
        agent = agent_for(env, **({"encoder": encoder} if encoder else {}))
        rollout = collected(agent, env)
        assert rollout.truncated.all() == bool(encoder)
        rows: list[int] = []
        agent.network.critic.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
        agent.updater.prepare(rollout)
        batch, minibatch = agent.config.batch_size, agent.config.minibatch_size
        # The rollout, what follows its last step, and final observations.
        cut = int(rollout.truncated.sum())
        expected = [*4 * [minibatch], probes.NUM_ENVS, *4 * [minibatch]] if encoder else [batch, probes.NUM_ENVS, cut]
        assert rows == expected

    def test_of_sequences_only_what_was_cut_is_evaluated_again_on_the_host(self) -> None:
        env = probes.EndlessReward()
        agent = agent_for(env, rnn="lstm", rnn_size=4)
        rollout = collected(agent, env)
        rows: list[int] = []
        agent.network.critic[-1].register_forward_hook(lambda module, inputs, output: rows.append(output.numel()))
        agent.updater.prepare(rollout)
        # 8 environments, 2 at a time, 16 steps and what follows; then each episode that was cut.
        assert rows[::2] == 4 * [2 * 17]
        assert sum(rows[1::2]) == int(rollout.truncated.sum())

    def test_values_of_sequences_are_the_same_where_all_rows_are_evaluated(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        env = probes.EndlessReward()
        agent = agent_for(env, rnn="gru", rnn_size=4)
        rollout = collected(agent, env)
        on_host = agent.updater.engine.evaluate_rollout(rollout)[2]
        with monkeypatch.context() as patched:
            patched.setattr("esper.simic.rollout.selects_rows", lambda tensor: False)
            on_card = agent.updater.engine.evaluate_rollout(rollout)[2]
        torch.testing.assert_close(on_host, on_card, rtol=0, atol=1e-6)

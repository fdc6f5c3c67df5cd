"""Numbers that are not finite: learned from, they skip one update and leave everything as it was; else nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

import probes
from esper.envs.base import Step
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic import train_ppo_vectorized as train
from esper.simic.nets.recurrent import Lstm, Sequences
from esper.simic.sequences import evaluate_sequences
from esper.simic.vectorized import make_collector
from esper.telemetry.events import Event, UpdateSkipped

NAN = float("nan")


class FaultyCue(probes.Cue):
    """`Cue` that resets in a step of its own; `faults` are what environment 0 observes in steps, from 1."""

    def __init__(self, faults: dict[int, float]) -> None:
        self._faults, self._steps = faults, 0
        super().__init__(resets_in_a_step=True)

    def step(self, actions: NDArray[Any]) -> Step:
        self._steps += 1
        step = super().step(actions)
        if self._steps in self._faults:
            for obs in (step.obs, step.final_obs):
                if obs is not None:
                    obs[0] = self._faults[self._steps]
        return step


def run(env: probes.Probe, **changes: Any) -> tuple[PPOAgent, list[Event]]:
    settings = {"num_envs": probes.NUM_ENVS, "num_steps": 8, "num_minibatches": 2, "normalize_rewards": True, **changes}
    network = {"hidden_sizes": (8,), "normalize_observations": True} | settings.pop("network", {})
    config = PPOConfig(**settings, total_timesteps=12 * 64, network=NetworkConfig(**network))
    agent = PPOAgent(config, env.spec, seed=1)
    events: list[Event] = []
    train(agent, env, on_event=events.append)
    assert all(tensor.isfinite().all() for tensor in agent.network.state_dict().values())
    assert all(tensor.isfinite().all() for tensor in agent.reward_scaler.state_dict().values())
    return agent, events


def skipped(events: list[Event]) -> list[UpdateSkipped]:
    return [event for event in events if isinstance(event, UpdateSkipped)]


@pytest.fixture(params=["off", "native"])
def engine(request: pytest.FixtureRequest) -> RuntimeConfig:
    return RuntimeConfig(compile=request.param)


class TestRuns:
    """Episodes have 4 steps, and a fifth that resets: the third one ends in step 14, in the second rollout of 8."""

    @pytest.mark.parametrize("bad", [NAN, np.inf])
    def test_the_last_observation_of_a_terminated_episode_is_not_learned_from(
        self, engine: RuntimeConfig, bad: float
    ) -> None:
        _, events = run(FaultyCue({14: bad}), runtime=engine)
        assert len(events) == 12
        assert not skipped(events)

    @pytest.mark.parametrize("bad", [NAN, np.inf, -np.inf])
    def test_an_observation_in_an_episode_skips_one_update(self, engine: RuntimeConfig, bad: float) -> None:
        _, events = run(FaultyCue({12: bad}), runtime=engine)
        (skip,) = skipped(events)
        assert skip.cause == f"the observation of environment 0 was {bad:g} in step 4 of the rollout"
        assert (events.index(skip), skip.non_finite) == (1, True)

    # Infinity is clipped before it comes to the layer, and must not be learned from all the same.
    @pytest.mark.parametrize(
        ("bad", "resets", "said"), [(NAN, 1, "; recurrent states reset: 1"), (np.inf, 0, ""), (-np.inf, 0, "")]
    )
    def test_a_recurrent_state_that_is_lost_is_reset_at_once(self, bad: float, resets: int, said: str) -> None:
        _, events = run(FaultyCue({12: bad}), network={"lstm_size": 4})
        (skip,) = skipped(events)
        assert skip.cause == f"the observation of environment 0 was {bad:g} in step 4 of the rollout{said}"
        assert (events.index(skip), skip.recurrent_resets) == (1, resets)

    def test_a_recurrent_state_after_what_is_not_learned_from_begins_anew_as_ever(self) -> None:
        """Step 14 is the last one of an episode, and step 15 of 16 of a rollout: its observation is seen in step 15."""
        for length in (7, 8):
            _, events = run(FaultyCue({14: NAN}), network={"lstm_size": 4}, num_steps=length)
            assert not skipped(events)


class TestRecurrentState:
    def test_what_is_learned_next_is_as_the_policy_acted(self) -> None:
        """The observation that begins the third episode, in step 2 of the second rollout, is not finite."""
        env = FaultyCue({10: NAN})
        runtime = RuntimeConfig(compile="off")
        config = PPOConfig(
            num_envs=8, num_steps=8, num_minibatches=2, network=NetworkConfig(lstm_size=4), runtime=runtime
        )
        agent, acted = PPOAgent(config, env.spec, seed=1), []
        collector, rollout, unroll = make_collector(agent, env, 1), agent.allocate_rollout(), agent.network.unroll

        def listening(obs: Tensor, sequences: Sequences) -> tuple[Tensor, Tensor, Tensor]:
            result = unroll(obs, sequences)
            acted.append(result[0][:, 0])
            return result

        agent.network.unroll = listening  # type: ignore[method-assign]
        for _ in range(2):
            collector.collect(agent.network, rollout, agent.generators["actions"])
        agent.network.unroll = unroll  # type: ignore[method-assign]
        assert np.argwhere(rollout.recurrent_resets).tolist() == [[2, 0]]
        assert collector.state_dict()["memory"].isfinite().all()
        logits = torch.stack(acted[-8:])
        assert logits[2, 0].isnan().all()
        # What it was does not matter after it, whatever begins there.
        rollout.obs[2, 0], logits[2, 0] = 5.0, 0.0
        log_probs, *_ = evaluate_sequences(agent.network, rollout, 4)
        expected = logits.log_softmax(-1).gather(-1, rollout.actions.unsqueeze(-1)).squeeze(-1)
        others = torch.ones_like(log_probs, dtype=torch.bool)
        others[2, 0] = False
        torch.testing.assert_close(log_probs[others], expected[others])

    def test_what_was_before_an_episode_does_not_matter(self) -> None:
        layer = Lstm(2, 3)
        layer.initialize(torch.Generator().manual_seed(0))
        inputs, begins = torch.ones(2, 4, 2), torch.tensor([[True, False, False, False]] * 2)
        results = []
        for before in (0.0, NAN):
            outputs, memories = layer(inputs, Sequences(torch.full((2, 6), before), begins))
            gradients = torch.autograd.grad(outputs.sum(), tuple(layer.parameters()))
            results.append((outputs, memories, *gradients))
        assert all(a.equal(b) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("compile", ["off", "native"])
def test_rewards_that_would_all_be_scaled_to_0_skip_one_update(compile: Any) -> None:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=8,
        normalize_rewards=True,
        runtime=RuntimeConfig(compile=compile),
    )
    env = probes.ConstantReward()
    agent = PPOAgent(config, env.spec)
    rollout = agent.allocate_rollout()
    collector = make_collector(agent, env, 1)
    collector.collect(agent.network, rollout, agent.generators["actions"])
    rollout.rewards[:] = 3e38
    rollout.terminated[:] = False
    refused = agent.update(rollout)
    assert refused.fault == "the deviation of discounted returns, by which rewards are divided, was inf"
    collector.collect(agent.network, rollout, agent.generators["actions"])
    assert agent.update(rollout).fault is None

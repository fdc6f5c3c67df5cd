"""Numbers that are not finite: learned from, they skip one update and leave everything as it was; else nothing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import probes
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic import train_ppo_vectorized as train
from esper.telemetry.events import Event, UpdateSkipped

NAN = float("nan")


class FaultyCue(probes.Cue):
    """`Cue` that resets in a step of its own; `faults` are what environment 0 observes in steps, from 1."""

    def __init__(self, faults: dict[int, float]) -> None:
        self._faults, self._steps = faults, 0
        super().__init__(resets_in_a_step=True)

    def step(self, actions):
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
    agent, events = PPOAgent(config, env.spec, seed=1), []
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

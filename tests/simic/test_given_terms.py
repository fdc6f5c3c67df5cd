"""Loss terms from Python: their weights, their record, their resume, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

import probes
from esper.schedules import CoefficientConfig, make_schedule
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, train_ppo_vectorized
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.losses import Inputs
from esper.simic.vectorized import Training
from esper.telemetry.events import Event, UpdateCompleted, UpdateSkipped
from esper.telemetry.records import to_record

UPDATES = 4


def value_mean(inputs: Inputs) -> Tensor:
    return inputs.evaluation.value.mean()


def agent(loss_terms: Any, *, compile: Any = "auto", debug: bool = False) -> PPOAgent:
    config = PPOConfig(
        num_envs=probes.NUM_ENVS,
        num_steps=8,
        num_minibatches=2,
        total_timesteps=UPDATES * probes.NUM_ENVS * 8,
        network=NetworkConfig(hidden_sizes=(4,)),
        runtime=RuntimeConfig(compile=compile),
    )
    return PPOAgent(config, probes.RewardByObservation().spec, debug=debug, loss_terms=loss_terms)


def trained(made: PPOAgent) -> list[Event]:
    events: list[Event] = []
    train_ppo_vectorized(made, probes.RewardByObservation(), on_event=events.append)
    return events


@torch.no_grad()
def values(made: PPOAgent) -> float:
    return float(made.network.value(torch.linspace(-1, 1, 8)[:, None]).mean())


def test_is_minimised_by_its_weight() -> None:
    """A weight of 100 leaves little else: values fall, or rise where it is negative."""
    start = values(agent({"value_mean": (value_mean, 100.0)}))
    ends = []
    for weight in (100.0, -100.0, 0.0):
        made = agent({"value_mean": (value_mean, weight)}, compile="off")
        trained(made)
        ends.append(values(made))
    assert ends[0] < min(start, ends[2])
    assert ends[1] > max(start, ends[2])


def test_a_weight_of_zero_changes_nothing() -> None:
    with_term, without = agent({"mine": (value_mean, 0.0)}, compile="off"), agent(None, compile="off")
    trained(with_term)
    trained(without)
    pairs = zip(with_term.optimizer.tensors(), without.optimizer.tensors(), strict=True)
    assert all(ours.equal(theirs) for ours, theirs in pairs)


@pytest.mark.parametrize("debug", [False, True])
def test_its_mean_is_recorded_without_the_weight(debug: bool) -> None:
    half: tuple[Callable[[Inputs], Tensor], float] = (lambda inputs: 0 * inputs.ratio.mean() + 0.5, 8.0)
    updates = [event for event in trained(agent({"half": half}, debug=debug)) if isinstance(event, UpdateCompleted)]
    assert len(updates) == UPDATES
    for update in updates:
        assert to_record(update)["loss_term/half"] == 0.5
        # 8 * 0.5 beside the other terms; the entropy has no weight.
        assert update.loss == pytest.approx(update.policy_loss + 0.5 * update.value_loss + 4, abs=1e-5)
    (other, *_) = trained(agent(None, compile="off"))
    assert not [name for name in to_record(other) if name.startswith("loss_term")]


def test_a_weight_follows_a_schedule_of_updates() -> None:
    falling = make_schedule(CoefficientConfig(peak=8.0, decay="linear"), UPDATES)
    constant: Callable[[Inputs], Tensor] = lambda inputs: 0 * inputs.ratio.mean() + 0.5  # noqa: E731
    updates = trained(agent({"half": (constant, falling)}))
    extra = [
        event.loss - event.policy_loss - 0.5 * event.value_loss
        for event in updates
        if isinstance(event, UpdateCompleted)
    ]
    assert extra == pytest.approx([0.5 * falling(update) for update in range(UPDATES)], abs=1e-5)
    assert falling(0) > falling(UPDATES - 1)


def test_torch_computes_it() -> None:
    made = agent({"mine": (value_mean, 1.0)})
    assert made.updater.engine_name == "eager"
    assert NativeEngine.missing(made.updater.workload) == "loss term mine"
    with pytest.raises(ConfigError, match="compile = native: is not available: loss term mine"):
        agent({"mine": (value_mean, 1.0)}, compile="native")


def test_one_that_is_not_finite_undoes_the_update_and_is_named() -> None:
    made = agent({"mine": (lambda inputs: inputs.ratio.mean() * float("nan"), 1.0)})
    before = [tensor.clone() for tensor in made.optimizer.tensors()]
    first = trained(made)[0]
    assert isinstance(first, UpdateSkipped)
    assert "loss_term/mine nan" in first.cause
    assert all(ours.equal(saved) for ours, saved in zip(made.optimizer.tensors(), before, strict=True))


def test_goes_on_where_it_was_with_the_same_terms_alone() -> None:
    terms = {"mine": (value_mean, lambda update: 0.1 * update)}
    env = probes.RewardByObservation
    whole, first, second = (Training(agent(terms), env(), env_seed=1) for _ in range(3))
    for _ in range(4):
        whole.update()
    for _ in range(2):
        first.update()
    state = first.state_dict()
    second.load_state_dict(state, env_seed=1)
    for _ in range(2):
        second.update()
    pairs = zip(whole.agent.optimizer.tensors(), second.agent.optimizer.tensors(), strict=True)
    assert all(ours.equal(theirs) for ours, theirs in pairs)
    for other in ({}, {"other": terms["mine"]}):
        with pytest.raises(ValueError, match=r"trained with loss_terms \['mine'\], not .*; give the same ones again"):
            agent(other).load_state_dict(state["agent"])
    with pytest.raises(ValueError, match=r"trained with loss_terms \[\], not \['mine'\]"):
        agent(terms).load_state_dict(agent(None).state_dict())


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"a b": (value_mean, 1.0)}, "loss_terms = a b: must be a name of letters, digits and _, and none"),
        ({"entropy": (value_mean, 1.0)}, "loss_terms = entropy: must be a name"),
        ({"mine": value_mean}, "must be a function and its weight"),
        ({"mine": (1.0, value_mean)}, "must be a function and its weight"),
        ({"mine": (value_mean, "1")}, "loss_terms = mine: '1': must have a finite number as its weight"),
        ({"mine": (value_mean, float("inf"))}, "loss_terms = mine: inf: must have a finite number as its weight"),
        ({"mine": (value_mean, lambda update: None)}, "None: must have a finite number as its weight in update 0"),
    ],
)
def test_what_cannot_be_used_is_refused(terms: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        agent(terms)


@pytest.mark.parametrize(("mean", "found"), [(lambda inputs: inputs.ratio, r"\[32\]"), (lambda inputs: 1.0, "float")])
def test_one_that_returns_no_mean_is_refused_at_its_first_update(mean: Any, found: str) -> None:
    with pytest.raises(ConfigError, match=f"= mine: must return the mean over the minibatch, 0-d, not {found}"):
        trained(agent({"mine": (mean, 1.0)}))

"""Optimizers from Python: their rates, their state, updates that are undone, and what is refused."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import Tensor

import probes
from esper.schedules import ScheduleConfig
from esper.settings.options import ConfigError
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.engines.native.engine import NativeEngine
from esper.simic.losses import Inputs
from esper.simic.vectorized import Training

UPDATES = 4
OPTIMIZERS: dict[str, Any] = {
    "adam": functools.partial(torch.optim.Adam, eps=1e-5),
    "adamw": functools.partial(torch.optim.AdamW, weight_decay=0.1),
    "amsgrad": functools.partial(torch.optim.Adam, amsgrad=True, lr=torch.tensor(1.0)),
    "rmsprop": lambda groups: torch.optim.RMSprop(groups),
    "sgd": functools.partial(torch.optim.SGD, momentum=0.9),
    "asgd": torch.optim.ASGD,
    "nadam": torch.optim.NAdam,
}


def agent(optimizer: Any, *, compile: Any = "auto", loss_terms: Any = None, **settings: Any) -> PPOAgent:
    config = PPOConfig(
        **{
            "num_envs": probes.NUM_ENVS,
            "num_steps": 8,
            "num_minibatches": 2,
            "total_timesteps": UPDATES * probes.NUM_ENVS * 8,
            "network": NetworkConfig(hidden_sizes=(4,)),
            "runtime": RuntimeConfig(compile=compile),
            "policy_lr": 1e-2,
            "value_lr": 1e-3,
            **settings,
        }
    )
    return PPOAgent(config, probes.RewardByObservation().spec, loss_terms=loss_terms, optimizer=optimizer)


def training(optimizer: Any, **settings: Any) -> Training:
    return Training(agent(optimizer, **settings), probes.RewardByObservation(), env_seed=1)


def after(training: Training, updates: int = UPDATES) -> list[Tensor]:
    for _ in range(updates):
        training.update()
    return [flat.clone() for flat in training.agent.optimizer.parameters]


def test_torch_adam_goes_the_way_of_ours() -> None:
    """Up to rounding: rates apart by group, clipping, minibatches and schedules are the same."""
    for settings in ({}, {"shared": True}):
        network = NetworkConfig(hidden_sizes=(4,), shared_trunk=bool(settings))
        ours, theirs = (after(training(given, network=network)) for given in (None, OPTIMIZERS["adam"]))
        assert len(ours) == (3 if settings else 2)
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_goes_on_exactly_where_it_was(name: str) -> None:
    whole, first, second = (training(OPTIMIZERS[name]) for _ in range(3))
    after(first, 2)
    second.load_state_dict(first.state_dict(), env_seed=1)
    assert all(a.equal(b) for a, b in zip(after(second, 2), after(whole), strict=True))


@pytest.mark.parametrize("name", ["adamw", "sgd", "asgd", "amsgrad"])
def test_an_update_that_is_not_finite_is_undone_with_its_state(name: str) -> None:
    """The second minibatch of the second update is not finite: the first has stepped, and leaves no trace."""
    calls: list[int] = []

    def broken(inputs: Inputs) -> Tensor:
        calls.append(1)
        return inputs.ratio.mean() * (float("nan") if len(calls) == 8 + 2 else 0.0)

    made = training(OPTIMIZERS[name], loss_terms={"mine": (broken, 1.0)})
    made.update()
    before, parameters = made.agent.optimizer.state_dict(), [each.clone() for each in made.agent.optimizer.parameters]
    made.update()
    assert (made.undone, len(before["state"])) == (1, 8)
    # All but the rates, which are those of the second update.
    torch.testing.assert_close(made.agent.optimizer.state_dict()["state"], before["state"], rtol=0, atol=0)
    assert all(a.equal(b) for a, b in zip(made.agent.optimizer.parameters, parameters, strict=True))
    made.update()
    assert made.undone == 1


def test_a_rate_of_zero_moves_nothing() -> None:
    """Also where the optimizer would: this one ignores its rate."""

    class Drift(torch.optim.SGD):
        def step(self, closure: Any = None) -> None:  # type: ignore[override]
            with torch.no_grad():
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.add_(1.0)

    made = training(Drift, value_lr=ScheduleConfig(peak=1e-3, delay=1))
    policy, value = (flat.clone() for flat in made.agent.optimizer.parameters)
    moved, still = after(made, 1)
    assert still.equal(value)
    # 4 epochs of 2 minibatches.
    torch.testing.assert_close(moved - policy, torch.full_like(policy, 8.0))


def test_rates_are_those_of_the_schedules() -> None:
    made: list[torch.optim.Optimizer] = []
    seen: list[list[float]] = []

    def factory(groups: Any) -> torch.optim.Optimizer:
        assert [group["name"] for group in groups] == ["policy", "value"]
        made.append(torch.optim.SGD(groups))
        made[0].register_step_pre_hook(lambda *_: seen.append([group["lr"] for group in made[0].param_groups]))
        return made[0]

    after(training(factory), 1)
    assert seen == [pytest.approx([1e-2, 1e-3])] * 8


def test_torch_computes_it() -> None:
    made = agent(torch.optim.SGD)
    assert made.updater.engine_name == "eager"
    assert NativeEngine.missing(made.updater.workload) == "an optimizer from Python"
    for name in ("native", "torch"):
        with pytest.raises(ConfigError, match=f"compile = {name}: is not available: an optimizer from Python"):
            agent(torch.optim.SGD, compile=name)


def test_a_state_of_another_optimizer_is_refused() -> None:
    sgd, ours, adam = (training(given) for given in (torch.optim.SGD, None, torch.optim.Adam))
    for each in (sgd, ours, adam):
        after(each, 1)
    for one, other in ((sgd, ours), (ours, sgd)):
        with pytest.raises(ValueError, match="the state is of another optimizer; give the same optimizer= again"):
            one.agent.load_state_dict(other.agent.state_dict())
    with pytest.raises(ValueError, match=r"optimizer: a group has \[.*'momentum'.*\], the state \[.*'betas'"):
        sgd.agent.load_state_dict(adam.agent.state_dict())


def damaged(state: dict[str, Any], name: str) -> dict[str, Any]:
    """`state` with a value at `name` that is not of such an agent."""
    key, _, below = name.partition("/")
    broken: Any = [] if name == "generators/actions" else torch.zeros(7)
    return {**state, key: damaged(state[key], below) if below else broken}


def values(state: Any) -> Any:
    """`state` with numbers in place of tensors."""
    if isinstance(state, dict):
        return {key: values(each) for key, each in state.items()}
    return state.tolist() if isinstance(state, Tensor) else state


@pytest.mark.parametrize("factory", [None, torch.optim.Adam], ids=["ours", "given"])
@pytest.mark.parametrize(
    "name", ["network/critic.0.bias", "optimizer/learning_rate/value", "reward_scaler/mean", "generators/actions"]
)
def test_a_state_that_is_refused_changes_nothing(factory: Any, name: str) -> None:
    ours, other = training(factory, normalize_rewards=True), training(factory, normalize_rewards=True, policy_lr=1e-1)
    after(ours, 1)
    after(other, 2)
    before = values(ours.agent.state_dict())
    with pytest.raises((ValueError, RuntimeError)):
        ours.agent.load_state_dict(damaged(other.agent.state_dict(), name))
    assert values(ours.agent.state_dict()) == before


class Replacing(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for parameter in group["params"]:
                parameter.data = parameter.data.clone()


class Remembering(torch.optim.SGD):
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.state[self.param_groups[0]["params"][0]]["path"] = object()


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (3, "must be a factory"),
        (torch.optim.SGD([torch.zeros(1)]), "must be a factory: a class or a function that takes parameter groups"),
        (lambda groups: None, "must return a torch.optim.Optimizer, not NoneType"),
        (lambda groups: torch.optim.SGD(groups[:1]), "leaves out 4 of the parameters, the first one of value"),
        (lambda groups: torch.optim.SGD([*groups, {"params": [torch.zeros(1)]}]), "has a parameter that is not of the"),
        (lambda groups: torch.optim.SGD([*groups, groups[0]]), "fails on the parameter groups: some parameters appear"),
        (
            lambda groups: torch.optim.SGD([each for group in groups for each in group["params"]]),
            "joins policy and value, which have rates of their own",
        ),
        (torch.optim.LBFGS, "fails on the parameter groups: LBFGS doesn't support per-parameter options"),
        (torch.optim.lr_scheduler.StepLR, "fails on the parameter groups: "),
    ],
)
def test_what_cannot_be_used_is_refused(factory: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as refused:
        agent(factory)
    assert refused.value.name == "optimizer"


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (Replacing, "replaces parameter .*; it must write it in place"),
        (Remembering, "has object at state/0/path in its state, which a checkpoint cannot hold"),
    ],
)
def test_what_only_a_step_shows_is_refused_there(factory: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        after(training(factory), 1)


def test_one_that_needs_a_closure_is_refused() -> None:
    class Closing(torch.optim.SGD):
        def step(self, closure: Any) -> None:  # type: ignore[override]
            closure()

    with pytest.raises(ConfigError, match="its Closing needs a closure for a step, which there is not"):
        agent(Closing)
    with pytest.raises(ConfigError, match="adam_eps = 1e-07: has no effect on an optimizer from Python"):
        agent(torch.optim.SGD, adam_eps=1e-7)


def test_a_loaded_state_stays_as_it_is() -> None:
    """Torch's optimizers keep the tensors that they load, and write into them."""
    run = training(OPTIMIZERS["adam"])
    run.update()
    state = run.agent.state_dict()
    counts = [float(each["step"]) for each in state["optimizer"]["state"].values()]
    run.agent.load_state_dict(state)
    run.update()
    assert [float(each["step"]) for each in state["optimizer"]["state"].values()] == counts

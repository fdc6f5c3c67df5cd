"""Random updates with faults in them: the same on every engine, and as if nothing had been where nothing is learned.

`python tests/simic/engines/differential.py --help` for a study with many; test_differential.py runs some of them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import time
from collections import Counter
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import ContinuousActions, DiscreteActions, EnvSpec, Images, MultiDiscreteActions, Vectors
from esper.schedules import CoefficientConfig, FeedbackConfig
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.feedback import ROUNDING
from esper.simic.optimizers import BETA2
from esper.simic.rollout import Rollout
from esper.simic.update import UpdateResult

ENGINES = ("native", "off")
RECURRENT = ("lstm", "gru")
NETWORKS = ("plain", "apart", "shared", "masks", "choices", "layers", "images", *RECURRENT)


@dataclass(frozen=True)
class Fault:
    """`value` at `index` of a field of a rollout, which is `learned` from or not."""

    field: str
    index: tuple[int, ...]
    value: float
    learned: bool


@dataclass(frozen=True)
class Case:
    """A random configuration, a rollout that fits it, and faults to put into it."""

    spec: EnvSpec
    settings: dict[str, Any]
    rollout: Rollout
    faults: tuple[Fault, ...]

    def agent(self, engine: str) -> PPOAgent:
        config = PPOConfig(**self.settings, runtime=RuntimeConfig(compile=engine))  # type: ignore[arg-type]
        return PPOAgent(config, self.spec, seed=1)

    def faulty(self, *, zeros: bool = False) -> Rollout:
        """The rollout with its faults, or with 0 where they are not learned from."""
        rollout = copy.deepcopy(self.rollout)
        for fault in self.faults:
            value = 0.0 if zeros and not fault.learned else fault.value
            getattr(rollout, fault.field)[fault.index] = value
        return rollout

    @property
    def refused(self) -> bool | None:
        """Whether an update must be: None where numbers are too large to tell."""
        learned = [fault.value for fault in self.faults if fault.learned]
        if not np.isfinite(learned).all():
            return True
        return None if learned else False


def random_case(seed: int, network: str) -> Case:
    rng = np.random.default_rng(seed)

    def one_of(*options: Any) -> Any:
        return options[rng.integers(len(options))]

    recurrent = network in RECURRENT
    num_envs, num_steps = int(rng.integers(2, 20 if recurrent else 6)), int(rng.integers(2, 13))
    minibatches = [n for n in (1, 2, 3, 4) if (num_envs if recurrent else num_envs * num_steps) % n == 0]
    actions: Any = {
        "plain": one_of(DiscreteActions(n=int(rng.integers(2, 6))), ContinuousActions(size=int(rng.integers(1, 4)))),
        "any": one_of(DiscreteActions(n=3), ContinuousActions(size=2), MultiDiscreteActions(nvec=(2, 3))),
        "masks": one_of(DiscreteActions(n=4), MultiDiscreteActions(nvec=(2, 3))),
        "choices": MultiDiscreteActions(nvec=tuple(rng.integers(2, 5, size=rng.integers(1, 4)).tolist())),
        "shared": one_of(DiscreteActions(n=2), ContinuousActions(size=2)),
    }["any" if recurrent or network == "images" else network if network not in ("apart", "layers") else "plain"]
    spec = EnvSpec(
        num_envs=num_envs,
        observations=_images(rng) if network == "images" else Vectors(size=int(rng.integers(1, 7))),
        actions=actions,
        masked=network == "masks" or (recurrent and not isinstance(actions, ContinuousActions) and one_of(False, True)),
    )
    layers = int(rng.integers(1 if network == "shared" else 0, 3))
    settings = {
        "num_envs": num_envs,
        "num_steps": num_steps,
        "update_epochs": one_of(1, 2),
        "num_minibatches": one_of(*minibatches),
        "gamma": one_of(0.9, 0.99, 1.0),
        "gae_lambda": one_of(0.0, 0.95, 1.0),
        "value_clip_coef": one_of(None, 0.2),
        "target_kl": one_of(None, None, 1e-3, 1.0),
        "max_grad_norm": one_of(None, 0.5),
        "max_grad_norm_over": one_of("all", "group"),
        "normalize_advantages": one_of(False, True),
        "normalize_rewards": one_of(False, True),
        "entropy_coef": CoefficientConfig(peak=one_of(0.0, 0.01)),
        "policy_lr": ScheduleConfig(peak=one_of(1e-4, 1e-2)),
        "network": NetworkConfig(
            hidden_sizes=tuple(rng.integers(1, 40, size=layers).tolist()),
            activation=one_of("tanh", "relu"),
            normalize_observations=one_of(False, True),
            shared_trunk=network == "shared" or (recurrent and one_of(False, True)),
            rnn=network if recurrent else None,  # type: ignore[arg-type]
            rnn_size=int(rng.integers(1, 40)) if recurrent else None,
        ),
    }
    if network == "images":
        settings["network"] = _of_images(settings["network"], spec, num_envs % settings["num_minibatches"] == 0, rng)
    if num_envs * num_steps // settings["num_minibatches"] < 2:
        settings["num_minibatches"] = 1
    if network in ("apart", "layers"):
        sizes = tuple(rng.integers(1, 40, size=rng.integers(0, 3)).tolist())
        settings["network"] = replace(settings["network"], **{one_of("actor", "critic") + "_hidden_sizes": sizes})
    if network == "layers" or recurrent:
        chosen = {"activation": one_of("tanh", "elu", "gelu", "silu"), "layer_norm": one_of(False, True)}
        settings["network"] = replace(settings["network"], **chosen)
        if chosen["layer_norm"] and 1 in itertools.chain(*settings["network"].sizes_of_bodies()):
            # Of one number it leaves nothing but rounding.
            settings["network"] = replace(settings["network"], layer_norm=False)
    rollout = _random_rollout(Case(spec, settings, None, ()).agent("off"), rng)  # type: ignore[arg-type]
    faults = _random_faults(rollout, rng)
    settings["value_coef"] = one_of(0.0, 0.5, 2.0)
    if settings["target_kl"] != 1e-3:
        settings["policy_lr_kl"] = one_of(FeedbackConfig(), FeedbackConfig(target=1e-3, step=2.0, every="minibatch"))
    settings["value_lr_kl"] = one_of(FeedbackConfig(), FeedbackConfig(target=1e-4, min_factor=0.5))
    settings["metrics_after"] = True
    return Case(spec, settings, rollout, faults)


def _images(rng: np.random.Generator) -> Images:
    """Of a game, or seldom larger."""
    sides = rng.integers(3, 12, size=2)
    return Images(shape=(int(rng.integers(1, 8)), *sides.tolist()), highest=int(rng.choice([1, 255])))


def _of_images(network: NetworkConfig, spec: EnvSpec, whole: bool, rng: np.random.Generator) -> NetworkConfig:
    """Any network above an encoder or none; a recurrent one where minibatches are of `whole` environments."""
    # Without a hidden layer a trunk needs convolutions to share.
    encoders = ("flatten", "small", "small", "auto") if network.hidden_sizes else ("small",)
    rnn = str(rng.choice([*RECURRENT, "none", "none"])) if whole else "none"
    shared = bool(rng.random() < 0.5)
    recurrent = {} if rnn == "none" else {"rnn": rnn, "rnn_size": int(rng.integers(1, 20))}
    return replace(
        network,
        encoder=encoders[rng.integers(len(encoders))],
        shared_trunk=shared,
        **recurrent,  # type: ignore[arg-type]
    )


@torch.no_grad()
def _random_rollout(agent: PPOAgent, rng: np.random.Generator) -> Rollout:
    """Episodes as environments give them that reset in the same step, or in the next one."""
    rollout, generator = agent.allocate_rollout(), torch.Generator().manual_seed(int(rng.integers(2**31)))
    num_steps, num_envs = rollout.rewards.shape
    for field in (rollout.obs, rollout.final_obs, rollout.rewards):
        if isinstance(agent.spec.observations, Images) and field is not rollout.rewards:
            dots = torch.rand(field.shape, generator=generator) < float(rng.choice([0.05, 0.5, 1.0]))
            field.random_(int(agent.spec.observations.highest) + 1, generator=generator).mul_(dots)
        else:
            field.normal_(generator=generator).mul_(float(rng.choice([0.1, 1.0, 10.0])))
    next_step, ends = rng.random() < 0.5, float(rng.choice([0.0, 0.1, 0.3]))
    for env in range(num_envs):
        ended = rng.random() < ends
        rollout.begins[0, env] = ended or rng.random() < 0.5
        for step in range(num_steps):
            rollout.ignored[step, env] = next_step and ended
            terminated, truncated = (rng.random(2) < ends) & ~rollout.ignored[step, env]
            ended = bool(terminated or truncated)
            rollout.terminated[step, env], rollout.truncated[step, env] = bool(terminated), bool(truncated)
            rollout.begins[step + 1, env] = ended or rollout.ignored[step, env]
    if rollout.ignored.all(axis=0).any() or num_steps == 1:
        rollout.ignored[:] = False
    if rollout.recurrent_state is not None:
        rollout.recurrent_state.normal_(generator=generator)
    masks = None
    if rollout.masks is not None:
        rollout.masks.bernoulli_(0.5, generator=generator)
        # The first value of each choice, so that there is one.
        nvec = getattr(agent.spec.actions, "nvec", (agent.spec.actions.outputs,))
        rollout.masks[..., np.cumsum([0, *nvec[:-1]])] = True
        masks = rollout.masks.flatten(0, 1)
    noise = agent.network.noise((num_steps * num_envs,), generator)
    memory = (
        None if rollout.recurrent_state is None else torch.zeros(num_steps * num_envs, rollout.recurrent_state.shape[1])
    )
    actions = agent.network.act(rollout.obs[:-1].flatten(0, 1), noise, masks, memory)
    rollout.actions.copy_(actions.view_as(rollout.actions))
    return rollout


def learned_from(rollout: Rollout) -> dict[str, np.ndarray]:
    """For each field which rows [T, N] (observations [T + 1, N], recurrent_state [N]) say something that is learned."""
    num_steps, num_envs = rollout.rewards.shape
    learned = {name: np.zeros((num_steps, num_envs), dtype=bool) for name in ("final_obs", "rewards", "actions")}
    learned |= {"obs": np.zeros((num_steps + 1, num_envs), dtype=bool), "recurrent_state": ~rollout.begins[0]}
    for step in range(num_steps):
        for env in range(num_envs):
            if rollout.ignored[step, env]:
                continue
            learned["obs"][step, env] = learned["rewards"][step, env] = learned["actions"][step, env] = True
            if not rollout.terminated[step, env]:
                if rollout.truncated[step, env]:
                    learned["final_obs"][step, env] = True
                else:
                    learned["obs"][step + 1, env] = True
    return learned


def _random_faults(rollout: Rollout, rng: np.random.Generator) -> tuple[Fault, ...]:
    learned = learned_from(rollout)
    for field in ("obs", "final_obs", "actions"):
        if not getattr(rollout, field).is_floating_point():
            del learned[field]
    # One that is not finite is reset by the collector.
    learned["recurrent_state"] = (
        learned["recurrent_state"] if rollout.recurrent_state is not None else np.zeros(0, dtype=bool)
    )
    wanted, faults = rng.choice(["learned", "other", "any"]), {}
    for _ in range(rng.integers(1, 4)):
        name, uses = (
            str(rng.choice(list(learned))),
            bool(rng.random() < 0.5) if wanted == "any" else wanted == "learned",
        )
        rows = np.argwhere(learned[name] == uses)
        if not len(rows) or (name == "recurrent_state" and uses):
            continue
        row = rng.choice(rows).tolist()
        index = (*row, *(int(rng.integers(size)) for size in getattr(rollout, name).shape[len(row) :]))
        huge = float(rng.choice([-1, 1])) * 10 ** rng.uniform(15, 38.5)
        value = float(np.float32(rng.choice([np.nan, np.inf, -np.inf, huge, huge])))
        faults[name, index] = Fault(name, index, value, bool(uses))
    return tuple(faults.values())


@dataclass(frozen=True)
class Outcome:
    """What an update gave, and everything of an agent before and after it."""

    result: UpdateResult
    before: dict[str, Tensor]
    after: dict[str, Tensor]


def tensors(agent: PPOAgent) -> dict[str, Tensor]:
    """Copies of parameters and moments, each flat by group, and statistics."""
    state = agent.state_dict()
    flat = zip(agent.optimizer.group_names, agent.optimizer.parameters, strict=True)
    parameters = {f"parameters/{name}": t.clone() for name, t in flat}
    optimizer = {f"{key}/{name}": t for key in ("exp_avg", "exp_avg_sq") for name, t in state["optimizer"][key].items()}
    buffers = {name: state["network"][name] for name, _ in agent.network.named_buffers()}
    scaler = {f"reward_scaler/{name}": t for name, t in state["reward_scaler"].items()}
    factors = {f"lr_factors/{name}": t for name, t in state["lr_factors"].items()}
    return {**parameters, **optimizer, **buffers, **scaler, **factors, "step": state["optimizer"]["step"]}


def update(agent: PPOAgent, state: dict[str, Any], rollout: Rollout) -> Outcome:
    agent.load_state_dict(copy.deepcopy(state))
    before = tensors(agent)
    return Outcome(agent.update(rollout), before, tensors(agent))


def check(case: Case) -> str:
    """What became of the update.

    Raises:
        AssertionError: naming what is not as it should be.
    """
    agents = {engine: case.agent(engine) for engine in ENGINES}
    first = agents["off"]
    assert first.update(case.rollout).fault is None
    state = first.state_dict()
    outcomes = {engine: update(agent, state, case.faulty()) for engine, agent in agents.items()}
    for engine, outcome in outcomes.items():
        fault = outcome.result.fault
        if case.refused is not None:
            assert (fault is not None) == case.refused, f"{engine}: {fault}"
        if fault is not None:
            assert_undone(outcome)
        if any(not fault.learned for fault in case.faults):
            clean = update(agents[engine], state, case.faulty(zeros=True))
            assert clean.result == outcome.result, f"{engine}: not learned from, but {clean.result} {outcome.result}"
            assert_same(clean.after, outcome.after)
    all_steps = case.settings["update_epochs"] * case.settings["num_minibatches"]
    edges = [level for name in ("policy_lr_kl", "value_lr_kl") for level in kl_edges(case.settings.get(name))]
    found = [outcome.result.metrics.get("approx_kl", np.nan) for outcome in outcomes.values()]
    if any(min(found) <= edge <= max(found) for edge in edges):
        # The factors of one go up where those of the other one stay.
        return "at the edge of feedback"
    huge, refused = case.refused is None, bool(case.refused)
    faulty = [outcome.result.fault is not None for outcome in outcomes.values()]
    if huge and case.settings["network"].layer_norm and faulty[0] != faulty[1]:
        # Beyond 1e19 torch.nn.LayerNorm has NaN or 0, by its width.
        return "layer norm beyond float32"
    return compare(*outcomes.values(), exact_fault=refused, huge=huge, all_steps=all_steps)


def assert_undone(outcome: Outcome) -> None:
    before, after = dict(outcome.before), dict(outcome.after)
    # Environments went on.
    assert after.pop("reward_scaler/discounted").isfinite().all()
    before.pop("reward_scaler/discounted")
    assert_same(before, after)


def assert_same(before: dict[str, Tensor], after: dict[str, Tensor]) -> None:
    changed = [name for name in before if not before[name].equal(after[name])]
    assert not changed, f"changed: {', '.join(changed)}"


def kl_edges(feedback: FeedbackConfig | None) -> tuple[float, ...]:
    """Where a factor changes."""
    if feedback is None or feedback.target is None:
        return ()
    return 2 * feedback.target, feedback.target / 2, ROUNDING


def compare(ours: Outcome, theirs: Outcome, *, exact_fault: bool, huge: bool = False, all_steps: int) -> str:
    """What became of both updates, whose faults say the same if `exact_fault`.

    With `huge` numbers a policy can be so sure that its gradient is what rounding leaves of it.
    """
    faults = ours.result.fault, theirs.result.fault
    steps = ours.result.optimizer_steps, theirs.result.optimizer_steps
    cut_short = any(fault is None and count < all_steps for fault, count in zip(faults, steps, strict=True))
    if not exact_fault and cut_short and steps[0] != steps[1]:
        # Where one was stopped by target_kl the other one took a step, and what came of it is only its own.
        return "at the edge of target_kl"
    assert (faults[0] is None) == (faults[1] is None), f"{faults[0]} / {faults[1]}"
    if exact_fault:
        assert faults[0] == faults[1], f"{faults[0]} / {faults[1]}"
    if faults[0] is not None:
        return "refused"
    assert steps[0] == steps[1]
    our_norms, their_norms = (list(outcome.result.grad_norms.values()) for outcome in (ours, theirs))
    if huge and not np.allclose(our_norms, their_norms, rtol=2e-3):
        return "rounded apart"
    for name, value in theirs.result.metrics.items():
        other = ours.result.metrics[name]
        assert np.isclose(other, value, rtol=2e-3, atol=2e-4, equal_nan=True), f"{name}: {other} / {value}"
    for name, tensor in theirs.after.items():
        kind, _, group = name.partition("/")
        scale = tensor.abs().max()
        allowed = 1e-6 * scale + adam_rounding(theirs, group) if kind == "parameters" else 2e-4 * scale + 1e-6
        excess, index = ((ours.after[name] - tensor).abs() - allowed).flatten().max(0)
        assert excess <= 0, f"{name}: {index} of {tensor.numel()} is {excess:g} too far apart, the largest is {scale:g}"
    return "accepted"


# Of the largest gradient of a group. Both engines sum up terms of its size, in another order.
GRADIENT_ROUNDING = 2e-5


def adam_rounding(outcome: Outcome, group: str) -> Tensor:
    """How far apart rounding may take each parameter of `group` in an update by Adam.

    A step is lr m / (sqrt(v) + eps), with bias-corrected m and v, and about lr at most. Gradients that differ by d
    change both m and sqrt(v) by at most d, and the step by at most 2 lr d / (sqrt(v) + eps). So where all gradients of
    a parameter and eps are as small as d, even the sign of its steps is open: 2 lr each.
    """
    end = float(outcome.after["step"])
    # v is no smaller than this in any step of the update.
    least = outcome.before[f"exp_avg_sq/{group}"] * BETA2**outcome.result.optimizer_steps / (1 - BETA2**end)
    largest = (outcome.after[f"exp_avg_sq/{group}"].max() / (1 - BETA2**end)).sqrt()
    uncertain: Tensor = (GRADIENT_ROUNDING * largest / (least.sqrt() + PPOConfig().adam_eps)).clamp(max=1.0)
    return 2 * outcome.result.rates.learning_rates[group] * outcome.result.optimizer_steps * uncertain


def study(seeds: range, network: str) -> Counter[str]:
    """What became of the updates of `seeds`."""
    outcomes: Counter[str] = Counter()
    for seed in seeds:
        case = random_case(seed, network)
        try:
            outcomes[check(case)] += 1
        except AssertionError as error:
            raise AssertionError(f"{network}, seed {seed}: {error}\n{case.settings}\n{case.faults}") from error
    return outcomes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--examples", type=int, default=2000, help="of each kind of network")
    parser.add_argument("--seed", type=int, default=0, help="of the first one")
    parser.add_argument("--network", choices=NETWORKS, help="this kind alone")
    parser.add_argument("--go-on", action="store_true", help="print what fails, and go on")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    for network in [arguments.network] if arguments.network else NETWORKS:
        started, outcomes = time.perf_counter(), Counter[str]()
        for seed in range(arguments.seed, arguments.seed + arguments.examples):
            try:
                outcomes += study(range(seed, seed + 1), network)
            except AssertionError as error:
                if not arguments.go_on:
                    raise
                outcomes["failed"] += 1
                print(error)
        print(f"{network}: {dict(outcomes)} in {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()

"""What the parts of a network cost: steps per second of updates by the kernels and by torch, on the same rollout.

Rollouts of 8 environments x 128 steps, 4 epochs x 4 minibatches, one thread. Cases and engines take turns in one
process, round after round; medians over rounds.

    python benchmarks/features.py --rounds 7
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from esper.envs.base import Actions, DiscreteActions, EnvSpec, MultiDiscreteActions, Vectors
from esper.simic import NetworkConfig, PPOAgent, PPOConfig, RuntimeConfig
from esper.simic.rollout import Rollout

NUM_ENVS, NUM_STEPS = 8, 128
ENGINES = ("native", "off")


@dataclass(frozen=True, kw_only=True)
class Case:
    """A kind of network and of actions."""

    network: NetworkConfig = NetworkConfig()
    actions: Actions = DiscreteActions(n=2)
    masked: bool = False

    def agent(self, engine: str) -> PPOAgent:
        spec = EnvSpec(num_envs=NUM_ENVS, observations=Vectors(size=4), actions=self.actions, masked=self.masked)
        runtime = RuntimeConfig(compile=engine, threads=1)  # type: ignore[arg-type]
        config = PPOConfig(num_envs=NUM_ENVS, num_steps=NUM_STEPS, network=self.network, runtime=runtime)
        return PPOAgent(config, spec)


CASES = {
    "apart": Case(),
    "shared trunk": Case(network=NetworkConfig(shared_trunk=True)),
    "layer norm": Case(network=NetworkConfig(layer_norm=True)),
    **{name: Case(network=NetworkConfig(activation=name)) for name in ("relu", "elu", "gelu", "silu")},
    "Discrete(20)": Case(actions=DiscreteActions(n=20)),
    "Discrete(20), masks": Case(actions=DiscreteActions(n=20), masked=True),
    "MultiDiscrete(3, 4, 5)": Case(actions=MultiDiscreteActions(nvec=(3, 4, 5))),
    "MultiDiscrete(3, 4, 5), masks": Case(actions=MultiDiscreteActions(nvec=(3, 4, 5)), masked=True),
    "MultiBinary(8)": Case(actions=MultiDiscreteActions(nvec=(2,) * 8)),
}


def random_rollout(agent: PPOAgent) -> Rollout:
    rollout, generator = agent.allocate_rollout(), torch.Generator().manual_seed(1)
    rollout.obs.normal_(generator=generator)
    rollout.rewards.normal_(generator=generator)
    if rollout.masks is not None:
        # The first value of each choice, which was taken in every step.
        rollout.masks.bernoulli_(0.5, generator=generator)
        nvec = getattr(agent.spec.actions, "nvec", (agent.spec.actions.outputs,))
        rollout.masks[..., [sum(nvec[:k]) for k in range(len(nvec))]] = True
    return rollout


def steps_per_second(agent: PPOAgent, rollout: Rollout, seconds: float) -> float:
    updates, started = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - started) < seconds:
        agent.update(rollout)
        updates += 1
    return updates * NUM_ENVS * NUM_STEPS / elapsed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of a turn")
    parser.add_argument("--cases", nargs="*", default=list(CASES), choices=list(CASES))
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    agents = {(name, engine): CASES[name].agent(engine) for name in args.cases for engine in ENGINES}
    turns = {key: (agent, random_rollout(agent)) for key, agent in agents.items()}
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in turns}
    for _ in range(args.rounds):
        for key, (agent, rollout) in turns.items():
            agent.update(rollout)
            rates[key].append(steps_per_second(agent, rollout, args.seconds))
    results = {}
    for name in args.cases:
        native, torch_ = (round(statistics.median(rates[name, engine])) for engine in ENGINES)
        results[name] = {"native": native, "off": torch_}
        print(f"{name}: {native:,} by the kernels, {torch_:,} by torch, {native / torch_:.1f} times", flush=True)
    if args.output:
        args.output.write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()

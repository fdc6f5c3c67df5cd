"""Rates that follow the KL: ours beside those of rsl_rl and skrl, step by step, and across a save and a load.

    python benchmarks/feedback_peers.py

`rule` gives random divergences to rsl_rl's `PPO.update` and to `Feedback`, and compares the rates of their steps.
`resume` lets rates fall, saves, loads into what was made anew, and compares the rates before and after. Peers that are
not installed are left out.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import random
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

import esper
from esper.envs.base import EnvSpec
from esper.envs.make import make_env
from esper.schedules import FeedbackConfig
from esper.simic import PPOAgent, PPOConfig, RuntimeConfig, ScheduleConfig
from esper.simic.collect import Collector
from esper.simic.feedback import Feedback

INSTALL = "pip install -c constraints.txt -r benchmarks/requirements-feedback.txt"
TARGET, BASE = 0.01, 1e-3
# rsl_rl's bounds of the rate, 1e-5 and 1e-2, which are fixed.
FEEDBACK = FeedbackConfig(target=TARGET, min_factor=1e-5 / BASE, max_factor=1e-2 / BASE, every="minibatch")
# rsl_rl has the rate in double precision, we have the factor in single precision.
TOLERANCE = 1e-6
MINIBATCHES = 20  # of an update of rsl_rl's: 5 epochs of 4


def divergences(count: int, seed: int) -> list[float]:
    """Random divergences around the target, and among them those at which a rule could go another way.

    None is between 0 and 1e-7, which is rounding to us and a divergence to rsl_rl.
    """
    rng = random.Random(seed)
    edges = [0.0, -1e-4, TARGET / 2, 2 * TARGET, float("inf"), float("nan")]
    # Runs of far and of near ones, so that the rate comes to its bounds.
    found: list[float] = []
    while len(found) < count:
        middle = TARGET * 10 ** rng.uniform(-1, 1)
        found += [
            rng.choice(edges) if rng.random() < 0.1 else middle * 10 ** rng.uniform(-0.7, 0.7)
            for _ in range(rng.randint(1, 40))
        ]
    return found[:count]


class RslRl:
    """rsl_rl's runner with its PPO; `rates` are those at which its optimizer stepped.

    Its environment is never stepped but to fill a rollout once, whose rewards are 0. The divergences are given.
    """

    def __init__(self) -> None:
        runners = importlib.import_module("rsl_rl.runners")
        tensordict = importlib.import_module("tensordict")
        observations = tensordict.TensorDict({"policy": torch.zeros(4, 2)}, batch_size=[4])
        model = {"class_name": "MLPModel", "hidden_dims": [4], "activation": "elu"}
        config = {
            "num_steps_per_env": 4,
            "obs_groups": {"actor": ["policy"], "critic": ["policy"]},
            "actor": {**model, "distribution_cfg": {"class_name": "GaussianDistribution"}},
            "critic": dict(model),
            "algorithm": {
                "class_name": "PPO",
                "schedule": "adaptive",
                "desired_kl": TARGET,
                "learning_rate": BASE,
                "entropy_coef": 0.0,
                "rnd_cfg": None,
                "symmetry_cfg": None,
            },
        }
        with contextlib.redirect_stdout(io.StringIO()):
            self.runner = runners.OnPolicyRunner(_Environment(observations), config)
        self.ppo = self.runner.alg
        self.rates: list[float] = []
        self.ppo.optimizer.register_step_pre_hook(lambda adam, *_: self.rates.append(adam.param_groups[0]["lr"]))
        for _ in range(4):
            self.ppo.act(observations)
            self.ppo.process_env_step(observations, torch.zeros(4), torch.zeros(4), {})

    def update(self, kls: list[float]) -> list[float]:
        """The rates of its next steps, whose divergences are `kls`: whole updates of it."""
        assert len(kls) % MINIBATCHES == 0
        given, before = iter(kls), len(self.rates)
        self.ppo.actor.get_kl_divergence = lambda *_: torch.tensor([next(given)])
        for _ in range(len(kls) // MINIBATCHES):
            self.ppo.update()
        return self.rates[before:]


class _Environment:
    """As much of an environment as the runner asks for."""

    num_envs, num_actions, max_episode_length, device, cfg = 4, 1, 10, "cpu", None

    def __init__(self, observations: Any) -> None:
        self._observations = observations

    def get_observations(self) -> Any:
        return self._observations


def our_rates(kls: list[float]) -> list[float]:
    """The rates of our steps, whose divergences are `kls`."""
    feedback, base = Feedback({"policy": FEEDBACK}, torch.device("cpu")), torch.tensor(BASE)
    found = []
    for kl in kls:
        feedback.follow("minibatch", torch.tensor(kl), torch.tensor(True))
        found.append(feedback.rates([base])[0].item())
    return found


def compare_rule(seed: int, count: int) -> dict[str, Any]:
    """How many of `count` rates differ, the largest relative difference, and what the rates went through."""
    kls = divergences(count, seed)
    theirs, ours = RslRl().update(kls), our_rates(kls)
    apart = [abs(a - b) / a for a, b in zip(theirs, ours, strict=True)]
    return {
        "seed": seed,
        "steps": len(apart),
        "different": sum(not difference <= TOLERANCE for difference in apart),
        "largest_relative_difference": max(apart),
        "changes": sum(a != b for a, b in zip(theirs, [BASE, *theirs], strict=False)),
        "at_lower_bound": theirs.count(1e-5),
        "at_upper_bound": theirs.count(1e-2),
    }


def resume_rsl_rl(folder: Path) -> dict[str, float]:
    """Its runner's `save` and `load`, with the default of what to load; steps that change nothing follow."""
    first, second = RslRl(), RslRl()
    still = [TARGET] * MINIBATCHES
    first.update([1.0, 1.0, 1.0, *still[3:]])
    first.runner.save(str(folder / "rsl_rl.pt"))
    second.runner.load(str(folder / "rsl_rl.pt"))
    loaded = second.ppo.learning_rate
    return {"loaded": loaded, "next": second.update(still)[0], "never_stopped": first.update(still)[0]}


def resume_skrl(folder: Path) -> dict[str, float]:
    """Its agent's `save` and `load`; the scheduler steps as in `PPO.update`, after an epoch, by a mean divergence."""
    first, second = _skrl_agent(), _skrl_agent()
    for _ in range(3):
        first.scheduler.step(1.0)
    first.save(str(folder / "skrl.pt"))
    second.load(str(folder / "skrl.pt"))
    rates = {"loaded": second.optimizer.param_groups[0]["lr"]}
    for name, agent in (("next", second), ("never_stopped", first)):
        agent.scheduler.step(TARGET)
        rates[name] = agent.optimizer.param_groups[0]["lr"]
    return rates


def _skrl_agent() -> Any:
    ppo = importlib.import_module("skrl.agents.torch.ppo").PPO
    schedulers = importlib.import_module("skrl.resources.schedulers.torch")
    base = importlib.import_module("skrl.models.torch").Model

    class Network(base):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            super().__init__(device="cpu")
            self.layer = torch.nn.Linear(1, 1)

        def compute(self, *_: Any, **__: Any) -> Any:
            raise NotImplementedError

        act = compute

    settings = {
        "learning_rate": BASE,
        "learning_rate_scheduler": schedulers.KLAdaptiveLR,
        "learning_rate_scheduler_kwargs": {"kl_threshold": TARGET, "min_lr": 1e-5, "max_lr": 1e-2},
        "experiment": {"write_interval": 0, "checkpoint_interval": 0},
    }
    return ppo(models={"policy": Network(), "value": Network()}, device="cpu", cfg=settings)


def resume_ours(folder: Path) -> dict[str, float]:
    """`state_dict` through a file; the cosine beside the factor goes on too."""
    env = make_env("torch/CartPole-v1", num_envs=4)
    first, second = _our_agent(env.spec), _our_agent(env.spec)
    rollout = first.allocate_rollout()
    Collector(env, 1).collect(first.network, rollout, first.generators["actions"])
    for _ in range(3):
        first.update(rollout)
    torch.save(first.state_dict(), folder / "ours.pt")
    second.load_state_dict(torch.load(folder / "ours.pt"))
    schedule = second.schedules.at(second.train_steps).learning_rates["policy"]
    rates = {"loaded": schedule * second.updater.feedback.factors[0].item()}
    for name, agent in (("next", second), ("never_stopped", first)):
        result = agent.update(rollout)
        assert result.lr_factors is not None
        rates[name] = result.rates.learning_rates["policy"] * result.lr_factors["policy"]
    return rates


def _our_agent(spec: EnvSpec) -> PPOAgent:
    config = PPOConfig(
        num_envs=4,
        num_steps=32,
        total_timesteps=100 * 128,
        policy_lr=ScheduleConfig(peak=0.05, decay="cosine"),
        policy_lr_kl=FeedbackConfig(target=1e-4),
        runtime=RuntimeConfig(compile="off"),
    )
    return PPOAgent(config, spec, seed=1)


RESUMES = {"rsl-rl-lib": resume_rsl_rl, "skrl": resume_skrl, "esper-simic": resume_ours}


def compare_resumes() -> list[dict[str, Any]]:
    """What each of the installed has at a load, at its next step, and had without a stop."""
    found = []
    with tempfile.TemporaryDirectory() as folder:
        for package, resume in RESUMES.items():
            if (installed := installed_version(package)) is not None:
                rates = resume(Path(folder))
                goes_on = rates["next"] == rates["never_stopped"]
                found.append({"system": package, "version": installed, **rates, "goes_on_exactly": goes_on})
    return found


def installed_version(package: str) -> str | None:
    """The version of `package`; None, after a word on how to get it, where there is none."""
    if package == "esper-simic":
        return esper.__version__
    try:
        return version(package)
    except PackageNotFoundError:
        print(f"{package} is not installed and left out: {INSTALL}")
        return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, default=2000, help=f"of each seed, a multiple of {MINIBATCHES}")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    if installed_version("rsl-rl-lib") is not None:
        results["rule"] = [compare_rule(seed, args.steps) for seed in range(args.seeds)]
    results["resume"] = compare_resumes()
    text = json.dumps(results, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()

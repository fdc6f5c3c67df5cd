"""PPOAgent: network, optimizer, schedules and update, with everything needed to go on from where it was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from esper.envs.base import EnvSpec
from esper.options import ConfigError
from esper.simic.advantages import compute_gae
from esper.simic.config import PPOConfig
from esper.simic.losses import Coefficients, Minibatch
from esper.simic.networks import ActorCritic
from esper.simic.normalization import RewardScaler
from esper.simic.optimizers import Adam
from esper.simic.rollout import Rollout
from esper.simic.schedules import make_schedule, schedules_enabled
from esper.simic.seeding import device_generator, host_generator
from esper.simic.update import Optimization


@dataclass(frozen=True, kw_only=True)
class Rates:
    """What the schedules say for one update: learning rates and phases by parameter group, and coefficients."""

    learning_rates: dict[str, float]
    phases: dict[str, str]
    clip_coef: float
    entropy_coef: float


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """One update as the host sees it.

    `finite` is False when a loss or gradient was not: then nothing was changed, the clock did not tick, and there are
    no metrics. `metrics` are the loss and ratio fields of `UpdateCompleted`; `explained_variance` is None when all
    returns were the same.
    """

    update: int
    rates: Rates
    finite: bool
    optimizer_steps: int
    metrics: dict[str, Any]
    grad_norms: dict[str, float]
    explained_variance: float | None


class PPOAgent:
    """A PPO learner for environments of sizes `spec`.

    `train_steps` is the clock: the number of updates done, and the index of the next one. Schedules are constant when
    the environment variable `ESPER_LR_SCHEDULE` is `off`; `lr_schedules_on` says which.

    Raises:
        ConfigError: for settings that do not fit together, or this machine.
    """

    def __init__(self, config: PPOConfig, spec: EnvSpec, *, seed: int = 1) -> None:
        if config.num_envs != spec.num_envs:
            raise ConfigError("num_envs", config.num_envs, f"must equal the environment's {spec.num_envs} copies")
        self.lr_schedules_on = schedules_enabled()
        self.config = config if self.lr_schedules_on else config.without_lr_schedules()
        self.device = resolve_device(config.runtime.device)
        self.spec = spec
        self.train_steps = 0
        init = device_generator(seed, "init", torch.device("cpu"))
        self.network = ActorCritic(spec.observation_size, spec.actions, config.network, init).to(self.device)
        self.reward_scaler = RewardScaler(spec.num_envs, config.gamma).to(self.device)
        self.generators = {name: device_generator(seed, name, self.device) for name in ("actions", "minibatches")}
        self.ignored_rows = host_generator(seed, "ignored_rows")
        self.optimizer = Adam(self.network, _parameter_groups(self.network), eps=config.adam_eps)
        self.coefficients = Coefficients(torch.zeros((), device=self.device), torch.zeros((), device=self.device))
        self.optimization = Optimization(self.network, self.optimizer, self.config)
        total = self.config.total_updates
        self.schedules = {
            "policy": make_schedule(self.config.policy_lr, total),
            "value": make_schedule(self.config.value_lr, total),
            "clip_coef": make_schedule(self.config.clip_coef, total),
            "entropy_coef": make_schedule(self.config.entropy_coef, total),
        }

    def rates(self, update: int) -> Rates:
        """What the schedules say for update `update`."""
        followed = {"policy": "policy", "value": "value"}
        if "shared" in self.optimizer.group_names:
            owner = self.config.shared_lr
            if owner == "min":
                owner = min(("policy", "value"), key=lambda name: self.schedules[name](update))
            followed["shared"] = owner
        return Rates(
            learning_rates={group: self.schedules[name](update) for group, name in followed.items()},
            phases={group: self.schedules[name].phase(update) for group, name in followed.items()},
            clip_coef=self.schedules["clip_coef"](update),
            entropy_coef=self.schedules["entropy_coef"](update),
        )

    def allocate_rollout(self) -> Rollout:
        return Rollout.allocate(self.spec, self.config.num_steps, self.device)

    def update(self, rollout: Rollout) -> UpdateResult:
        """One PPO update on `rollout`. The host waits for the device once, at the end, to read the metrics."""
        rates = self.rates(self.train_steps)
        self._apply(rates)
        reward_statistics = _copies(self.reward_scaler)
        batch = self._prepare(rollout)
        metrics, finite = self.optimization.run(batch, self.coefficients, self.generators["minibatches"])
        extra = torch.stack((finite, _explained_variance(batch)))
        host = torch.cat((metrics.flatten(), extra)).tolist()
        result = self._result(rates, np.array(host[: metrics.numel()]).reshape(metrics.shape), *host[-2:])
        if not result.finite:
            self.reward_scaler.load_state_dict(reward_statistics)
            return result
        if result.optimizer_steps:
            self.train_steps += 1
        if self.network.normalizer is not None:
            # After the update, so that it sees observations scaled as the policy saw them when it acted.
            self.network.normalizer.update(rollout.obs[:-1].flatten(0, 1))
        return result

    def _apply(self, rates: Rates) -> None:
        self.optimizer.set_learning_rates(rates.learning_rates)
        self.coefficients.clip.fill_(rates.clip_coef)
        self.coefficients.entropy.fill_(rates.entropy_coef)

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Minibatch:
        """The rollout as flat rows [T * N, ...], with advantages."""
        rewards, terminated, truncated = (
            torch.from_numpy(field).to(self.device)
            for field in (rollout.rewards, rollout.terminated, rollout.truncated)
        )
        obs = self.network.normalize(rollout.obs)
        values = self.network.value(obs)
        if self.config.normalize_rewards:
            rewards = self.reward_scaler(rewards, terminated | truncated)
        advantages, returns = compute_gae(
            rewards.float(),
            values[:-1],
            self._next_values(rollout, values),
            terminated,
            truncated,
            gamma=self.config.gamma,
            gae_lambda=self.config.gae_lambda,
        )
        log_probs = self.network.policy(obs[:-1]).log_prob(rollout.actions)
        batch = Minibatch(obs[:-1], rollout.actions, log_probs, values[:-1], advantages, returns)
        rows = Minibatch(*(field.flatten(0, 1) for field in batch))
        indices = rollout.sample_indices(self.ignored_rows)
        return rows if indices is None else Minibatch(*(field[indices.to(self.device)] for field in rows))

    def _next_values(self, rollout: Rollout, values: Tensor) -> Tensor:
        """The value of the state each step led to; `values` [T+1, N] are those of the states acted on."""
        next_values = values[1:].clone()
        if rollout.final_obs:
            steps = np.concatenate([np.full(len(final.envs), final.step) for final in rollout.final_obs])
            envs = np.concatenate([final.envs for final in rollout.final_obs])
            obs = torch.from_numpy(np.concatenate([final.obs for final in rollout.final_obs])).to(self.device)
            where = (torch.from_numpy(steps).to(self.device), torch.from_numpy(envs).to(self.device))
            next_values[where] = self.network.value(self.network.normalize(obs))
        return next_values

    def _result(self, rates: Rates, rows: np.ndarray, finite: float, explained_variance: float) -> UpdateResult:
        names = self.optimization.metric_names
        stepped = rows[rows[:, names.index("stepped")] > 0] if finite else rows[:0]
        columns = dict(zip(names, stepped.T, strict=True))
        norms = {name: columns.pop(f"grad_norm/{name}") for name in self.optimizer.group_names}
        return UpdateResult(
            update=self.train_steps,
            rates=rates,
            finite=bool(finite),
            optimizer_steps=len(stepped),
            metrics=_summarize(columns) if len(stepped) else {},
            grad_norms={name: float(column.mean()) for name, column in norms.items()} if len(stepped) else {},
            explained_variance=explained_variance if math.isfinite(explained_variance) else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, as copies."""
        return {
            "network": _copies(self.network),
            "optimizer": self.optimizer.state_dict(),
            "reward_scaler": _copies(self.reward_scaler),
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "ignored_rows": self.ignored_rows.bit_generator.state,
            "train_steps": self.train_steps,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, in place: every tensor that a compiled update knows stays the same object."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.reward_scaler.load_state_dict(state["reward_scaler"])
        for name, generator in self.generators.items():
            generator.set_state(state["generators"][name])
        self.ignored_rows.bit_generator.state = state["ignored_rows"]
        self.train_steps = state["train_steps"]


def resolve_device(name: str) -> torch.device:
    """The torch device called `name`.

    Raises:
        ConfigError: when there is none on this machine.
    """
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise ConfigError("device", name, f"is not to be had here, use cpu ({reason})") from None
    return device


def _parameter_groups(network: ActorCritic) -> dict[str, dict[str, torch.nn.Parameter]]:
    groups = {
        "policy": network.policy_parameters(),
        "value": network.value_parameters(),
        "shared": network.shared_parameters(),
    }
    return {name: parameters for name, parameters in groups.items() if parameters}


def _copies(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def _explained_variance(batch: Minibatch) -> Tensor:
    """1 - Var(returns - values) / Var(returns); not finite when the returns are all the same."""
    return 1 - (batch.returns - batch.values).var() / batch.returns.var()


def _summarize(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
    """One number per metric for the update, over the minibatches that the optimizer stepped on."""
    means = {name: float(column.mean()) for name, column in columns.items() if name != "stepped"}
    variance = means.pop("ratio_deviation_sq") - (means["ratio_mean"] - 1) ** 2
    return means | {
        "ratio_std": max(variance, 0.0) ** 0.5,
        "ratio_min": float(columns["ratio_min"].min()),
        "ratio_max": float(columns["ratio_max"].max()),
    }

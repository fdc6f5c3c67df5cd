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
from esper.schedules import schedules_enabled
from esper.settings.options import ConfigError
from esper.simic.config import PPOConfig
from esper.simic.faults import find_fault
from esper.simic.losses import Coefficients, Minibatch
from esper.simic.metrics import explained_variance, gradient_norms, summarize
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.normalization import RewardScaler
from esper.simic.optimizers import Adam
from esper.simic.rates import Horizon, Rates, RateSchedules
from esper.simic.rollout import Rollout
from esper.simic.sequences import evaluate_sequences, to_sequences
from esper.simic.state import StateForm, form_of
from esper.simic.threads import torch_threads
from esper.simic.update import Optimization
from esper.system.seeding import device_generator, host_generator, integer_seed


@dataclass(frozen=True, kw_only=True)
class UpdateResult:
    """One update as the host sees it.

    `fault` says what was not finite, if anything was: then the update was undone, and there are no metrics. `metrics`
    are the loss and ratio fields of `UpdateCompleted`; `explained_variance` is None when returns hardly varied.
    `minibatches` has what an agent for debugging tells of each of them, by metric.
    """

    update: int
    rates: Rates
    fault: str | None
    optimizer_steps: int
    metrics: dict[str, Any]
    grad_norms: dict[str, float]
    explained_variance: float | None
    minibatches: dict[str, list[float]] | None


class PPOAgent:
    """A PPO learner for environments of sizes `spec`.

    `train_steps` is the clock: the number of updates so far, also of those that were undone, and the index of the next
    one. Schedules span the whole run unless `set_horizon` says otherwise. They are constant when the environment
    variable `ESPER_LR_SCHEDULE` is `off`; `lr_schedules_on` says which. With `debug` updates tell of each minibatch.

    Raises:
        ConfigError: for settings that do not fit together, or this machine.
    """

    # LAPACK rounds initial weights differently with another number of threads.
    @torch_threads(1)
    def __init__(self, config: PPOConfig, spec: EnvSpec, *, seed: int = 1, debug: bool = False) -> None:
        if config.num_envs != spec.num_envs:
            raise ConfigError("num_envs", config.num_envs, f"must equal the environment's {spec.num_envs} copies")
        if spec.resets_in_a_step and config.num_steps < 2:
            allowed = "must be at least 2 where environments spend a step on resetting, as --vector sync does not"
            raise ConfigError("num_steps", config.num_steps, allowed)
        self.lr_schedules_on = schedules_enabled()
        self.config = config if self.lr_schedules_on else config.without_lr_schedules()
        self.device = resolve_device(config.runtime.device)
        self.spec = spec
        self.seed = seed
        self.train_steps = 0
        init = device_generator(seed, "init", torch.device("cpu"))
        self.network = ActorCritic(spec.observations, spec.actions, config.network, init).to(self.device)
        self.reward_scaler = RewardScaler(spec.num_envs, config.gamma).to(self.device)
        self.generators = {name: device_generator(seed, name, self.device) for name in ("actions", "minibatches")}
        self.ignored_rows = host_generator(seed, "ignored_rows")
        self.optimizer = Adam(self.network, _parameter_groups(self.network), eps=config.adam_eps)
        self.coefficients = Coefficients(torch.zeros((), device=self.device), torch.zeros((), device=self.device))
        self._debug = debug
        self.optimization = Optimization(
            self.network, self.optimizer, self.coefficients, self.config, masked=spec.masked, debug=debug
        )
        self.set_horizon(Horizon(updates=self.config.total_updates))

    def set_horizon(self, horizon: Horizon) -> None:
        """Let all schedules span `horizon`.

        Raises:
            ConfigError: naming the setting of a schedule that does not fit into it.
        """
        self.schedules = RateSchedules(self.config, self.optimizer.group_names, horizon)

    def allocate_rollout(self) -> Rollout:
        return Rollout.allocate(self.spec, self.config.num_steps, self.device, state_size=self.network.state_size)

    def update(self, rollout: Rollout) -> UpdateResult:
        """One PPO update on `rollout`. The host waits for the device once, at the end, to read the metrics."""
        with self.optimization.torch_threads():
            return self._update(rollout)

    def _update(self, rollout: Rollout) -> UpdateResult:
        rates = self.schedules.at(self.train_steps)
        self._apply(rates)
        rollout = rollout.without_ignored()
        reward_statistics = self.reward_scaler.statistics()
        usable = self.optimization.learner.inputs_are_finite(rollout)
        batch = self._prepare(rollout)
        if self.config.normalize_rewards:
            # Divided by infinity all rewards are 0, which looks as good as any.
            usable &= self.reward_scaler.deviation().isfinite()
        metrics, finite = self.optimization.run(batch, self.generators["minibatches"], usable)
        extra = torch.stack((finite, explained_variance(batch.returns, batch.values)))
        host = torch.cat((metrics.flatten(), extra)).tolist()
        rows = np.array(host[: metrics.numel()]).reshape(metrics.shape)
        fault = None if host[-2] else self._find_fault(rollout, rows)
        result = self._result(rates, rows, fault, host[-1])
        self.train_steps += 1
        if fault is not None:
            # The discounted returns so far stay: they are about episodes, which went on.
            self.reward_scaler.restore(reward_statistics)
            return result
        if self.config.network.normalize_observations:
            assert self.network.normalizer is not None
            # After the update, so that it sees observations scaled as the policy saw them when it acted.
            obs, live = rollout.obs[:-1].flatten(0, 1), rollout.live_indices()
            self.network.normalizer.update(obs if live is None else obs[live])
        return result

    def _find_fault(self, rollout: Rollout, rows: np.ndarray) -> str:
        scale = float(self.reward_scaler.deviation()) if self.config.normalize_rewards else 1.0
        return find_fault(rollout, rows, self.optimization.metric_names, reward_scale=scale)

    def _apply(self, rates: Rates) -> None:
        self.optimizer.set_learning_rates(rates.learning_rates)
        self.coefficients.clip.fill_(rates.clip_coef)
        self.coefficients.entropy.fill_(rates.entropy_coef)

    @torch.no_grad()
    def _prepare(self, rollout: Rollout) -> Minibatch:
        """The rollout as flat rows [T * N, ...], or as a sequence for each environment, with advantages."""
        rewards, terminated, truncated = rollout.rewards, rollout.terminated, rollout.truncated
        obs = self.network.normalize(rollout.obs)
        if self.network.state_size:
            size = self.config.num_envs // self.config.num_minibatches
            log_probs, values, next_values = evaluate_sequences(self.network, rollout, obs, size)
        else:
            log_probs, values, next_values = self._evaluate(rollout, obs)
        if self.config.normalize_rewards:
            rewards = self.reward_scaler(rewards, terminated | truncated, rollout.live_indices())
        learner = self.optimization.learner
        advantages, returns = learner.advantages(rewards, values, next_values, terminated, truncated)
        batch = Minibatch(obs[:-1], rollout.actions, log_probs, values, advantages, returns, rollout.masks)
        if self.network.state_size:
            return to_sequences(batch, rollout, self.ignored_rows)
        rows = batch.map(lambda field: field.flatten(0, 1))
        indices = rollout.sample_indices(self.ignored_rows)
        return rows if indices is None else rows.map(lambda field: field[indices.to(self.device)])

    def _evaluate(self, rollout: Rollout, obs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log probabilities, values, and values of the states that steps led to, each [T, N]."""
        learner, shape = self.optimization.learner, rollout.rewards.shape
        masks = None if rollout.masks is None else rollout.masks.flatten(0, 1)
        log_probs, values = learner.evaluate(obs[:-1].flatten(0, 1), rollout.actions.flatten(0, 1), masks)
        values = values.view(shape)
        next_values = self._next_values(rollout, torch.cat((values[1:], learner.value(obs[-1])[None])))
        return log_probs.view(shape), values, next_values

    def _next_values(self, rollout: Rollout, next_values: Tensor) -> Tensor:
        """The value of the state each step led to; `next_values` [T, N] are those of the states acted on next."""
        cut, value = rollout.truncated & ~rollout.terminated, self.optimization.learner.value
        if self.device.type == "cpu":
            next_values[cut] = value(self.network.normalize(rollout.final_obs[cut]))
            return next_values
        # To select rows the host would have to wait for their number.
        final_values = value(self.network.normalize(rollout.final_obs).flatten(0, 1)).view(cut.shape)
        return torch.where(cut, final_values, next_values)

    def _result(self, rates: Rates, rows: np.ndarray, fault: str | None, explained_variance: float) -> UpdateResult:
        names = self.optimization.metric_names
        stepped = rows[rows[:, names.index("stepped")] > 0] if fault is None else rows[:0]
        return UpdateResult(
            update=self.train_steps,
            rates=rates,
            fault=fault,
            optimizer_steps=len(stepped),
            metrics=summarize(names, stepped) if len(stepped) else {},
            grad_norms=gradient_norms(names, stepped) if len(stepped) else {},
            explained_variance=explained_variance if math.isfinite(explained_variance) else None,
            minibatches=dict(zip(names, rows.T.tolist(), strict=True)) if self._debug else None,
        )

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, as copies."""
        return {
            "network": _copies(self.network),
            "optimizer": self.optimizer.state_dict(),
            "reward_scaler": _copies(self.reward_scaler),
            "device": self.device.type,
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "ignored_rows": self.ignored_rows.bit_generator.state,
            "train_steps": self.train_steps,
        }

    def state_form(self) -> StateForm:
        """What `state_dict` holds."""
        return {
            "network": form_of(self.network.state_dict()),
            "optimizer": self.optimizer.state_form(),
            "reward_scaler": form_of(self.reward_scaler.state_dict()),
            "device": str,
            # Another kind of device, or version, has generators of another form.
            "generators": dict.fromkeys(self.generators, object),
            "ignored_rows": object,
            "train_steps": int,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, in place: every tensor that a compiled update knows stays the same object.

        A generator's state means nothing to another kind of device; there a new stream begins, decided by the seed.

        Raises:
            ValueError: for a state that is not of such an agent.
        """
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.reward_scaler.load_state_dict(state["reward_scaler"])
        self.ignored_rows.bit_generator.state = state["ignored_rows"]
        self.train_steps = state["train_steps"]
        for name, generator in self.generators.items():
            if state["device"] == self.device.type:
                _set_generator(generator, name, state["generators"][name])
            else:
                generator.manual_seed(integer_seed(self.seed, f"{name} from update {self.train_steps}"))


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


def _set_generator(generator: torch.Generator, name: str, state: Tensor) -> None:
    try:
        generator.set_state(state)
    except (RuntimeError, TypeError) as error:
        raise ValueError(f"generator {name}: {str(error).splitlines()[0]}") from None


def _copies(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}

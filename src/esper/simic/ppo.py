"""PPOAgent: network, optimizer, schedules and update, with everything needed to go on from where it was."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from esper.envs.base import EnvSpec
from esper.schedules import schedules_enabled
from esper.settings.options import ConfigError
from esper.settings.values import Bounds, checked
from esper.simic.config import PPOConfig
from esper.simic.given_optimizer import GivenOptimizer, OptimizerFactory
from esper.simic.given_terms import GivenTerm, GivenTerms
from esper.simic.nets.actor_critic import ActorCritic
from esper.simic.nets.given import NetworkFactory, make_layers
from esper.simic.nets.normalization import RewardScaler
from esper.simic.optimizers import Adam, Optimizer
from esper.simic.precision import autocast_dtype
from esper.simic.rates import Horizon, RateSchedules
from esper.simic.rollout import Rollout
from esper.simic.state import StateForm, form_of
from esper.simic.threads import torch_threads
from esper.simic.update import Draws, Learner, Updater, UpdateResult
from esper.system.seeding import device_generator, host_generator, integer_seed
from esper.system.torch_defaults import torch_defaults


class PPOAgent:
    """A PPO learner for environments of sizes `spec`.

    `train_steps` is the clock: the number of updates so far, also of those that were undone, and the index of the next
    one. Schedules span the whole run unless `set_horizon` says otherwise. They are constant when the environment
    variable `ESPER_LR_SCHEDULE` is `off`; `lr_schedules_on` says which. With `debug` updates report each minibatch.

    `network` makes the modules of the network for `spec`, in place of those that `config.network` describes:
    `network(spec)` or `network(spec, config.network)` returns a `Network`. Torch computes it, uncompiled unless the
    runtime's `compile` is `torch`. Of the settings of the network `log_std_init` and `normalize_observations` hold.

    `loss_terms` are added to the loss, by name: each a function of `losses.Inputs` that returns the mean over the
    minibatch, and its weight, a number or a function of the update's index. Torch computes these, too.

    `optimizer` makes a torch optimizer of parameter groups that are named policy, value and, for a trunk, shared:
    `functools.partial(torch.optim.AdamW, weight_decay=1e-4)`. Their `lr` is written before each step. Torch computes
    it, uncompiled.

    Raises:
        ConfigError: for settings that do not fit together, or this machine.
    """

    # LAPACK rounds initial weights differently with another number of threads.
    @torch_threads(1)
    @torch_defaults()
    def __init__(
        self,
        config: PPOConfig,
        spec: EnvSpec,
        *,
        seed: int = 1,
        debug: bool = False,
        network: NetworkFactory | None = None,
        loss_terms: Mapping[str, GivenTerm] | None = None,
        optimizer: OptimizerFactory | None = None,
    ) -> None:
        if config.num_envs != spec.num_envs:
            raise ConfigError("num_envs", config.num_envs, f"must be {spec.num_envs}, as many as the environment has")
        if spec.resets_in_a_step and config.num_steps < 2:
            allowed = "must be at least 2 where environments use a step to reset, which they do not with --vector sync"
            raise ConfigError("num_steps", config.num_steps, allowed)
        seed = checked("seed", seed, int, Bounds(minimum=0))
        self.lr_schedules_on = schedules_enabled()
        self.config = config if self.lr_schedules_on else config.without_lr_schedules()
        self.device = resolve_device(config.runtime.device)
        self.spec = spec
        self.seed = seed
        self.train_steps = 0
        init = device_generator(seed, "init", torch.device("cpu"))
        self.network_factory = network
        parts = {"network": network, "loss_terms": loss_terms, "optimizer": optimizer, "debug": debug}
        self._parts: dict[str, Any] = parts
        layers = None if network is None else make_layers(network, spec, config.network, init)
        self.network = ActorCritic(spec.observations, spec.actions, config.network, init, layers).to(self.device)
        self.network.autocast = autocast_dtype(config.runtime.precision)
        self.reward_scaler = RewardScaler(spec.num_envs, config.gamma).to(self.device)
        self.generators = {name: device_generator(seed, name, self.device) for name in ("actions", "minibatches")}
        self.ignored_rows = host_generator(seed, "ignored_rows")
        self.optimizer = _make_optimizer(self.network, config, optimizer)
        if config.freeze_encoder:
            self.optimizer.hold(_held(self.network, config))
        self.given_terms = GivenTerms(loss_terms or {}, self.device)
        self.updater = Updater(
            Learner(self.network, self.optimizer, self.reward_scaler),
            self.config,
            draws=Draws(self.generators["minibatches"], self.ignored_rows),
            terms=self.given_terms,
            debug=debug,
        )
        self.set_horizon(Horizon(updates=self.config.total_updates))

    def __reduce__(self) -> tuple[Any, ...]:
        """Copies and pickles: made anew, with the same state. Parameters are views, which a copy would not share."""
        make = functools.partial(type(self), seed=self.seed, **self._parts)
        return make, (self.config, self.spec), {"horizon": self.schedules.horizon, "agent": self.state_dict()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.set_horizon(state["horizon"])
        self.load_state_dict(state["agent"])

    def set_horizon(self, horizon: Horizon) -> None:
        """Let all schedules span `horizon`.

        Raises:
            ConfigError: naming the setting of a schedule that does not fit into it.
        """
        self.schedules = RateSchedules(self.config, self.optimizer.group_names, horizon)

    def allocate_rollout(self) -> Rollout:
        return Rollout.allocate(self.spec, self.config.num_steps, self.device, state_size=self.network.state_size)

    def update(self, rollout: Rollout, meanwhile: Callable[[], None] = lambda: None) -> UpdateResult:
        """One PPO update on `rollout`. The host waits for the device once, at the end, to read the metrics.

        It calls `meanwhile`, which must not change the rollout, before it waits.
        """
        with self.updater.torch_settings(), torch_defaults():
            rates = self.schedules.at(self.train_steps)
            result = self.updater.run(self.train_steps, rollout, rates, meanwhile)
        self.train_steps += 1
        return result

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, as copies."""
        return {
            "network": _copies(self.network),
            "optimizer": self.optimizer.state_dict(),
            "lr_factors": self.updater.feedback.state_dict(),
            "reward_scaler": _copies(self.reward_scaler),
            "device": self.device.type,
            "generators": {name: generator.get_state() for name, generator in self.generators.items()},
            "ignored_rows": self.ignored_rows.bit_generator.state,
            "train_steps": self.train_steps,
            **({"loss_terms": list(self.given_terms.names)} if self.given_terms.names else {}),
        }

    def state_form(self) -> StateForm:
        """What `state_dict` holds."""
        return {
            "network": form_of(self.network.state_dict()),
            "optimizer": self.optimizer.state_form(),
            "lr_factors": form_of(self.updater.feedback.state_dict()),
            "reward_scaler": form_of(self.reward_scaler.state_dict()),
            "device": str,
            # Another kind of device, or version, has generators of another form.
            "generators": dict.fromkeys(self.generators, object),
            "ignored_rows": object,
            "train_steps": int,
            **({"loss_terms": list} if self.given_terms.names else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, in place: every tensor that a compiled update knows stays the same object.

        A generator's state means nothing to another kind of device; there a new stream begins, decided by the seed.
        After an error everything is as it was.

        Raises:
            ValueError: for a state that is not of such an agent.
        """
        if set(state["network"]) != set(self.network.state_dict()):
            raise ValueError("the state is of another network; give the same settings, and network= if there was one")
        stored, ours = state.get("loss_terms", []), list(self.given_terms.names)
        if stored != ours:
            raise ValueError(f"the state was trained with loss_terms {stored}, not {ours}; give the same ones again")
        before = self.state_dict()
        try:
            self._load(state)
        except BaseException:
            self._load(before)
            raise

    def _load(self, state: Mapping[str, Any]) -> None:
        _restore(self.network, state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.updater.feedback.load_state_dict(state["lr_factors"])
        _restore(self.reward_scaler, state["reward_scaler"])
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
        ConfigError: when there is none on this machine, or none that can train.
    """
    try:
        device = torch.device(name)
        torch.zeros((), device=device)
    except (RuntimeError, AssertionError, ImportError) as error:
        raise ConfigError("device", name, f"is not available here, use cpu ({_first_line(error)})") from None
    try:
        # What running statistics and draws need, and the one read of an update.
        torch.rand((), dtype=torch.float64, generator=torch.Generator(device), device=device).item()
    except (RuntimeError, TypeError) as error:
        raise ConfigError("device", name, f"cannot train, use cpu or cuda ({_first_line(error)})") from None
    return device


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _make_optimizer(network: ActorCritic, config: PPOConfig, factory: OptimizerFactory | None) -> Optimizer:
    groups = _parameter_groups(network)
    if factory is None:
        return Adam(network, groups, eps=config.adam_eps)
    if config.adam_eps != PPOConfig().adam_eps:
        raise ConfigError("adam_eps", config.adam_eps, "has no effect on an optimizer from Python; leave it out")
    return GivenOptimizer(network, groups, factory)


def _held(network: ActorCritic, config: PPOConfig) -> set[str]:
    """What `freeze_encoder` freezes beside a trunk, whose rate is 0 then."""
    held = network.encoder_parameters()
    if not held and not network.shared_parameters():
        allowed = "needs an encoder or shared_trunk: this network has neither"
        raise ConfigError("freeze_encoder", config.freeze_encoder, allowed)
    return held


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


def _restore(module: torch.nn.Module, state: Mapping[str, Any]) -> None:
    for name, own in module.state_dict().items():
        # torch 2.9 would take the first of several numbers.
        if isinstance(stored := state.get(name), Tensor) and own.dim() == 0 and stored.dim():
            raise ValueError(f"{name} has the shape {list(stored.shape)}, and should be one number")
    module.load_state_dict(state)


def _copies(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}

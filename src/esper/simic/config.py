"""The settings of the PPO learner, free of torch so that the command line answers at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Generic, Literal, TypeAlias, TypeVar

from esper.schedules import CoefficientConfig, FeedbackConfig, LimitConfig, Schedule, ScheduleConfig, make_schedule
from esper.schedules.shape import Rate
from esper.settings.options import Bounds, ConfigError, check_options, option, section
from esper.simic.nets.config import NetworkConfig as NetworkConfig

S = TypeVar("S", bound=ScheduleConfig)


if TYPE_CHECKING:

    class Scheduled(Generic[S]):
        """A field that takes numbers and functions too, and has a schedule."""

        def __get__(self, instance: object, owner: type) -> S: ...
        def __set__(self, instance: object, value: ScheduleConfig | float | Rate | None) -> None: ...
else:
    Scheduled = Annotated[S, "takes numbers and functions too"]

Precision: TypeAlias = Literal["float32", "tf32", "bf16"]

_POSITIVE = Bounds(above=0)
_COUNT = Bounds(minimum=1)
_UNIT = Bounds(minimum=0, maximum=1)


@dataclass(frozen=True, kw_only=True)
class RuntimeConfig:
    """Where and how the learner computes.

    A run may go on with other values, but another device, compilation or (in torch) number of threads rounds
    differently: it is no longer the same to the last bit.
    """

    group: ClassVar[str] = "run"

    device: str = option("cpu", "torch device of networks and updates, as cpu or cuda", may_change="always")
    compile: Literal["auto", "native", "torch", "graphs", "off"] = option(
        "auto",
        "what computes: C++ kernels compiled for this machine, torch.compile, the same as CUDA graphs wherever it can, "
        "or torch as it is; auto: the kernels where they can (CPU; no encoder or network from Python), on a GPU graphs "
        "where nothing is from Python or recurrent, and torch.compile where the run is long enough to gain",
        may_change="always",
    )
    precision: Precision = option(
        "float32",
        "what torch multiplies with: float32; on a GPU TF32, with 10 bits of a product's factors; or bf16, with 7, "
        "for layers alone (their weights, the loss and Adam stay float32)",
        may_change="always",
    )
    threads: int | None = option(
        None,
        "CPU threads; by default as many as the minibatches and networks can use",
        bounds=_COUNT,
        may_change="always",
    )

    def __post_init__(self) -> None:
        check_options(self)
        if self.precision == "tf32" and not self.device.startswith("cuda"):
            raise ConfigError("precision", self.precision, f"needs a CUDA device, not {self.device}; use float32")


@dataclass(frozen=True, kw_only=True)
class PPOConfig:
    """Everything that decides what PPO computes (Schulman et al. 2017, arXiv 1707.06347).

    Derived sizes: `batch_size` transitions per rollout, `minibatch_size`, `total_updates`.
    """

    group: ClassVar[str] = "ppo"

    total_timesteps: int = option(
        500_000, "environment steps, all environments together", bounds=_COUNT, may_change="always"
    )
    num_envs: int = option(8, "environments stepped together", bounds=_COUNT)
    num_steps: int = option(128, "steps per environment in a rollout", bounds=_COUNT)
    update_epochs: int = option(4, "passes over a rollout", bounds=_COUNT)
    num_minibatches: int = option(4, "minibatches per pass; divides num_envs * num_steps", bounds=_COUNT)
    gamma: float = option(0.99, "discount factor", bounds=_UNIT)
    gae_lambda: float = option(0.95, "GAE: weight of longer returns", bounds=_UNIT)
    normalize_advantages: bool = option(True, "standardise advantages in every minibatch")
    normalize_rewards: bool = option(False, "divide rewards by the running deviation of the discounted return")
    max_grad_norm: float | None = option(0.5, "clip the gradient norm at this", bounds=_POSITIVE)
    max_grad_norm_over: Literal["all", "group"] = option(
        "all",
        "whose norm is clipped: of all parameters, where one large gradient shrinks every step, or of each group "
        "(policy, value, shared) by itself",
    )
    max_skipped_updates: int = option(
        10,
        "stop after this many updates in a row with a non-finite loss or gradient",
        bounds=_COUNT,
        may_change="always",
    )
    metrics_after: bool = option(
        False,
        "also record approx_kl, clip_fraction and ratio_std of the whole rollout after the update, as NAME_after: with "
        "one step per update those of its minibatch are 0",
        may_change="always",
    )
    adam_eps: float = option(1e-5, "Adam epsilon", bounds=_POSITIVE)
    policy_lr: Scheduled[ScheduleConfig] = section(
        ScheduleConfig(), group="learning rates", may_change="with a new horizon", common="lr"
    )
    value_lr: Scheduled[ScheduleConfig] = section(
        ScheduleConfig(), group="learning rates", may_change="with a new horizon", common="lr"
    )
    policy_lr_kl: FeedbackConfig = section(
        FeedbackConfig(), group="learning rates", may_change="with a new horizon", common="lr_kl"
    )
    value_lr_kl: FeedbackConfig = section(
        FeedbackConfig(), group="learning rates", may_change="with a new horizon", common="lr_kl"
    )
    shared_lr: Literal["policy", "value", "min"] = option(
        "policy", "whose rate a shared trunk follows", group="learning rates", may_change="with a new horizon"
    )
    freeze_encoder: int = option(
        0,
        "updates at the beginning in which the encoder, or with shared_trunk all of the trunk, does not learn",
        group="learning rates",
        bounds=Bounds(minimum=0),
        may_change="with a new horizon",
    )
    clip_coef: Scheduled[CoefficientConfig] = section(
        CoefficientConfig(peak=0.2),
        group="loss coefficients",
        help="how far from 1 the ratio still gains",
        may_change="with a new horizon",
    )
    entropy_coef: Scheduled[CoefficientConfig] = section(
        CoefficientConfig(peak=0.0),
        group="loss coefficients",
        help="weight of the entropy bonus",
        may_change="with a new horizon",
    )
    value_coef: Scheduled[CoefficientConfig] = section(
        CoefficientConfig(peak=0.5),
        group="loss coefficients",
        help="weight of the value loss",
        may_change="with a new horizon",
    )
    value_clip_coef: Scheduled[LimitConfig] = section(
        LimitConfig(),
        group="loss coefficients",
        help="keep new values within this distance of the old ones in the value loss",
        may_change="with a new horizon",
    )
    target_kl: Scheduled[LimitConfig] = section(
        LimitConfig(),
        group="loss coefficients",
        help="end an update at the first minibatch whose approx_kl exceeds this",
        may_change="with a new horizon",
    )
    network: NetworkConfig = section(NetworkConfig())
    runtime: RuntimeConfig = section(RuntimeConfig())

    def __post_init__(self) -> None:
        check_options(self)
        self._convert_schedules()
        if self.clip_coef.peak == 0:
            raise ConfigError("clip_coef", 0.0, "must be greater than 0: at 0 the policy could not move")
        if self.batch_size % self.num_minibatches:
            near = min(_divisors(self.batch_size), key=lambda n: (abs(n - self.num_minibatches), n))
            raise ConfigError(
                "num_minibatches",
                self.num_minibatches,
                f"must divide num_envs * num_steps = {self.num_envs} * {self.num_steps} = {self.batch_size}; "
                f"the nearest that does is {near}",
            )
        if self.network.rnn is not None and self.num_envs % self.num_minibatches:
            raise ConfigError(
                "num_minibatches",
                self.num_minibatches,
                f"must divide num_envs = {self.num_envs} for a recurrent policy, which learns from whole sequences",
            )
        if self.network.rnn is not None and self.runtime.precision == "bf16":
            raise ConfigError("precision", "bf16", "has no gradients of a recurrent network; use float32")
        if self.normalize_advantages and self.minibatch_size < 2:
            raise ConfigError(
                "normalize_advantages", True, "needs minibatches of at least 2 transitions; raise num_steps or num_envs"
            )
        made = self._make_schedules(self.total_updates, imports=False)
        self._check_feedback(made.get("target_kl"))

    def _convert_schedules(self) -> None:
        """Take numbers and functions for schedules."""
        for name, kind in SCHEDULES.items():
            value = getattr(self, name)
            try:
                object.__setattr__(self, name, kind.of(value))
            except TypeError as error:
                raise ConfigError(name, value, str(error)) from None
            except ConfigError as error:
                raise _of_setting(name, error) from None

    def _check_feedback(self, target_kl: Schedule | None) -> None:
        for name in ("policy_lr_kl", "value_lr_kl"):
            target = getattr(self, name).target
            if target is None or target_kl is None:
                continue
            # A constant one would take long over a billion updates.
            updates = range(1 if target_kl.phase(0) == "constant" else target_kl.total_updates)
            if (lowest := min(map(target_kl, updates))) < target:
                raise ConfigError(
                    f"{name}_target",
                    target,
                    f"must be at most target_kl, whose lowest value is {lowest:g}: an update ends there, so that it "
                    "would never be seen",
                )
        if self.network.shared_trunk and self.shared_lr == "min" and self.policy_lr_kl != self.value_lr_kl:
            raise ConfigError(
                "shared_lr",
                "min",
                "needs the same lr_kl settings for policy and value; else give policy or value",
            )

    def feedback(self, groups: Iterable[str]) -> dict[str, FeedbackConfig]:
        """The feedback of each of the parameter groups."""
        owners = {"shared": "value" if self.shared_lr == "value" else "policy"}
        return {group: getattr(self, f"{owners.get(group, group)}_lr_kl") for group in groups}

    def make_schedules(self, total_updates: int) -> dict[str, Schedule]:
        """The schedules for a run of `total_updates`, by field; those that are off are left out.

        Raises:
            ConfigError: naming the setting that does not fit.
        """
        return self._make_schedules(total_updates, imports=True)

    def _make_schedules(self, total_updates: int, *, imports: bool) -> dict[str, Schedule]:
        """The same; without `imports` those that import a module are left out: reading a name must not import it."""
        configs = {name: getattr(self, name) for name in SCHEDULES}
        return {
            name: self.make_schedule(name, total_updates)
            for name, config in configs.items()
            if not (isinstance(config, LimitConfig) and config.is_off) and (imports or not config.imports)
        }

    def make_schedule(self, name: str, total_updates: int) -> Schedule:
        """The schedule in field `name`; raises as `make_schedules`."""
        try:
            return make_schedule(getattr(self, name), total_updates, self.batch_size)
        except ConfigError as error:
            raise _of_setting(name, error) from error.__cause__

    @property
    def batch_size(self) -> int:
        return self.num_envs * self.num_steps

    @property
    def minibatch_size(self) -> int:
        return self.batch_size // self.num_minibatches

    @property
    def total_updates(self) -> int:
        return -(-self.total_timesteps // self.batch_size)

    @property
    def minibatch_steps(self) -> int:
        """Optimizer steps of the whole run, when no update is cut short."""
        return self.total_updates * self.update_epochs * self.num_minibatches

    def without_lr_schedules(self) -> PPOConfig:
        """The same with both learning rates constant at their base rates, without feedback.

        Raises:
            ConfigError: for a function without a base rate.
        """
        constant = {}
        for name in ("policy_lr", "value_lr"):
            try:
                constant[name] = getattr(self, name).at_base_rate()
            except ConfigError as error:
                raise _of_setting(name, error) from None
        return dataclasses.replace(self, **constant, policy_lr_kl=FeedbackConfig(), value_lr_kl=FeedbackConfig())


# The fields of `PPOConfig` that are schedules, with their classes.
SCHEDULES: Mapping[str, type[ScheduleConfig]] = {
    field.name: type(field.default)
    for field in dataclasses.fields(PPOConfig)
    if isinstance(field.default, ScheduleConfig)
}


def _of_setting(name: str, error: ConfigError) -> ConfigError:
    """The `error` of the schedule in field `name`, by the name of the setting."""
    suffix = "" if error.name == "peak" else f"_{error.name}"
    return ConfigError(name + suffix, error.value, error.allowed)


def _divisors(number: int) -> list[int]:
    small = [n for n in range(1, int(number**0.5) + 1) if number % n == 0]
    return small + [number // n for n in small]

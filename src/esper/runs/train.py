"""Training from Python in one call: what `esper ppo` does, for environments and schedules that are Python objects."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, overload

from esper.analysis.runs import Table, load_updates, read_events
from esper.envs.given import Given, own_num_envs, recorded_name
from esper.policies.evaluate import Scores, evaluate
from esper.policies.policy import Policy, load_policy
from esper.policies.show import record_gif
from esper.runs.callbacks import CallbackLike
from esper.runs.config import RunConfig
from esper.runs.folder import BEST
from esper.runs.initial_config import InitialConfig
from esper.runs.layers import Layer, Settings, SettingsError, file_layer, resolve
from esper.runs.parts import check_objects
from esper.runs.presets import with_preset
from esper.runs.resume.rules import Mode
from esper.runs.run import RunResult, resume_run
from esper.runs.run import run as run_training
from esper.runs.seeds import configs_of, run_each, seeds_of
from esper.schedules import ScheduleConfig
from esper.settings.options import ConfigError
from esper.settings.values import as_path
from esper.simic.config import SCHEDULES
from esper.telemetry.console import on_terminal
from esper.telemetry.diagnosis import diagnose
from esper.telemetry.events import Sink
from esper.telemetry.writers import check_sinks


@overload
def train(
    env: str | Given | None = None,
    *,
    preset: str = "auto",
    config: str | Path | None = None,
    seeds: None = None,
    callbacks: Sequence[CallbackLike] = (),
    sinks: Sequence[Sink] = (),
    **settings: Any,
) -> Run: ...


@overload
def train(
    env: str | Given | None = None,
    *,
    preset: str = "auto",
    config: str | Path | None = None,
    seeds: int | Sequence[int],
    callbacks: Sequence[CallbackLike] = (),
    sinks: Sequence[Sink] = (),
    **settings: Any,
) -> list[Run]: ...


def train(
    env: str | Given | None = None,
    *,
    preset: str = "auto",
    config: str | Path | None = None,
    seeds: int | Sequence[int] | None = None,
    callbacks: Sequence[CallbackLike] = (),
    sinks: Sequence[Sink] = (),
    **settings: Any,
) -> Run | list[Run]:
    """Train a policy in `env`, with the checkpoints, record and pictures of `esper ppo`; returns the finished run.

    `env` is an id, a callable (as a class) that makes a `gymnasium.Env`, or an environment or vector environment that
    exists already, which stays open. Every flag of `esper ppo` is a keyword: `lr=1e-3, lr_decay="cosine"`. A schedule
    may be a number, a function of the update index, or a `ScheduleConfig`. `network`, `loss_terms` and `optimizer` are
    those of `PPOAgent`. `init_from` may be a `Policy`, too. `preset` and `config` are as the flags; where `env` is no
    id, `auto` goes by its spaces.

    `seeds`, a count (8: 1 to 8) or a list, trains a run with each, one after the other, in folders `seed-N` of
    `run_dir`, and returns all of them. The same call again resumes those that are not complete. A signal ends it: then
    the last run returned is interrupted, and those after it are not begun.

    Raises:
        ConfigError: naming the setting, for one that cannot be used.
        RunError: when the environment or a callback raises, or writing fails.
    """
    if seeds is not None and "seed" in settings:
        raise ConfigError("seed", settings["seed"], f"seeds = {seeds} has the seeds; give one of them")
    made = _config(env, preset, config, settings)
    if seeds is None:
        return Run(made, run_training(made, _shown(made, sinks), callbacks=callbacks))
    check_sinks(sinks)
    ended = run_each(
        configs_of(made, seeds_of(seeds)),
        callbacks=callbacks,
        sinks=sinks,
        console=lambda each: [on_terminal(quiet=each.quiet)],
    )
    return [Run(each, result) for each, result in ended]


def _config(env: str | Given | None, preset: str, config: str | Path | None, settings: Mapping[str, Any]) -> RunConfig:
    """The settings of a run, with its environment."""
    try:
        layers = [] if config is None else [file_layer(as_path("config", config))]
        given = None if env is None or isinstance(env, str) else env
        own = {} if env is None else {"env": env if given is None else recorded_name(given)}
        if given is not None and (number := own_num_envs(given)) is not None:
            # Weaker than the file and keywords, as another number there is an error.
            layers = [Layer(source="env", values={"num_envs": number}), *layers]
        settings, policy = _policy_apart(dict(settings))
        made = _resolved(preset, [*layers, Layer(source="env", values=own)], settings, given)
    except SettingsError as error:
        raise error.error from None
    environment = dataclasses.replace(made.environment, given=given)
    if made.eval_every is not None:
        environment.check_more_can_be_made("eval_every", made.eval_every)
    initial = dataclasses.replace(made.initial, given=policy)
    return dataclasses.replace(made, environment=environment, initial=initial)


def resume(
    path: str | Path,
    env: Given | None = None,
    *,
    schedule: Mode = "continue",
    fresh_episodes: bool = False,
    trust: bool = False,
    callbacks: Sequence[CallbackLike] = (),
    sinks: Sequence[Sink] = (),
    **settings: Any,
) -> Run:
    """Resume the run, or from the checkpoint, in `path`; `settings` are those to change, as `total_timesteps`.

    What was passed from Python is passed again: `env`, `encoder`, and so on. `schedule` is `--resume-schedule`.

    Raises:
        ConfigError, StoreError, ResumeError, RunError: as `resume_run`.
    """
    values, schedules = _apart(settings)
    if schedules:
        name = next(iter(schedules))
        raise ConfigError(name, schedules[name], "a resume takes a function as lr_decay, and numbers")
    try:
        made, result = resume_run(
            path,
            [Layer(source="resume", values=values)],
            mode=schedule,
            fresh_episodes=fresh_episodes,
            trust=trust,
            given=env,
            callbacks=callbacks,
            sinks=lambda config: _shown(config, sinks),
        )
    except SettingsError as error:
        raise error.error from None
    return Run(made, result)


class Run:
    """A finished run: its `folder`, how it ended (`status`, `cause`), its policy and its record."""

    def __init__(self, config: RunConfig, result: RunResult) -> None:
        self.config, self.result = config, result

    def __repr__(self) -> str:
        why = f" ({self.cause})" if self.cause else ""
        train = self.result.train
        return f"<Run {self.folder}: {self.status}{why} after {train.updates:,} updates, {train.env_steps:,} env steps>"

    @property
    def folder(self) -> Path:
        return self.result.run_dir

    @property
    def status(self) -> str:
        return self.result.train.status

    @property
    def cause(self) -> str | None:
        return self.result.cause

    @property
    def policy(self) -> Policy:
        """The policy at the end, as it is in the folder."""
        return self._loaded(self.folder)

    @property
    def best_policy(self) -> Policy:
        """The policy of the best evaluation.

        Raises:
            ConfigError: without an evaluation there is none.
        """
        if not (self.folder / BEST).exists():
            raise ConfigError("eval_every", self.config.eval_every, "no evaluation has left a best policy")
        return self._loaded(self.folder / BEST)

    @property
    def record(self) -> list[dict[str, Any]]:
        """The events of the run, in order."""
        return list(read_events(self.folder))

    @property
    def updates(self) -> Table:
        """The completed updates: an array for each field of the record, as `load_updates`."""
        return load_updates(self.folder)

    @property
    def diagnosis(self) -> str | None:
        """Why returns stand still at the end, and what to try; None if they do not, or no known cause holds."""
        found = diagnose(self.record)
        return None if found is None else found.says

    def evaluate(self, episodes: int = 10, *, seed: int = 0, stochastic: bool = False) -> Scores:
        """Whole episodes of the policy in new environments, or in those that were passed to `train`."""
        return evaluate(self.policy, episodes=episodes, seed=seed, stochastic=stochastic)

    def record_gif(self, path: str | Path, *, seed: int = 0, env: Given | None = None) -> int:
        """Record one episode of the policy as an animated GIF, as `esper.policies.show.record_gif`."""
        return record_gif(self.policy, path, seed=seed, env=env)

    def resume(self, **settings: Any) -> Run:
        """Continue the run, as `esper.resume`: `run.resume(total_timesteps=1_000_000, schedule="extend")`."""
        inherited = {"trust": True, "quiet": self.config.quiet, **self.config.parts.given, **self._modules()}
        return resume(self.folder, self.config.environment.given, **{**inherited, **settings})

    def _loaded(self, folder: Path) -> Policy:
        network = self.config.parts.given.get("network")
        policy = load_policy(folder, trust=True, network=network, **self._modules())
        given = self.config.environment.given
        return dataclasses.replace(policy, environment=dataclasses.replace(policy.environment, given=given))

    def _modules(self) -> dict[str, Any]:
        """The settings of the network that are callables."""
        network = self.config.ppo.network
        settings = {"encoder": network.encoder, "activation": network.activation}
        return {name: each for name, each in settings.items() if not isinstance(each, str)}


def _shown(config: RunConfig, sinks: Sequence[Sink]) -> list[Sink]:
    check_sinks(sinks)
    return [on_terminal(quiet=config.quiet), *sinks]


def _resolved(preset: str, layers: Sequence[Layer], settings: Mapping[str, Any], given: Given | None) -> RunConfig:
    """The settings of `preset` and `layers` under those of the caller."""
    values, schedules = _apart(settings)
    made: Settings = resolve(with_preset(preset, [*layers, Layer(source="train", values=values)], given))
    if not schedules:
        return made.config
    return dataclasses.replace(made.config, ppo=dataclasses.replace(made.config.ppo, **schedules))


def _policy_apart(settings: dict[str, Any]) -> tuple[dict[str, Any], Policy | None]:
    """The settings with a name for the policy that is their `init_from`, and it."""
    given = settings.get("init_from")
    if isinstance(given, Policy):
        return {**settings, "init_from": InitialConfig.PASSED}, given
    if not isinstance(given, str | Path | None):
        raise ConfigError(
            "init_from", repr(given), "must be a folder (a run, a checkpoint, a saved policy) or a Policy"
        )
    return settings, None


def _apart(settings: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The settings that layers take, and the schedules that are objects, by field; str for a Path."""
    values: dict[str, Any] = {}
    schedules: dict[str, Any] = {}
    check_objects(settings)
    for name, value in settings.items():
        fields = ("policy_lr", "value_lr") if name == "lr" else (name,)
        if isinstance(value, ScheduleConfig) and set(fields) <= set(SCHEDULES):
            _check_alone(name, [each for each in settings if each.startswith(f"{name}_")])
            schedules |= dict.fromkeys(fields, value)
        elif callable(value) and set(fields) <= set(SCHEDULES):
            _check_alone(name, [each for each in settings if each == f"{name}_decay"])
            values[f"{name}_decay"] = value
        else:
            values[name] = str(value) if isinstance(value, Path) else value
    return values, schedules


def _check_alone(schedule: str, others: Sequence[str]) -> None:
    """Refuse settings beside the `schedule` that has their values."""
    if others:
        raise ConfigError(schedule, "a schedule", f"has the value of {others[0]}; give one of them")

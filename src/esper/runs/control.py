"""A run whose actions a controller chooses that does not learn: its record is that of a run of PPO, without updates."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from esper.envs.base import BoolArray, ObsArray
from esper.envs.growth.heuristic import Controller, make_controller
from esper.envs.growth.stages import Host
from esper.envs.growth.vector import GrowthVectorEnv
from esper.policies.player import SAMPLING, act, first_state
from esper.policies.policy import Policy
from esper.runs.control_config import ENV, ControlConfig
from esper.runs.folder import RunFolder, check_not_in_use, check_writable, create_folder, path_of_run
from esper.runs.growth_episodes import Done, growth_episode, round_completed
from esper.runs.versions import versions
from esper.simic.threads import torch_threads
from esper.system.seeding import device_generator, host_generator, integer_seed
from esper.system.stopping import StopRequest, stop_request
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import RunFinished, RunStarted, Sink
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.rounds import GrowthEpisode
from esper.telemetry.stream import Telemetry
from esper.telemetry.writers import make_writers


@dataclass(frozen=True, kw_only=True)
class ControlResult:
    """The folder of a run, its episodes, and how it ended."""

    run_dir: Path
    episodes: Sequence[GrowthEpisode]
    status: Literal["completed", "interrupted"]
    cause: str | None
    seconds: float


class Seen(NamedTuple):
    """What is known before a step: observations [N, ...], hosts, and the environments that begin an episode [N]."""

    obs: ObsArray
    hosts: Sequence[Host]
    masks: BoolArray
    begins: BoolArray


class Acting(Protocol):
    """Chooses actions [N, 4], each with a reason."""

    def __call__(self, seen: Seen) -> tuple[NDArray[np.generic], Sequence[str]]: ...


def by_rules(controller: Controller) -> Acting:
    """The actions of `controller`."""

    def choose(seen: Seen) -> tuple[NDArray[np.generic], Sequence[str]]:
        decisions = controller.decide(seen.hosts, seen.masks)
        return np.array([each.action.numbers for each in decisions]), [each.reason for each in decisions]

    return choose


def by_policy(policy: Policy, config: ControlConfig) -> Acting:
    """The actions of `policy`, the most likely ones unless they are sampled."""
    network, count = policy.network, config.num_envs
    state = first_state(network, count)
    generator = device_generator(config.seed, SAMPLING, torch.device("cpu"))

    @torch.no_grad()
    def choose(seen: Seen) -> tuple[NDArray[np.generic], Sequence[str]]:
        if state is not None:
            state[torch.from_numpy(seen.begins)] = 0.0
        noise = network.noise((count,), generator) if config.stochastic else None
        return act(network, seen.obs, seen.masks, state, noise), [""] * count

    return choose


def _controller(config: ControlConfig) -> Controller:
    generator = host_generator(config.seed, "random controller")
    return make_controller(
        config.controller, config.growth, config.rules, num_envs=config.num_envs, generator=generator
    )


def make_env(config: ControlConfig) -> GrowthVectorEnv:
    """The environment of `config`."""
    return GrowthVectorEnv(config.growth, config.num_envs)


def control(config: ControlConfig, policy: Policy | None = None, sinks: Sequence[Sink] = ()) -> ControlResult:
    """Run the episodes of `config`, with its controller or with `policy`; events go to the run's folder and to `sinks`.

    A signal ends the run after the current epoch.

    Raises:
        ConfigError: for settings that cannot be used, an unusable folder.
        OSError, SinkError: when writing fails.
    """
    path = path_of_run(config.run_dir, ENV, config.seed)
    check_writable(path)
    check_not_in_use(path)
    with contextlib.ExitStack() as stack:
        # As beside the kernels of PPO, so that hosts are trained to the same bits.
        stack.enter_context(torch_threads(1))
        stop = stack.enter_context(stop_request(quiet=config.quiet, what="this epoch"))
        env = make_env(config)
        stack.callback(env.close)
        acting = by_rules(_controller(config)) if policy is None else by_policy(policy, config)
        folder = create_folder(path, config.recorded())
        stack.callback(folder.close)
        stop.begin()
        telemetry = stack.enter_context(_record(config, folder, sinks))
        return _run(config, env, acting, folder, telemetry, stop)


@contextlib.contextmanager
def _record(config: ControlConfig, folder: RunFolder, sinks: Sequence[Sink]) -> Iterator[Telemetry]:
    settings = TelemetryConfig(telemetry="minimal", tensorboard=config.tensorboard)
    record = JsonlRecord(folder.events)
    with contextlib.closing(record):
        writers = make_writers(settings, folder.path, env_steps=0)
        with contextlib.closing(Telemetry(settings, record, writers=writers, watchers=sinks)) as telemetry:
            yield telemetry


def _run(
    config: ControlConfig,
    env: GrowthVectorEnv,
    acting: Acting,
    folder: RunFolder,
    telemetry: Telemetry,
    stop: StopRequest,
) -> ControlResult:
    began, recorded = time.perf_counter(), config.recorded()
    telemetry.emit(
        RunStarted(
            config=recorded,
            seed=config.seed,
            total_updates=config.rounds,
            schedules={},
            lr_schedule_switch="off",
            engine=recorded["controller"],
            threads=1,
            telemetry="minimal",
            versions=versions(),
        )
    )
    every: list[GrowthEpisode] = []
    rounds = 0
    for episodes in _rounds(config, env, acting, telemetry, stop):
        every += episodes
        rounds += 1
    status: Literal["completed", "interrupted"] = "completed" if rounds == config.rounds else "interrupted"
    finished = RunFinished(
        status=status,
        cause=stop.cause if status == "interrupted" else None,
        updates=rounds,
        updates_undone=0,
        env_steps=rounds * config.growth.epochs * config.num_envs,
        episodes=len(every),
        seconds=time.perf_counter() - began,
    )
    telemetry.emit(finished)
    return ControlResult(
        run_dir=folder.path, episodes=every, status=status, cause=finished.cause, seconds=finished.seconds
    )


def _rounds(
    config: ControlConfig, env: GrowthVectorEnv, acting: Acting, telemetry: Telemetry, stop: StopRequest
) -> Iterator[list[GrowthEpisode]]:
    """The episodes of each round, until the last one or until `stop`."""
    obs: ObsArray = env.reset(integer_seed(config.seed, "env"))
    begins: BoolArray = np.ones(config.num_envs, dtype=np.bool_)
    so_far: list[list[Done]] = [[] for _ in range(config.num_envs)]
    env_steps = 0
    for number in range(config.rounds):
        began = time.perf_counter()
        episodes = []
        for _ in range(config.growth.epochs):
            if stop:
                return
            actions, reasons = acting(Seen(obs, env.hosts, env.action_masks, begins))
            step = env.step(actions)
            obs, begins = step.obs, step.begins
            env_steps += config.num_envs
            for index, (epoch, reason) in enumerate(zip(env.epochs, reasons, strict=True)):
                so_far[index].append(Done(epoch, reason))
                if epoch.ended:
                    place = {"update": number, "env_steps": env_steps, "environment": index}
                    episodes.append(growth_episode(so_far[index], config.growth, **place))
                    so_far[index] = []
                    telemetry.emit(episodes[-1])
        speed = config.growth.epochs * config.num_envs / (time.perf_counter() - began)
        telemetry.emit(round_completed(episodes, update=number, env_steps=env_steps, steps_per_second=speed))
        yield episodes

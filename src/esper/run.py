"""One training run in a folder: the only place that wires environment, agent, telemetry and files."""

from __future__ import annotations

import contextlib
import json
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import FrameType

import torch

from esper import __version__
from esper.checkpoint.store import write_atomically
from esper.config import RunConfig
from esper.envs.make import make_from_config
from esper.options import ConfigError
from esper.policy import save_policy
from esper.settings import recorded
from esper.simic.ppo import PPOAgent
from esper.simic.schedules import Schedule
from esper.simic.seeding import integer_seed
from esper.simic.vectorized import TrainResult, train_ppo_vectorized
from esper.telemetry.events import Event, RunFinished, RunStarted, Sink
from esper.telemetry.jsonl import JsonlSink


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """Where a run is, and how it ended."""

    run_dir: Path
    train: TrainResult
    seconds: float


def run(config: RunConfig, sinks: Sequence[Sink] = ()) -> RunResult:
    """Train as `config` says; events go to the run folder and to `sinks`.

    Nothing is written before environment and agent are made. An interrupt ends the run after the update it is in.

    Raises:
        ConfigError: for settings that cannot be used, an environment that cannot be made, an unusable folder.
    """
    torch.set_num_threads(config.threads)
    env = make_from_config(config.environment, config.ppo.num_envs)
    with contextlib.closing(env):
        agent = PPOAgent(config.ppo, env.spec, seed=config.seed)
        run_dir = create_run_dir(config)
        write_atomically(run_dir / "config.json", json.dumps(recorded(config), indent=2).encode() + b"\n")
        started = time.perf_counter()
        with contextlib.ExitStack() as stack:
            emit = _fan_out([*_file_sinks(config, run_dir), *sinks], stack)
            emit(_run_started(config, agent))
            with stop_on_interrupt() as should_stop:
                result = train_ppo_vectorized(
                    agent, env, env_seed=integer_seed(config.seed, "env"), on_event=emit, should_stop=should_stop
                )
            seconds = time.perf_counter() - started
            emit(_run_finished(result, seconds))
    save_policy(run_dir, agent, config.environment)
    _plot(config, run_dir)
    return RunResult(run_dir=run_dir, train=result, seconds=seconds)


def create_run_dir(config: RunConfig) -> Path:
    """The run's new or empty folder.

    Raises:
        ConfigError: when it has something in it or cannot be written.
    """
    name = config.environment.env.replace("/", "-")
    stamp = time.strftime("%Y%m%d-%H%M%S")
    path = Path(config.run_dir) if config.run_dir else Path("runs") / name / f"{stamp}-{config.seed}"
    try:
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise ConfigError("run_dir", str(path), "has files in it; name a new or an empty folder")
        (path / ".writable").touch()
        (path / ".writable").unlink()
    except OSError as error:
        raise ConfigError("run_dir", str(path), f"cannot be written: {error.strerror}") from None
    return path


@contextlib.contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Within, the first SIGINT or SIGTERM makes the yielded function true; a second SIGINT raises as usual.

    Outside the main thread signals cannot be handled; there it is never true.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: stopped
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _plot(config: RunConfig, run_dir: Path) -> None:
    # matplotlib takes as long to import as a short run takes to train; only the end needs it.
    from esper.analysis.plots import plot_training
    from esper.analysis.runs import load_updates

    plot_training(
        load_updates(run_dir), run_dir / "training.png", title=f"{config.environment.env}, seed {config.seed}"
    )


def _file_sinks(config: RunConfig, run_dir: Path) -> list[Sink]:
    sinks: list[Sink] = [JsonlSink(run_dir / "events.jsonl")]
    if config.tensorboard:
        from esper.telemetry.tensorboard import TensorBoardSink

        sinks.append(TensorBoardSink(run_dir / "tensorboard"))
    return sinks


def _fan_out(sinks: Sequence[Sink], stack: contextlib.ExitStack) -> Callable[[Event], None]:
    for sink in sinks:
        stack.callback(sink.close)

    def emit(event: Event) -> None:
        for sink in sinks:
            sink.emit(event)

    return emit


def _run_started(config: RunConfig, agent: PPOAgent) -> RunStarted:
    return RunStarted(
        config=recorded(config),
        seed=config.seed,
        total_updates=agent.config.total_updates,
        schedules={name: _resolved(schedule) for name, schedule in agent.schedules.items()},
        lr_schedule_switch="on" if agent.lr_schedules_on else "off",
        compiled=agent.optimization.compiled,
        versions={
            "esper": __version__,
            "torch": torch.__version__,
            "gymnasium": version("gymnasium"),
            "python": platform.python_version(),
        },
    )


def _resolved(schedule: Schedule) -> dict[str, float | int | str | None]:
    return {
        "decay": schedule.config.decay,
        "peak": schedule.config.peak,
        "floor": schedule.floor,
        "delay": schedule.config.delay,
        "warmup": schedule.warmup,
        "decay_start": schedule.decay_start,
        "decay_end": schedule.decay_end,
    }


def _run_finished(result: TrainResult, seconds: float) -> RunFinished:
    return RunFinished(
        status="interrupted" if result.stopped else "completed",
        updates=result.updates,
        env_steps=result.env_steps,
        episodes=result.episodes,
        seconds=seconds,
    )

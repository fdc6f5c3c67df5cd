"""How long `esper compare` takes to read runs and to compare them, in a fresh process, on one core.

With `--report` how long `esper report` of a single run takes: its page, and its table as CSV. The records are made up,
with every field that training writes; they lie in a temporary folder, about a kilobyte for each update, and two for
the statistics of every tenth.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import os
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from esper.runs.config import RunConfig
from esper.runs.layers import recorded
from esper.settings.options import settings_of
from esper.telemetry.analytics import Analytics
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import RunFinished, RunStarted, UpdateCompleted
from esper.telemetry.jsonl import encode
from esper.telemetry.records import to_record

STEPS = 1024  # of all environments, in an update
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def write_run(folder: Path, seed: int, updates: int, *, rate: float = 1e-3) -> Path:
    """A run that learns to a return of 500, with noise of its own."""
    rng = random.Random(seed * 1e9 + rate)
    schedule = {"peak": rate, "floor": 0.0, "decay": "linear", "updates": updates}
    started = RunStarted(
        config=recorded(RunConfig(seed=seed)) | {"policy_lr": rate, "total_timesteps": updates * STEPS},
        seed=seed,
        total_updates=updates,
        schedules={"policy": schedule, "value": schedule},
        lr_schedule_switch="on",
        engine="native",
        threads=1,
        telemetry="normal",
        versions={"esper": "0", "python": "3", "torch": "2"},
    )
    finished = RunFinished(
        status="completed",
        cause=None,
        updates=updates,
        updates_undone=0,
        env_steps=updates * STEPS,
        episodes=9 * updates,
        seconds=60.0,
    )
    folder.mkdir(parents=True)
    analytics = Analytics(TelemetryConfig().snapshot_every)
    with (folder / "events.jsonl").open("wb") as file:
        events = (_update(rng, index, updates, rate) for index in range(updates))
        for event in itertools.chain([started], events, [finished]):
            record = to_record(event)
            for each in (record, *map(to_record, analytics.see(record))):
                file.write(encode(each | {"time": 1.7e9 + rng.random()}) + b"\n")
    return folder


def _update(rng: random.Random, index: int, updates: int, rate: float) -> UpdateCompleted:
    done = index / updates
    noise = rng.gauss(0, 1)
    mean = 500 * (1 - math.exp(-8 * done)) + 10 * noise
    deviation = 0.05 + 0.02 * rng.random()
    return UpdateCompleted(
        update=index,
        env_steps=(index + 1) * STEPS,
        lr=dict.fromkeys(("policy", "value"), rate * (1 - done)),
        lr_phase=dict.fromkeys(("policy", "value"), "decay"),
        schedule_update=index,
        schedule_total_updates=updates,
        clip_coef=0.2,
        entropy_coef=0.01,
        optimizer_steps=16,
        loss=rng.random(),
        policy_loss=-0.01 * rng.random(),
        value_loss=math.exp(3 - 5 * done + 0.3 * noise),
        entropy=0.69 - 0.4 * done,
        approx_kl=0.01 * rng.random(),
        clip_fraction=0.1 * rng.random(),
        ratio_mean=1 + 0.001 * noise,
        ratio_std=deviation,
        ratio_min=1 - 4 * deviation,
        ratio_max=1 + 5 * deviation,
        grad_norm={"policy": rng.random(), "value": 5 * rng.random()},
        explained_variance=1 - math.exp(-4 * done) * rng.random(),
        episodes=9,
        episode_return_mean=mean,
        episode_return_std=50 * rng.random(),
        episode_return_min=mean - 100 * rng.random(),
        episode_return_max=mean + 100 * rng.random(),
        episode_length_mean=mean,
        steps_per_second=1e5 + 1e4 * noise,
    )


def measure(folders: list[str]) -> dict[str, Any]:
    """In this process: seconds to import, to read, and to compare."""
    started = time.perf_counter()
    from esper.analysis.arms import load_arm
    from esper.analysis.comparison import compare

    imported = time.perf_counter()
    idle = time.process_time()
    arms = [load_arm(Path(folder), settings_of(RunConfig)) for folder in folders]
    read, busy = time.perf_counter(), time.process_time() - idle
    compare(arms)
    return {
        "import_seconds": imported - started,
        "read_seconds": read - imported,
        "read_cpu_seconds": busy,
        "compare_seconds": time.perf_counter() - read,
        "peak_memory_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "torch_imported": "torch" in sys.modules,
    }


def measure_report(updates: int) -> dict[str, dict[str, float]]:
    """Seconds and memory of `esper report` of a run, with and without `--csv`, each in a process of its own."""
    found = {}
    with tempfile.TemporaryDirectory() as folder:
        run = write_run(Path(folder) / "run", 1, updates)
        for name, flags in {"report": [], "csv": ["--csv", f"{folder}/updates.csv"]}.items():
            begun = time.perf_counter()
            process = subprocess.Popen(
                [sys.executable, "-m", "esper", "report", str(run), *flags],
                stdout=subprocess.DEVNULL,
                env=os.environ | _ONE_THREAD,
            )
            _, status, used = os.wait4(process.pid, 0)
            if status:
                raise SystemExit(f"esper report {' '.join(flags)} failed")
            found[name] = {
                "seconds": time.perf_counter() - begun,
                "cpu_seconds": used.ru_utime + used.ru_stime,
                "peak_memory_mib": used.ru_maxrss / 1024,
            }
        with (run / "events.jsonl").open("rb") as file:
            found["record"] = {"events": sum(1 for _ in file), "mib": file.tell() / 2**20}
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--runs", type=int, default=1000, help="of all arms together")
    parser.add_argument("--updates", type=int, default=1000)
    parser.add_argument("--arms", type=int, default=2)
    parser.add_argument("--read", nargs="+", metavar="FOLDER", help="measure these arms, and make none")
    parser.add_argument("--report", action="store_true", help="measure the report of one run of --updates")
    args = parser.parse_args()
    if args.report:
        print(json.dumps(measure_report(args.updates), indent=2))
        return
    if args.read:
        print(json.dumps(measure(args.read)))
        return
    with tempfile.TemporaryDirectory() as folder:
        arms = [Path(folder) / f"arm-{number}" for number in range(args.arms)]
        for number in range(args.runs):
            seed, which = divmod(number, args.arms)
            write_run(arms[which] / f"seed-{seed}", seed, args.updates, rate=1e-3 * (which + 1))
        size = sum(path.stat().st_size for path in Path(folder).rglob("events.jsonl"))
        command = [sys.executable, __file__, "--read", *map(str, arms)]
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | _ONE_THREAD)
    sizes = {"runs": args.runs, "updates": args.updates, "arms": args.arms, "mib": size / 2**20}
    print(json.dumps(sizes | json.loads(done.stdout), indent=2))


if __name__ == "__main__":
    main()

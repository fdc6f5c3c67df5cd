"""Throughput of this project beside other PPO systems: the scripts in benchmarks/systems, one process each.

    python benchmarks/throughput.py --python-peers PEERS/bin/python --python-rejax REJAX/bin/python

A round runs every system once, then the next round begins (A B C A B C ...), so that a machine that slows down does so
for all of them. Tables show medians over the rounds; a ratio is taken within each round. A run that fails, or for which
a package is missing, is reported as such. Needs the standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import json
import os
import platform
import shlex
import signal
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parent / "systems"
CARTPOLE = "--env CartPole-v1 --num-steps 128 --update-epochs 4 --num-minibatches 4 --lr 2.5e-4"
# PureJaxRL's examples/brax_minatar.ipynb, but for the rate, which decays there from 5e-3.
MINATAR = (
    "--num-envs 64 --num-steps 128 --update-epochs 4 --num-minibatches 8 --lr 1e-3 --activation relu "
    "--entropy-coef 0.01 --encoder flatten"
)
# Those of MinAtar's authors (Young and Tian 2019, arXiv 1903.03176).
CONVOLUTIONS = "--encoder small --hidden 128"
WORKLOADS = {
    "cartpole": f"{CARTPOLE} --num-envs 8",
    "cartpole-64": f"{CARTPOLE} --num-envs 64",
    "cartpole-512": f"{CARTPOLE} --num-envs 512",
    "halfcheetah": "--env HalfCheetah-v4 --num-steps 2048 --update-epochs 10 --num-minibatches 32 --lr 3e-4 "
    "--num-envs 1",
    "lstm": "--env CartPole-v1 --num-steps 32 --update-epochs 10 --num-minibatches 1 --lr 1e-3 --num-envs 16 "
    "--rnn-size 64",
    "masks": f"{CARTPOLE} --num-envs 8 --env MaskedChoices-v0",
    "discrete-20": f"{CARTPOLE} --num-envs 8 --env Choices-v0",
    "multidiscrete": f"{CARTPOLE} --num-envs 8 --env MultiChoices-v0",
    "minatar-breakout": f"{MINATAR} --env MinAtar/Breakout",
    "minatar-space-invaders": f"{MINATAR} --env MinAtar/SpaceInvaders",
    "minatar-breakout-conv": f"{MINATAR} --env MinAtar/Breakout {CONVOLUTIONS}",
    "minatar-space-invaders-conv": f"{MINATAR} --env MinAtar/SpaceInvaders {CONVOLUTIONS}",
}
TIMESTEPS = {"cartpole": 300_000, "cartpole-64": 1_000_000, "cartpole-512": 2_000_000, "halfcheetah": 100_000} | {
    "lstm": 60_000,
    "masks": 200_000,
    "discrete-20": 200_000,
    "multidiscrete": 200_000,
    "minatar-breakout": 500_000,
    "minatar-space-invaders": 500_000,
    "minatar-breakout-conv": 200_000,
    "minatar-space-invaders-conv": 200_000,
}


CARTPOLES = ("cartpole", "cartpole-64", "cartpole-512")
MINATARS = tuple(name for name in WORKLOADS if name.startswith("minatar"))
# What Stable-Baselines3 has in another package.
CONTRIB = ("lstm", "masks")


@dataclass(frozen=True, kw_only=True)
class System:
    """A script, the option that names its interpreter, arguments of its own, and the `workloads` that it can do.

    `share` is how much of a workload's steps it does: the steady speed of a slow system shows in fewer.
    """

    script: str
    python: str = "python"
    arguments: str = ""
    workloads: tuple[str, ...] = tuple(WORKLOADS)
    share: float = 1.0


SYSTEMS = {
    "esper": System(script="esper.py"),
    "esper-torch": System(script="esper.py", arguments="--torch", workloads=CARTPOLES + MINATARS),
    "esper-shared": System(script="esper.py", arguments="--torch --shared-trunk", workloads=CARTPOLES),
    # One thread is faster than two for both, at these sizes.
    "sb3": System(
        script="sb3.py",
        python="python_peers",
        arguments="--threads 1",
        share=0.2,
        workloads=tuple(name for name in WORKLOADS if name not in CONTRIB + MINATARS),
    ),
    "sb3-contrib": System(
        script="sb3_contrib.py", python="python_peers", arguments="--threads 1", share=0.2, workloads=CONTRIB
    ),
    "sbx": System(script="sbx.py", python="python_peers", share=0.2, workloads=(*CARTPOLES, "halfcheetah")),
    "tianshou": System(
        script="tianshou.py",
        python="python_peers",
        arguments="--threads 1",
        share=0.1,
        workloads=(*CARTPOLES, "halfcheetah"),
    ),
    "rejax": System(script="rejax.py", python="python_rejax", workloads=CARTPOLES + MINATARS[:2]),
    "purejax": System(script="purejax.py", python="python_rejax", workloads=CARTPOLES + MINATARS),
}


def command(name: str, workload: str, options: argparse.Namespace) -> list[str]:
    """What runs `name` on `workload`; of an argument given twice, the later one counts."""
    system = SYSTEMS[name]
    interpreter: str = getattr(options, system.python)
    timesteps = round((options.timesteps or TIMESTEPS[workload]) * system.share)
    common = f"{WORKLOADS[workload]} --seed {options.seed} --threads {options.threads} --timesteps {timesteps}"
    given = " ".join(options.arguments.get(name, []))
    return [interpreter, str(SCRIPTS / system.script), *shlex.split(f"{common} {system.arguments} {given}")]


def run(argv: list[str], timeout: float) -> dict[str, Any]:
    """The line that a script prints, or `missing` or `failed` with the reason."""
    started, load = time.perf_counter(), os.getloadavg()[0]
    try:
        process = subprocess.Popen(
            argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
    except OSError as error:
        return {"failed": str(error)}
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"not done after {timeout:g} s"}
    finally:
        end_group(process)
    lines = out.splitlines()
    try:
        result: dict[str, Any] = json.loads(lines[-1])
    except (IndexError, json.JSONDecodeError):
        result = {}
    if process.returncode and "missing" not in result:
        reason = (err.strip().splitlines() or ["nothing on standard error"])[-1]
        return {"failed": f"exit status {process.returncode}: {reason}"}
    if not result:
        return {"failed": "its last line is not JSON"}
    return {**result, "process_seconds": time.perf_counter() - started, "load_before": load}


def end_group(process: subprocess.Popen[Any]) -> None:
    """End what the process left behind, as compilers' workers, and itself if it still runs."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def machine() -> dict[str, Any]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    try:
        system = platform.freedesktop_os_release()["PRETTY_NAME"]
    except (OSError, KeyError):
        system = "unknown distribution"
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": models[0] if models else platform.processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "os": f"{system}, {platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def table(rounds: list[dict[str, dict[str, Any]]], baseline: str) -> str:
    """Medians of one workload; the range of a ratio is over rounds."""
    lines = [
        f"| system | steps/s | ratio to {baseline} | first update s | peak MiB | score | after steps | runs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name in rounds[0]:
        entries = [entry[name] for entry in rounds if name in entry]
        done = [entry for entry in entries if "steady_steps_per_second" in entry]
        if not done:
            last = entries[-1]
            lines.append(f"| {name} | {'missing: ' + last['missing'] if 'missing' in last else last['failed']} |")
            continue
        ratios = [
            entry[name]["steady_steps_per_second"] / entry[baseline]["steady_steps_per_second"]
            for entry in rounds
            if all("steady_steps_per_second" in entry.get(system, {}) for system in (name, baseline))
        ]
        ratio = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})" if ratios else "-"
        scores = [entry["score"] for entry in done if entry["score"] is not None]
        score = f"{statistics.median(scores):.1f}" if scores else "-"
        speed, first, memory = (
            statistics.median(entry[key] for entry in done)
            for key in ("steady_steps_per_second", "start_to_first_update_seconds", "peak_memory_mib")
        )
        lines.append(
            f"| {name} | {speed:,.0f} | {ratio} | {first:.1f} | {memory:,.0f} | {score} "
            f"| {done[0]['timesteps']:,} | {len(done)} of {len(entries)} |"
        )
    return "\n".join(lines)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--systems", nargs="+", choices=SYSTEMS, default=list(SYSTEMS), metavar="NAME")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS), metavar="NAME")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--baseline", choices=SYSTEMS, default="sb3", metavar="NAME", help="what ratios are to")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of each system")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--timesteps", type=int, help="instead of the workload's")
    parser.add_argument("--timeout", type=float, default=900, help="seconds for one process")
    parser.add_argument("--python", default=sys.executable, help="interpreter with this project")
    parser.add_argument("--python-peers", default=sys.executable, help="interpreter with sb3, sbx and tianshou")
    parser.add_argument("--python-rejax", default=sys.executable, help="interpreter with rejax, jax and gymnax")
    parser.add_argument(
        "--arguments",
        action="append",
        default=[],
        metavar="NAME=ARGUMENTS",
        help="more for one system, as --arguments 'esper=--compile off --threads 1'",
    )
    parser.add_argument("--output", type=Path, help="JSON file of all results")
    options = parser.parse_args()
    given: dict[str, list[str]] = {}
    for item in options.arguments:
        name, _, arguments = item.partition("=")
        if name not in SYSTEMS:
            parser.error(f"--arguments {item}: {name} is none of {', '.join(SYSTEMS)}")
        given.setdefault(name, []).append(arguments)
    options.arguments = given
    return options


def main() -> None:
    options = parse()
    record: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        "rounds": options.rounds,
        "threads": options.threads,
        "commands": {},
        "results": {},
    }
    for workload in options.workloads:
        names = [name for name in options.systems if workload in SYSTEMS[name].workloads]
        baseline = "sb3-contrib" if workload in CONTRIB and options.baseline == "sb3" else options.baseline
        commands = {name: command(name, workload, options) for name in names}
        # Without the interpreter and the folder, which say nothing elsewhere.
        record["commands"][workload] = {
            name: shlex.join([SYSTEMS[name].script, *argv[2:]]) for name, argv in commands.items()
        }
        rounds: list[dict[str, dict[str, Any]]] = record["results"].setdefault(workload, [])
        for number in range(options.rounds):
            rounds.append({})
            for name, argv in commands.items():
                result = rounds[-1][name] = run(argv, options.timeout)
                said = (
                    result.get("missing") or result.get("failed") or f"{result['steady_steps_per_second']:,.0f} steps/s"
                )
                print(f"{workload}, round {number + 1}, {name}: {said}", file=sys.stderr)
                # After each process, so that an interrupted benchmark keeps what it measured.
                if options.output:
                    options.output.write_text(json.dumps(record, indent=2) + "\n")
        print(f"\n{workload}: {WORKLOADS[workload]}\n\n{table(rounds, baseline)}", flush=True)


if __name__ == "__main__":
    main()

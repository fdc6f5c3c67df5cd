"""Train many runs, arms x seeds x environments, and compare the arms."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.runs.layers import SettingsError
from esper.scripts import compare
from esper.scripts.flags import STOPPED_BY, Parser, add_settings, explain, fail, flag_layer, number, say, unknown_flags
from esper.settings.options import Bounds, nearest
from esper.storage import files
from esper.sweep.plan import (
    Job,
    Sweep,
    SweepError,
    check_apart,
    environment_folder,
    make_jobs,
    make_sweep,
    parse_seeds,
    read_sweep,
)
from esper.sweep.progress import check_same, progress_of
from esper.system.machine import usable_cores
from esper.system.shell import joined

if TYPE_CHECKING:
    from esper.sweep.launch import JobQueue, Launcher

_PROG = "esper sweep"
USAGE = 'esper sweep [--config FILE.toml] [--arm "NAME: flags"]... [--seeds LIST] [--envs IDS] [flags of esper ppo]'


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    what = parser.add_argument_group(
        "what to run", "Arms x environments x seeds. A flag of esper ppo applies to every run, and overrides the file."
    )
    what.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of the sweep; docs/sweep.md has its tables"
    )
    what.add_argument(
        "--arm", action="append", default=[], metavar='"NAME: FLAGS"', help="an arm, as 'cosine: --lr-decay cosine'"
    )
    what.add_argument("--seeds", metavar="LIST", help="10 (seeds 1 to 10), 11-20 or 1,5,7")
    what.add_argument("--envs", metavar="IDS", help="several environments, as CartPole-v1,Acrobot-v1")
    what.add_argument("--only", metavar="NAMES", help="run only these environments of the file")
    what.add_argument("--preset", metavar="NAME", help="auto (by environment), none, or a name")
    what.add_argument("--output", metavar="FOLDER", help="folder of the runs; a sweep in it is resumed")
    what.add_argument("--dry-run", action="store_true", help="list the runs and their progress, and end")
    where = parser.add_argument_group("where it runs")
    where.add_argument("--workers", metavar="N", help="runs at a time on this machine (default: its cores)")
    where.add_argument("--retries", default="2", metavar="N", help="further tries for a run that fails (default: 2)")
    where.add_argument("--ray", action="store_true", help="run on Ray: the cluster of RAY_ADDRESS, or one started here")
    where.add_argument(
        "--ray-address", metavar="ADDRESS", help="run on the Ray cluster at this address, as auto or ray://host:10001"
    )
    where.add_argument("--gpus-per-run", default="0", metavar="X", help="with --ray: GPUs of a run (default: 0)")
    add_settings(parser, help_all=help_all)
    parser.add_argument("--help-all", action="help", help="show every flag, those of each component too")


def run(args: argparse.Namespace) -> int:
    workers = usable_cores() if args.workers is None else _count("--workers", args.workers, 1)
    retries = _count("--retries", args.retries, 0)
    gpus = number("--gpus-per-run", args.gpus_per_run, float, Bounds(minimum=0), _PROG)
    on_ray = args.ray or args.ray_address is not None
    if on_ray and args.workers is not None:
        fail("--workers: is for this machine; on Ray, its resources limit the number of runs", _PROG)
    if gpus and not on_ray:
        fail(f"--gpus-per-run {args.gpus_per_run}: needs --ray", _PROG)
    jobs = _jobs(args, workers)
    if args.dry_run:
        # A cluster is not started for it.
        if not on_ray:
            with contextlib.closing(_local(workers, jobs)) as launcher:
                _check(launcher, jobs)
        for job in jobs:
            progress = progress_of(job)
            print(f"{job.name}  {progress.status}  {progress.fraction:.0%}")
        return 0
    with contextlib.closing(_ray(args.ray_address, jobs, gpus) if on_ray else _local(workers, jobs)) as launcher:
        queue, stopped_by = _train(jobs, launcher, retries, quiet=getattr(args, "quiet", False))
    return _conclude(jobs, queue, stopped_by)


def _train(jobs: Sequence[Job], launcher: Launcher, retries: int, *, quiet: bool) -> tuple[JobQueue, str | None]:
    """Run what is not complete; returns the outcomes, and the signal that stopped the sweep."""
    from esper.scripts.overview import Overview
    from esper.sweep.launch import JobQueue, run_all
    from esper.system.stopping import stop_request

    _check(launcher, jobs)
    for job in jobs:
        try:
            files.make_named_folder(job.run_dir.parent)
        except OSError as error:
            fail(f"--output {job.run_dir.parents[2]}: cannot be written: {files.why(error)}", _PROG)
    queue = JobQueue(_waiting(jobs))
    with stop_request(quiet=quiet) as stop, Overview(jobs, launcher.slots, quiet=quiet) as overview:
        stop.begin()
        run_all(queue, launcher, retries=retries, should_stop=lambda: bool(stop), on_change=overview.show)
    return queue, stop.cause


def _waiting(jobs: Sequence[Job]) -> list[Job]:
    return [job for job in jobs if progress_of(job).status in ("new", "begun")]


def _check(launcher: Launcher, jobs: Sequence[Job]) -> None:
    """End the program if a run could not begin: its environment, its network or a package it needs."""
    if (waiting := _waiting(jobs)) and (refused := launcher.check(waiting)) is not None:
        fail(refused, _PROG)


def _local(workers: int, jobs: Sequence[Job]) -> Launcher:
    from esper.sweep.local import LocalLauncher

    return LocalLauncher(min(workers, len(jobs)))


def _jobs(args: argparse.Namespace, workers: int) -> list[Job]:
    """All runs of the sweep, with checked settings; none conflicts with an existing run."""
    try:
        sweep = make_sweep(_tables(args), str(args.config or "flags"))
        if "env" in (flags := flag_layer(args)).values and (args.envs or len(sweep.environments) > 1):
            raise SweepError("--env: the sweep has several environments; use --envs")
        defaults = {"threads": max(1, usable_cores() // workers), "tensorboard": False, "picture": False, "quiet": True}
        jobs = make_jobs(_selected(sweep, args.only), defaults, flags)
        for job in jobs:
            check_same(job)
    except SweepError as error:
        fail(str(error), _PROG)
    except SettingsError as error:
        fail(explain(error), _PROG)
    return jobs


def _tables(args: argparse.Namespace) -> dict[str, Any]:
    """The sweep file's tables, overridden by flags."""
    tables = read_sweep(args.config) if args.config else {}
    if args.arm:
        arms = [_arm(text) for text in args.arm]
        check_apart("arm", [name for name, _ in arms])
        tables["arms"] = dict(arms)
        # Settings for the file's arms in an environment do not apply to other arms.
        for environment in tables.get("environments", {}).values():
            environment.pop("arms", None)
    if args.envs:
        names = [name.strip() for name in args.envs.split(",") if name.strip()]
        check_apart("environment", names)
        tables["environments"] = {name: {} for name in names}
    elif (env := getattr(args, "env", None)) and "environments" not in tables:
        tables["environments"] = {env: {}}
    if (args.envs or getattr(args, "env", None)) and isinstance(tables.get("settings"), dict):
        # A flag overrides the file.
        tables["settings"].pop("env", None)
    if args.seeds:
        tables["seeds"] = list(parse_seeds(args.seeds))
        for environment in tables.get("environments", {}).values():
            environment.pop("seeds", None)
    if args.preset:
        tables["preset"] = args.preset
    if args.output:
        tables["folder"] = args.output
    tables.setdefault("folder", f"runs/{args.config.stem}" if args.config else None)
    if tables["folder"] is None:
        raise SweepError("--output: give the folder of the sweep's runs; the same folder resumes the sweep")
    return tables


def _selected(sweep: Sweep, only: str | None) -> Sweep:
    if only is None:
        return sweep
    names, known = [name.strip() for name in only.split(",")], [environment.name for environment in sweep.environments]
    for name in names:
        if environment_folder(name) not in known:
            raise SweepError(f"--only {name}: must be of {', '.join(known)}{nearest(name, known)}")
    chosen = [environment for environment in sweep.environments if environment.name in map(environment_folder, names)]
    return dataclasses.replace(sweep, environments=chosen)


def _arm(text: str) -> tuple[str, Mapping[str, Any]]:
    """Name and settings of an arm from the command line, as `cosine: --lr-decay cosine`."""
    name, _, flags = text.partition(":")
    parser = Parser(prog=f"{_PROG}: --arm {name}", allow_abbrev=False)
    add_settings(parser, help_all=False)
    try:
        words = shlex.split(flags)
    except ValueError as error:
        fail(f"--arm {text}: {error}", _PROG)
    args, unknown = parser.parse_known_args(words)
    if unknown:
        unknown_flags(unknown, parser)
    args.command = "sweep"
    return name.strip(), flag_layer(args).values


def _ray(address: str | None, jobs: Sequence[Job], gpus: float) -> Launcher:
    from esper.sweep.address import find_cluster

    threads = max(job.config.ppo.runtime.threads or 1 for job in jobs)
    try:
        found = find_cluster(address)
        from esper.sweep.cluster import RayLauncher

        return RayLauncher(found, cpus=threads, gpus=gpus, jobs=len(jobs))
    except ModuleNotFoundError as error:
        fail(f"--ray: needs {error.name}; pip install 'esper-simic[ray]'", _PROG)
    except (ConnectionError, ValueError, RuntimeError) as error:
        where = f"--ray-address {address}" if address else f"RAY_ADDRESS={os.environ.get('RAY_ADDRESS', '')}"
        fail(f"{where}: {str(error).splitlines()[0]}", _PROG)


def _conclude(jobs: Sequence[Job], queue: JobQueue, stopped_by: str | None) -> int:
    """Print unfinished runs and the comparison of the others; returns the exit status."""
    done = [job for job in jobs if progress_of(job).status == "completed"]
    print(f"\n{len(done)} of {len(jobs)} runs are complete, in {jobs[0].run_dir.parents[2]}")
    missing = [job for job in jobs if job not in done]
    for job in missing:
        outcome = queue.outcomes.get(job.name)
        if outcome is not None and outcome.status != "interrupted":
            say(f"{job.name}: {outcome.status}{f', {outcome.cause}' if outcome.cause else ''}", file=sys.stderr)
    if stopped_by is not None:
        print("the same command resumes the sweep")
        return STOPPED_BY[stopped_by]
    for environment in dict.fromkeys(job.environment for job in jobs):
        arms = dict.fromkeys(job.run_dir.parent for job in done if job.environment == environment)
        if arms:
            _compare(arms, jobs[0].run_dir.parents[2] / f"{environment}.html")
    return 1 if missing else 0


def _compare(arms: Iterable[Path], page: Path) -> None:
    arguments = [*map(str, arms), "--html", str(page)]
    say(f"\nesper compare {joined(arguments)}")
    parser = Parser(prog="esper compare")
    compare.add_arguments(parser, help_all=False)
    compare.run(parser.parse_args(arguments))


def _count(name: str, text: str, minimum: int) -> int:
    count: int = number(name, text, int, Bounds(minimum=minimum), _PROG)
    return count

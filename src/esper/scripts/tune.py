"""Search for settings with Optuna: trials of several seeds, the bad ones ended early."""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from esper.runs.layers import Layer, SettingsError
from esper.scripts.flags import STOPPED_BY, add_settings, explain, fail, flag_layer, number, say
from esper.scripts.ppo import as_toml
from esper.settings.options import Bounds
from esper.storage import files
from esper.sweep.plan import SweepError, parse_seeds
from esper.system.machine import usable_cores
from esper.system.shell import quoted
from esper.tune.plan import Tuning, check_same, make_folders, make_tuning, read_tables
from esper.tune.space import TuneError

if TYPE_CHECKING:
    from esper.sweep.launch import Launcher
    from esper.tune.search import Search

_PROG = "esper tune"
USAGE = "esper tune --env ID --output FOLDER [--config FILE.toml] [--trials N] [flags of esper ppo]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    what = parser.add_argument_group(
        "what is searched",
        "A setting given as a flag of esper ppo is not searched. The search begins at the preset's settings.",
    )
    what.add_argument(
        "--config", type=Path, metavar="FILE", help="TOML file of the search; docs/tune.md has its tables"
    )
    what.add_argument("--trials", metavar="N", help="trials in all (default: 30)")
    what.add_argument(
        "--seeds", metavar="LIST", help="seeds of each trial: 2 (seeds 1 and 2), 11-20 or 1,5 (default: 2)"
    )
    what.add_argument("--final-seeds", metavar="LIST", help="seeds of the final score (default: 1001-1005)")
    what.add_argument("--preset", metavar="NAME", help="auto (by environment or kind of task), none, or a name")
    what.add_argument("--sampler", metavar="tpe|random", help="how Optuna chooses trials (default: tpe)")
    what.add_argument(
        "--pruner", metavar="median|none", help="median: end a trial below the median of earlier ones (default: median)"
    )
    what.add_argument("--output", type=Path, metavar="FOLDER", help="folder of the search; one in it goes on")
    where = parser.add_argument_group("where it runs")
    where.add_argument("--workers", metavar="N", help="runs at a time (default: the cores of this machine)")
    where.add_argument("--ray", action="store_true", help="run on Ray: the cluster of RAY_ADDRESS, or one started here")
    where.add_argument(
        "--ray-address", metavar="ADDRESS", help="run on the Ray cluster at this address, as auto or ray://host:10001"
    )
    add_settings(parser, help_all=help_all)
    parser.add_argument("--help-all", action="help", help="show every flag, those of each component too")


def run(args: argparse.Namespace) -> int:
    workers = usable_cores()
    if args.workers is not None:
        workers = number("--workers", args.workers, int, Bounds(minimum=1), _PROG)
    if args.output is None:
        fail("--output: give the folder of the search; the same folder goes on with it", _PROG)
    try:
        from esper.tune.search import Search
    except ModuleNotFoundError as error:
        fail(f"needs {error.name}; pip install 'esper-simic[tune]'", _PROG)
    tuning = _tuning(args, workers)
    launcher = _launcher(args, tuning, workers)
    from esper.system.stopping import stop_request

    quiet = getattr(args, "quiet", False)
    try:
        with stop_request(quiet=quiet) as stop:
            stop.begin()
            search = Search(tuning, launcher, _announce(quiet=quiet))
            search.run(lambda: bool(stop))
            final = {} if stop else _final(search, launcher, lambda: bool(stop))
    except TuneError as error:
        fail(str(error), _PROG)
    finally:
        launcher.close()
    return _conclude(search, final, stop.cause)


def _tuning(args: argparse.Namespace, workers: int) -> Tuning:
    """The search of the file and flags, recorded in its folder; ends the program for what cannot be used."""
    source = str(args.config or "flags")
    try:
        tables = read_tables(args.config) if args.config else {}
        for name in ("preset", "sampler", "pruner"):
            if (given := getattr(args, name)) is not None:
                tables[name] = given
        for name in ("seeds", "final_seeds"):
            if (given := getattr(args, name)) is not None:
                tables[name] = list(parse_seeds(given, name))
        if args.trials is not None:
            tables["trials"] = number("--trials", args.trials, int, Bounds(minimum=1), _PROG)
        quiet = {"tensorboard": False, "picture": False, "quiet": True, "telemetry": "minimal"}
        defaults = Layer(source="tune", values={"threads": max(1, usable_cores() // workers), **quiet})
        tuning = make_tuning(tables, args.output, defaults, flag_layer(args), source)
        files.make_named_folder(args.output)
        check_same(tuning)
    except (TuneError, SweepError) as error:
        fail(str(error), _PROG)
    except SettingsError as error:
        fail(explain(error), _PROG)
    except OSError as error:
        fail(f"--output {args.output}: {files.why(error)}", _PROG)
    return tuning


def _launcher(args: argparse.Namespace, tuning: Tuning, workers: int) -> Launcher:
    if not args.ray and args.ray_address is None:
        from esper.sweep.local import LocalLauncher

        return LocalLauncher(workers)
    try:
        from esper.sweep.cluster import RayLauncher
    except ModuleNotFoundError as error:
        fail(f"--ray: needs {error.name}; pip install 'esper-simic[ray]'", _PROG)
    threads = tuning.settings({}).config.ppo.runtime.threads or 1
    try:
        return RayLauncher(args.ray_address, cpus=threads, gpus=0, jobs=workers)
    except (ConnectionError, ValueError) as error:
        fail(f"--ray-address {args.ray_address}: {str(error).splitlines()[0]}", _PROG)


def _announce(*, quiet: bool) -> Callable[[Search, str], None]:
    """Prints the line of a trial that has ended, and writes the page as it stands."""
    from esper.tune.page import write_page

    def announce(search: Search, line: str) -> None:
        write_page(search.tuning, search.study, {})
        if not quiet:
            say(line)

    return announce


def _final(search: Search, launcher: Launcher, should_stop: Callable[[], bool]) -> dict[str, dict[int, float]]:
    """The scores of what was found, and of what the search began with, by seeds that no trial saw."""
    from esper.sweep.launch import JobQueue, run_all
    from esper.sweep.progress import progress_of
    from esper.tune.search import best_of, evaluations, score, values_of

    tuning, best = search.tuning, best_of(search.study)
    if best is None:
        return {}
    groups = {
        "best": tuning.jobs(f"best-{best.number:03}", values_of(best, tuning), tuning.final_seeds),
        "start": tuning.jobs("start", {}, tuning.final_seeds),
    }
    jobs = [job for group in groups.values() for job in group]
    make_folders(jobs)
    queue = JobQueue([job for job in jobs if progress_of(job).status in ("new", "begun")])
    run_all(queue, launcher, retries=1, should_stop=should_stop, on_change=lambda queue, job: None)
    curves = {name: {job.config.seed: evaluations(job.run_dir) for job in group} for name, group in groups.items()}
    return {name: {seed: score(curve) for seed, curve in each.items() if curve} for name, each in curves.items()}


def _conclude(search: Search, final: Mapping[str, Mapping[int, float]], stopped_by: str | None) -> int:
    from esper.tune.page import write_page
    from esper.tune.search import best_of

    tuning, best = search.tuning, best_of(search.study)
    write_page(tuning, search.study, final)
    print(f"\n{len(search.study.trials)} of {tuning.trials} trials, in {tuning.folder}")
    if stopped_by is not None:
        print("the same command goes on with the search")
        return STOPPED_BY[stopped_by]
    if best is None:
        say(f"{_PROG}: error: no trial is complete; {tuning.folder / 'tune.html'} has the causes", file=sys.stderr)
        return 1
    found = tuning.folder / "best.toml"
    files.write(found, best_file(search).encode())
    for name, scores in final.items():
        if scores:
            say(f"{name:6} {statistics.fmean(scores.values()):.5g} over seeds {', '.join(map(str, scores))}")
    say(f"page   {tuning.folder / 'tune.html'}\nnext   esper ppo --config {quoted(found)} --preset none")
    return 0


def best_file(search: Search) -> str:
    """The best trial's settings as a file for `--config`: all that are no defaults, but for where the run goes."""
    from esper.runs.config import RunConfig
    from esper.settings.options import flatten, settings_of
    from esper.tune.search import best_of, values_of

    best = best_of(search.study)
    assert best is not None
    settings, known = search.tuning.settings(values_of(best, search.tuning)), settings_of(RunConfig)
    flat = flatten(settings.config)
    lines = [
        f"{name} = {as_toml(flat[name])}  # {origin.source}"
        for name, origin in settings.origins.items()
        if known[name].flag and known[name].recorded and not known[name].decides_nothing
    ]
    head = f"# The best of {len(search.study.trials)} trials of esper tune: {best.value:.5g}."
    return "\n".join([head, *lines, ""])

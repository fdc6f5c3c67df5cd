"""Whether two checkouts train alike: recorded runs of both, compared file by file and bit by bit.

`python benchmarks/equality.py OLD NEW` with the folders of two checkouts; what both install must be installed here.
Every command of a run (`equality_runs.py`) is a process of its own, both checkouts side by side. `equality_files.py`
says what is compared, and what is not, as the clock or a version decides it. Exit status 1 when anything is different.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.util
import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from equality_runs import RUNS, Run

_SHOWN = 4  # differences of a run, in the table


class CommandError(Exception):
    """A command that did not end as it should: which, and its last words."""


class Worker:
    """A process that runs the commands of one checkout, `equality_worker.py`.

    Raises:
        CommandError: when it imports another esper.
    """

    def __init__(self, checkout: Path, folder: Path) -> None:
        self._checkout, self._folder = checkout, folder
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("ESPER_", "PYTHON"))}
        path = os.pathsep.join([str(checkout / "src"), str(Path(__file__).parent)])
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "equality_worker.py")],
            env={**inherited, "PYTHONPATH": path, "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        # Only the first run says that kernels are compiled.
        code = "import esper, esper.scripts.train as train; print(esper.__file__); train.main('ppo --compile native "
        code += "--quiet --no-picture --total-timesteps 1024 --run-dir run'.split())"
        first = self.perform("first", Run(commands=(("-c", code),)))
        if not (imported := (first / "0.stdout").read_text()).startswith("SOURCES"):
            raise CommandError(f"python imports {imported.strip()} there")

    def perform(self, name: str, run: Run) -> Path:
        """The folder in which `run` was performed; what its commands print is beside what they write.

        Raises:
            CommandError: for an exit status that is not as it should be.
        """
        folder = self._folder / name.replace("/", "-")
        folder.mkdir(parents=True)
        command = {"folder": str(folder), "commands": run.commands, "variables": dict(run.variables)}
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        statuses = json.loads(self._process.stdout.readline() or "[]")
        for number, (status, right) in enumerate(
            itertools.zip_longest(statuses, [run.status] + [0] * (len(run.commands) - 1))
        ):
            printed = ""
            for stream in ("stdout", "stderr"):
                path = folder / f"{number}.{stream}"
                text = path.read_text() if path.exists() else ""
                path.write_text(text.replace(str(self._checkout / "src"), "SOURCES"))
                printed = text.strip() or printed
            if status != right:
                last = (printed or "no output").splitlines()[-1]
                raise CommandError(f"command {number}: exit status {status}, not {right}: {last}")
        return folder

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait()


def perform_all(runs: dict[str, Run], workers: dict[str, Worker]) -> dict[str, str]:
    """All `runs` by both workers, side by side; returns what failed, by run."""
    failed: dict[str, str] = {}

    def perform(side: str) -> None:
        for name, run in runs.items():
            try:
                workers[side].perform(name, run)
            except CommandError as error:
                failed[name] = f"{side}: {error}"

    with concurrent.futures.ThreadPoolExecutor() as pool:
        list(pool.map(perform, workers))
    return failed


def describe(checkout: Path) -> str:
    """The commit of a checkout, with `-dirty` where files differ from it."""
    git = ["git", "-C", str(checkout), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    return subprocess.run(git, capture_output=True, text=True, check=False).stdout.strip() or "no commit"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("old", type=Path, metavar="OLD", help="folder of a checkout")
    parser.add_argument("new", type=Path, metavar="NEW", help="folder of another one")
    parser.add_argument("--runs", nargs="*", default=list(RUNS), choices=list(RUNS), metavar="NAME", help="only these")
    parser.add_argument(
        "--additions", action="store_true", help="NEW may have settings, fields and tags that OLD does not have"
    )
    parser.add_argument("--folder", type=Path, help="new folder in which the runs stay (default: none do)")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as temporary:
        folder = (args.folder or Path(temporary)).resolve()
        checkouts = {"old": args.old.resolve(), "new": args.new.resolve()}
        try:
            workers = {side: Worker(checkout, folder / side) for side, checkout in checkouts.items()}
        except CommandError as error:
            parser.error(str(error))
        missing = [name for name in args.runs if (p := RUNS[name].package) and importlib.util.find_spec(p) is None]
        runs = {name: RUNS[name] for name in args.runs if name not in missing}
        failed = perform_all(runs, workers)
        for worker in workers.values():
            worker.close()
        results = compare(runs, failed, folder, additions=args.additions)
    for name in missing:
        print(f"{name:42} left out: {RUNS[name].package} is not installed")
    different = [name for name, result in results.items() if result["differences"]]
    print(f"\n{len(results)} runs, {len(different)} different, {(time.monotonic() - started) / 60:.1f} minutes")
    if args.output:
        versions = {side: describe(checkout) for side, checkout in checkouts.items()}
        args.output.write_text(json.dumps({**versions, "left_out": missing, "runs": results}, indent=2) + "\n")
    return 1 if different else 0


def compare(
    runs: dict[str, Run], failed: dict[str, str], folder: Path, *, additions: bool
) -> dict[str, dict[str, Any]]:
    """Print a row for each of `runs`, and what is different; returns the same."""
    # torch, which it takes to read what an exported policy does, is not in the memory of those who wait for runs.
    from equality_files import compare_folders

    results: dict[str, dict[str, Any]] = {}
    print(f"{'run':42} {'files':>6} {'values':>9}")
    for name in runs:
        sides = (folder / side / name.replace("/", "-") for side in ("old", "new"))
        found = compare_folders(*sides, additions=additions)
        found.differences[:0] = [failed[name]] if name in failed else []
        print(f"{name:42} {found.files:6} {found.values:9,} {'' if found.differences else 'equal'}")
        for difference in found.differences[:_SHOWN]:
            print(f"    {difference}")
        if (more := len(found.differences) - _SHOWN) > 0:
            print(f"    and {more} more")
        results[name] = asdict(found) | {"additions": sorted(found.additions)}
    added = sorted({name for result in results.values() for name in result["additions"]})
    if added:
        print(f"\nadded: {', '.join(added)}")
    return results


if __name__ == "__main__":
    raise SystemExit(main())

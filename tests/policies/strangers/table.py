"""Every kind of thing that is no plain file, at every path of a run's folder, for every command.

`python tests/policies/strangers/table.py` tries all; test_table.py some.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, NamedTuple
from unittest import mock

from esper.runs.layers import Layer, resolve
from esper.scripts.train import main as esper
from esper.storage import files
from esper.sweep.job import do
from esper.sweep.plan import Job, SweepError
from esper.sweep.progress import check_same

SECONDS = 20  # after which a command hangs
NEWEST = "checkpoints/00000003"
_POLICY = ("policy.json", "policy.safetensors")
_CHECKPOINT = (
    "checkpoints",
    NEWEST,
    *(f"{NEWEST}/{name}" for name in ("state.json", "state.safetensors", "manifest.json")),
)
_BEST = ("best", *(f"best/{name}" for name in _POLICY))
_RESUMED = (".lock", "config.json", "events.jsonl", "training.png", "tensorboard", *_POLICY, *_BEST, *_CHECKPOINT)
_REPORT = ("report", "report/report.html", "report/learning.png")
PATHS = (*_RESUMED, *_REPORT, "policy.pt2", "seed-1.log")
FOLDERS = ("best", "checkpoints", NEWEST, "tensorboard", "report")
KINDS = ("link", "dangling link", "pipe", "socket", "folder", "device", "hard link")
# What a command opens, and so must refuse if it is something else.
OPENS: Mapping[str, tuple[str, ...]] = {
    "resume": _RESUMED,
    "sweep": _RESUMED,
    "evaluate": _POLICY,
    "evaluate best": _BEST,
    "enjoy": _POLICY,
    "export": (*_POLICY, "policy.pt2"),
    "report": ("events.jsonl", *_REPORT),
    "compare": ("events.jsonl",),
    "inspect": _CHECKPOINT,
}
# What is written in place, so that another name of it would change too.
IN_PLACE = (".lock", "events.jsonl")


class Case(NamedTuple):
    command: str
    path: str
    kind: str

    @property
    def must_be_refused(self) -> bool:
        if self.kind == "hard link":
            return self.command in ("resume", "sweep") and self.path in IN_PLACE
        if self.kind == "folder" and self.path == NEWEST:
            # A file there is damage, after which the checkpoint before is gone on from.
            return False
        return self.path in OPENS[self.command]


def all_cases() -> list[Case]:
    return [Case(*case) for case in _product() if not (case[2] == "hard link" and case[1] in FOLDERS)]


def _product() -> Iterator[tuple[str, str, str]]:
    for command in OPENS:
        for path in PATHS:
            for kind in KINDS:
                yield command, path, kind


class Runs:
    """A run that was killed, with all that commands make in its folder; copies of it are spoilt."""

    def __init__(self, folder: Path) -> None:
        self._folder, self.whole = folder, folder / "whole" / "seed-1"
        size = ("--preset", "none", "--num-envs", "2", "--num-steps", "8", "--num-minibatches", "2", "--threads", "1")
        more = ("--total-timesteps", "48", "--hidden-sizes", "4", "--compile", "off", "--eval-every", "1")
        rest = ("--eval-episodes", "1", "--checkpoint-every", "1", "--quiet", "--run-dir", str(self.whole))
        assert esper(["ppo", *size, *more, *rest]) == 0
        with self._cheap():
            assert esper(["report", str(self.whole)]) == 0
            assert esper(["export", str(self.whole)]) == 0
        record = self.whole / "events.jsonl"
        lines = record.read_bytes().splitlines(keepends=True)
        self._finished = lines.pop()
        record.write_bytes(b"".join(lines))
        self._config = resolve([Layer(source="test", values=self._settings())]).config

    def _settings(self) -> dict[str, Any]:
        return {**json.loads((self.whole / "config.json").read_text()), "quiet": True}

    def try_(self, case: Case) -> list[str]:
        """What is wrong with how `case` goes; nothing where it is as it should be."""
        shutil.rmtree(self._folder / "case", ignore_errors=True)
        outside, run = self._folder / "case" / "outside", self._folder / "case" / "env" / "arm" / "seed-1"
        outside.mkdir(parents=True)
        shutil.copytree(self.whole, run)
        if case.command == "compare":
            with (run / "events.jsonl").open("ab") as record:
                record.write(self._finished)
        if not spoil(run.with_name(case.path) if case.path == "seed-1.log" else run / case.path, case.kind, outside):
            return []
        before = _snapshot(outside)
        status, printed = self._do(case.command, run)
        self.status = status
        wrong = []
        if _snapshot(outside) != before:
            wrong.append("what is outside was changed")
        if case.must_be_refused and status not in (1, 2):
            wrong.append(f"was not refused: {status}")
        if case.must_be_refused and case.path.split("/")[-1] not in printed:
            wrong.append(f"was not named: {printed!r}")
        if status not in (0, 1, 2):
            wrong.append(f"ended with {status}")
        return [f"{case}: {each}" for each in wrong]

    def _do(self, command: str, run: Path) -> tuple[object, str]:
        output = io.StringIO()
        with _watched(), contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()), self._cheap():
            try:
                if command == "sweep":
                    return self._sweep(run, output), output.getvalue()
                return esper([text.format(run=run) for text in _COMMANDS[command]]), output.getvalue()
            except SystemExit as stop:
                return stop.code, output.getvalue()
            except BaseException as error:
                return repr(error), output.getvalue()

    def _sweep(self, run: Path, output: io.StringIO) -> int:
        config = resolve([Layer(source="test", values={**self._settings(), "run_dir": str(run)})]).config
        job = Job(environment="env", arm="arm", config=config)
        try:
            check_same(job)
        except SweepError as error:
            output.write(str(error))
            return 2
        outcome = do(job)
        output.write(outcome.cause or "")
        return {"completed": 0, "failed": 1, "refused": 2}[outcome.status]

    @contextlib.contextmanager
    def _cheap(self) -> Iterator[None]:
        """Without what takes long, and opens no file of the run."""
        with (
            mock.patch("esper.policies.export._program"),
            mock.patch("torch.export.save", lambda program, file: file.write(b"exported")),
            mock.patch("esper.policies.show.show"),
            mock.patch("esper.analysis.plots.plot_training", lambda updates, path, title: files.write(path, b"drawn")),
            mock.patch("esper.analysis.report.plot_report", return_value={"Learning": ("learning.png", b"drawn")}),
        ):
            yield


_COMMANDS: Mapping[str, tuple[str, ...]] = {
    "resume": ("ppo", "--resume", "{run}", "--quiet"),
    "evaluate": ("evaluate", "{run}", "--episodes", "1"),
    "evaluate best": ("evaluate", "{run}/best", "--episodes", "1"),
    "enjoy": ("enjoy", "{run}"),
    "export": ("export", "{run}"),
    "report": ("report", "{run}"),
    "compare": ("compare", "{run}"),
    "inspect": ("checkpoint", "inspect", "{run}"),
}


def spoil(path: Path, kind: str, outside: Path) -> bool:
    """Replace what is at `path`, if anything, by a `kind` of thing that leads to a copy of it; whether that worked."""
    target = outside / "target"
    if path.is_dir():
        shutil.copytree(path, target)
        shutil.rmtree(path)
    else:
        target.write_bytes(path.read_bytes() if path.exists() else b"kept")
        path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(target)
    elif kind == "dangling link":
        path.symlink_to(outside / "nothing")
    elif kind == "hard link":
        path.hardlink_to(target)
    elif kind == "pipe":
        os.mkfifo(path)
    elif kind == "device":
        try:
            os.mknod(path, 0o20666, os.makedev(1, 5))  # /dev/zero
        except OSError:
            return False
    elif kind == "folder" and target.is_file():
        path.mkdir()
    elif kind == "folder":
        path.write_bytes(b"a file in place of a folder")
    else:
        bound = socket.socket(socket.AF_UNIX)
        here = Path.cwd()
        try:
            os.chdir(path.parent)  # a socket's path has 107 bytes at most
            bound.bind(path.name)
        finally:
            os.chdir(here)
            bound.close()
    return True


def _snapshot(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in sorted(folder.rglob("*"))}


class Hangs(BaseException):
    """A command that did not end."""


@contextlib.contextmanager
def _watched() -> Iterator[None]:
    def stop(signal: int, frame: FrameType | None) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cases", type=int, help="so many of them, by chance (default: all)")
    args = parser.parse_args()
    cases = all_cases()
    if args.cases:
        cases = random.Random(1).sample(cases, args.cases)
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder))
        wrong = [each for case in cases for each in runs.try_(case)]
    print(f"{len(cases)} cases, {sum(case.must_be_refused for case in cases)} to be refused, {len(wrong)} wrong")
    print("\n".join(wrong))
    raise SystemExit(bool(wrong))


if __name__ == "__main__":
    main()

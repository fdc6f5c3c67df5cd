"""Mutated files of runs: each must be taken, or refused with one of the project's own errors.

No module that only a file names may be imported, and no file outside of the run may change.

`python tests/runs/resume/fuzz.py --help` for a study with many; tests/runs/resume/test_fuzz.py runs some of them.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import random
import resource
import shutil
import struct
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from fuzz_mutations import mutate_bytes, mutate_header, mutate_json, replace_by_something_else
from fuzz_run import RunTarget, command

from esper.analysis.arms import ArmError
from esper.analysis.report import ReportError
from esper.envs.make import make_for_training
from esper.runs.checkpoint.folder import SCHEMA
from esper.runs.config import RunConfig
from esper.runs.layers import SettingsError, file_layer, resolve
from esper.runs.resume.load import load_run
from esper.runs.resume.point import Resume, ResumeError, find_resume_point
from esper.runs.resume.settings import settings_to_resume
from esper.scripts.train import main as esper
from esper.settings.options import ConfigError
from esper.simic.ppo import PPOAgent
from esper.simic.vectorized import Training
from esper.storage.store import StoreError
from esper.sweep.plan import SweepError
from esper.telemetry.events import SinkError

OWN_ERRORS = (StoreError, ResumeError, ConfigError, SettingsError, ReportError, ArmError, SweepError, SinkError)
SECONDS = 2.0  # that one file may take
_FILES = ("state.json", "state.safetensors", "manifest.json")


@dataclass
class Report:
    """What became of all the files."""

    files: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    slowest_kind: str = ""
    foreign: list[str] = field(default_factory=list)

    def run(self, kind: str, use: Callable[[], object]) -> None:
        """Count what `use` does; an error that is not the project's own is kept."""
        started = time.process_time()  # not what other work on the machine takes
        try:
            with np.errstate(all="ignore"):  # of numbers that are too large the results are infinite
                use()
            outcome = "taken"
        except OWN_ERRORS as error:
            outcome = type(error).__name__
            str(error)
        except SystemExit as stop:
            outcome = f"exit status {stop.code}"
            if stop.code not in (1, 2):
                self.foreign.append(f"{kind}: {outcome}")
        except Exception as error:  # The whole point is to find these.
            outcome = "foreign error"
            self.foreign.append(f"{kind}: {error!r:.300}")
        seconds = time.process_time() - started
        self.files += 1
        self.outcomes[outcome] += 1
        if seconds > self.slowest:
            self.slowest, self.slowest_kind = seconds, kind


class Outside:
    """A file, and a module, that no mutated file may reach."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        (folder / "file").write_text("kept")
        (folder / "canary.py").write_text("")
        sys.path.insert(0, str(folder))
        self._before = self._look()

    def _look(self) -> list[tuple[str, int, int]]:
        return [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(self.folder.iterdir())]

    def reached(self) -> str | None:
        """What was reached, if anything."""
        if "canary" in sys.modules:
            return "a module was imported"
        return None if self._look() == self._before else "a file outside was changed"


class Target:
    """A small run with a checkpoint that is whole, and mutated copies of it."""

    def __init__(self, folder: Path, env: str) -> None:
        run_dir = folder / "run"
        flags = ("--preset", "none", "--env", env, "--num-envs", "2", "--num-steps", "8", "--hidden-sizes", "4")
        more = ("--normalize-observations", "--lr-decay", "cosine", "--total-timesteps", "32", "--compile", "off")
        output = ("--run-dir", str(run_dir), "--no-tensorboard", "--no-picture", "--quiet")
        assert esper(["ppo", *flags, *more, *output]) == 0
        self.whole = run_dir / "checkpoints" / "00000002"
        self.copy = folder / "mutated"
        self.settings = folder / "settings"
        self.originals = {name: (self.whole / name).read_bytes() for name in _FILES}
        self.config = find_resume_point(self.whole).config
        self.training = self._training(self.config)
        self.outside = Outside(folder / "outside")
        self.run = RunTarget(run_dir, folder / "copies", self.outside.folder)

    def _training(self, config: RunConfig) -> Training:
        env = make_for_training(config.environment, config.ppo.num_envs)
        return Training(PPOAgent(config.ppo, env.spec, seed=config.seed), env, env_seed=0)

    def attack_checkpoint(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Write a mutated checkpoint; its kind, and what reads it."""
        contents = dict(self.originals)
        kind, mutate = rng.choice(list(_MUTATIONS.items()))
        mutate(contents, rng)
        if kind != "manifest" and rng.random() < 0.8:
            _sign(contents, rng)
        shutil.rmtree(self.copy, ignore_errors=True)
        self.copy.mkdir()
        for name, data in contents.items():
            (self.copy / name).write_bytes(data)
        if kind == "no file":
            replace_by_something_else(self.copy / rng.choice(_FILES), rng, self.outside.folder)
        if rng.random() < 0.02:
            return f"{kind}: inspect", lambda: command("checkpoint", "inspect", str(self.copy))
        return kind, self._read

    def _read(self) -> None:
        point = find_resume_point(self.copy)
        settings_to_resume(point, [], "continue")
        # Other settings make another agent, whose state this one would not be; making it is not under test here.
        if point.config == self.config:
            load_run(self.config, self.training, Resume(point=point))

    def attack_settings(self, rng: random.Random) -> tuple[str, Callable[[], object]]:
        """Write mutated settings; their kind, and what reads them."""
        settings = json.loads(self.originals["state.json"])["config"]
        toml = rng.random() < 0.4
        path = self.settings.with_suffix(".toml" if toml else ".json")
        for _ in range(rng.randint(1, 3)):
            mutate_json(settings, rng)
        text = "\n".join(f"{name} = {json.dumps(value)}" for name, value in settings.items() if value is not None)
        data = bytearray(text.encode() if toml else json.dumps(settings).encode())
        if rng.random() < 0.5:
            mutate_bytes(data, rng)
        path.write_bytes(data)
        return path.suffix, lambda: resolve([file_layer(path)])


def _bytes(contents: dict[str, bytes], rng: random.Random) -> None:
    name = rng.choice(_FILES)
    data = bytearray(contents[name])
    mutate_bytes(data, rng)
    contents[name] = bytes(data)


def _json(contents: dict[str, bytes], rng: random.Random) -> None:
    state = json.loads(contents["state.json"])
    for _ in range(rng.choice((1, 1, 1, 3))):
        mutate_json(state, rng)
    contents["state.json"] = json.dumps(state).encode()


def _manifest(contents: dict[str, bytes], rng: random.Random) -> None:
    manifest = json.loads(contents["manifest.json"])
    mutate_json(manifest, rng)
    contents["manifest.json"] = json.dumps(manifest).encode()


def _header(contents: dict[str, bytes], rng: random.Random) -> None:
    contents["state.safetensors"] = mutate_header(contents["state.safetensors"], rng)


def _numbers(contents: dict[str, bytes], rng: random.Random) -> None:
    """Other numbers in tensors of the right form: not finite, huge, states that no generator has."""
    data = bytearray(contents["state.safetensors"])
    (size,) = struct.unpack("<Q", data[:8])
    start = 8 + size + rng.randrange(len(data) - 8 - size)
    pattern = rng.choice((b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x00\x00\xc0\x7f", rng.randbytes(64)))
    data[start : start + len(pattern)] = pattern[: len(data) - start]
    contents["state.safetensors"] = bytes(data)


def _bomb(contents: dict[str, bytes], rng: random.Random) -> None:
    size = rng.choice((1_000, 100_000, 100_000, 1_000_000))
    opening = rng.choice((b"[", b'{"a":', b"[[],", b'{"config":{"env":', b"1", b'"\\u0000'))
    contents["state.json"] = opening * (size // len(opening)) + rng.choice((b"", b"]", b"}", b'"'))


def _nothing(contents: dict[str, bytes], rng: random.Random) -> None:
    """The file itself is replaced, later."""


_MUTATIONS: dict[str, Callable[[dict[str, bytes], random.Random], None]] = {
    "bytes": _bytes,
    "json": _json,
    "manifest": _manifest,
    "header": _header,
    "numbers": _numbers,
    "bomb": _bomb,
    "no file": _nothing,
}


def _sign(contents: dict[str, bytes], rng: random.Random) -> None:
    files = {
        name: {"bytes": len(contents[name]), "sha256": hashlib.sha256(contents[name]).hexdigest()}
        for name in _FILES
        if name != "manifest.json"
    }
    contents["manifest.json"] = json.dumps({"schema": rng.choice((SCHEMA, SCHEMA, 1)), "files": files}).encode()


def study(folder: Path, files: int, seed: int, env: str, until: float = math.inf) -> dict[str, Report]:
    """A third of `files` as checkpoints, one as settings, one as other files of a run or a sweep; `until` a time."""
    target, rng = Target(folder, env), random.Random(seed)
    attacks = {
        "checkpoints": target.attack_checkpoint,
        "settings": target.attack_settings,
        "other files": target.run.attack,
    }
    reports = {name: Report() for name in attacks}
    for index in range(files):
        if time.monotonic() > until:
            break
        name = list(attacks)[index % len(attacks)]
        kind, use = attacks[name](rng)
        reports[name].run(kind, use)
        if reached := target.outside.reached():
            reports[name].foreign.append(f"{kind}: {reached}")
            break
    return reports


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--files", type=int, default=100_000, help="mutated files, a third of them checkpoints")
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after this time, with fewer files")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--env", default="CartPole-v1", help="environment whose state is in the checkpoints")
    parser.add_argument("--output", type=Path, help="JSON file of the results")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "warm-up").mkdir()
        study(Path(folder) / "warm-up", 200, args.seed + 1, args.env)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        reports = study(Path(folder), args.files, args.seed, args.env, started + 60 * args.minutes)
    growth = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    result = {
        name: {
            "files": report.files,
            "outcomes": dict(report.outcomes.most_common()),
            "slowest_seconds": round(report.slowest, 3),
            "slowest_kind": report.slowest_kind,
            "foreign_errors": report.foreign[:20],
        }
        for name, report in reports.items()
    } | {"memory_growth_MiB": round(growth / 1024, 1), "minutes": round((time.monotonic() - started) / 60, 1)}
    text = json.dumps(result, indent=2)
    print(text)
    if args.output:
        args.output.write_text(text + "\n")


if __name__ == "__main__":
    main()

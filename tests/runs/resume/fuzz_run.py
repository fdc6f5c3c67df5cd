"""Mutated files of a run and of a sweep other than its checkpoints, and what reads them."""

from __future__ import annotations

import contextlib
import io
import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from fuzz_mutations import mutate_bytes, mutate_header, mutate_json, replace_by_something_else

from esper.analysis.arms import load_arm
from esper.analysis.comparison import compare, warnings
from esper.analysis.comparison_table import rows
from esper.analysis.measures import all_measures
from esper.analysis.report import _page, read_record
from esper.analysis.runs import load_updates
from esper.policies.policy import load_policy
from esper.runs.config import RunConfig
from esper.runs.evaluation import Best
from esper.runs.layers import Layer, changed_and_default, resolve
from esper.runs.resume.point import find_resume_point
from esper.runs.resume.settings import settings_to_resume
from esper.scripts.train import main as esper
from esper.settings.options import settings_of
from esper.sweep.plan import Job, make_sweep, read_sweep
from esper.sweep.progress import check_same, progress_of
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.stream import Telemetry

# One in so many is read by a whole command, which takes long: with pictures, or an environment.
_WHOLE = 200
_SWEEP = """folder = "runs/x"
seeds = 3
preset = "auto"
[settings]
total_timesteps = 300
lr = 1e-3
[arms.constant]
[arms.cosine]
lr_warmup_frac = 0.05
lr_decay = "cosine"
[environments.CartPole]
env = "torch/CartPole-v1"
seeds = "1,5,7-9"
arms.cosine.value_lr = 2e-3
"""

Attack = tuple[str, Callable[[], object]]


class RunTarget:
    """`whole`, a run, and a copy of which one file is mutated at a time."""

    def __init__(self, whole: Path, folder: Path, outside: Path) -> None:
        self._copy, self._outside = folder / "env" / "arm" / "seed-1", outside
        shutil.copytree(whole, self._copy)
        shutil.rmtree(self._copy / "checkpoints")
        self._originals = {path.name: path.read_bytes() for path in self._copy.iterdir() if path.is_file()}
        self._config: RunConfig = resolve(
            [Layer(source="fuzz", values=json.loads(self._originals["config.json"]))]
        ).config
        self._sweep = folder / "sweep.toml"
        self._spoilt = "config.json"

    def attack(self, rng: random.Random) -> Attack:
        """Mutate a file; its kind, and what reads it."""
        self._restore()
        attacks = (self._record, self._record, self._policy, self._settings, self._sweep_file)
        kind, name, use = rng.choice(attacks)(rng)
        self._spoilt = name
        if name != "sweep" and rng.random() < 0.05:
            replace_by_something_else(self._copy / name, rng, self._outside)
        return kind, use

    def _restore(self) -> None:
        path = self._copy / self._spoilt
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        path.unlink(missing_ok=True)
        if self._spoilt in self._originals:
            path.write_bytes(self._originals[self._spoilt])

    def _record(self, rng: random.Random) -> tuple[str, str, Callable[[], object]]:
        lines = self._originals["events.jsonl"].splitlines(keepends=True)
        for _ in range(rng.choice((1, 1, 1, 2, 5))):
            index = rng.randrange(len(lines))
            match rng.randrange(8):
                case 0:
                    del lines[index]
                case 1:
                    lines.insert(index, rng.choice(lines))
                case 2:
                    line = bytearray(lines[index])
                    mutate_bytes(line, rng)
                    lines[index] = bytes(line)
                case 3 if rng.random() < 0.1:
                    lines[index] = rng.choice((b"[", b'{"a":', b'{"event":"update_completed","x":[')) * 50_000
                case _:
                    with contextlib.suppress(ValueError, TypeError, RecursionError):
                        event = json.loads(lines[index])
                        mutate_json(event, rng)
                        lines[index] = json.dumps(event).encode() + b"\n"
            if not lines:
                break
        (self._copy / "events.jsonl").write_bytes(b"".join(lines))
        uses: dict[str, Callable[[], object]] = {
            "report": self._report,
            "compare": self._compare,
            "resume": self._go_on,
            "picture": self._picture,
            "progress": lambda: progress_of(self._job()),
        }
        if rng.random() < 1 / _WHOLE:
            html = str(self._copy.parent / "compare.html")
            uses = {
                "report, whole": lambda: command("report", str(self._copy)),
                "compare, whole": lambda: command("compare", str(self._copy), "--html", html, "--threshold", "20"),
            }
        name = rng.choice(list(uses))
        return f"events.jsonl: {name}", "events.jsonl", uses[name]

    def _report(self) -> None:
        _page("x", read_record(self._copy), {}, changed_and_default)

    def _picture(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # as it is declared
            load_updates(self._copy)

    def _compare(self) -> None:
        arm, measures = load_arm(self._copy, settings_of(RunConfig)), all_measures(20.0)
        warnings([arm])
        for summaries in compare([arm], measures).values():
            rows(summaries)

    def _go_on(self) -> None:
        path = self._copy / "events.jsonl"
        record = JsonlRecord(path, path.read_bytes().rfind(b"\n") + 1 if path.is_file() else 0)
        try:
            Telemetry(TelemetryConfig(), record, before=Best().recall(record.read()))
        finally:
            record.close()

    def _policy(self, rng: random.Random) -> tuple[str, str, Callable[[], object]]:
        name = rng.choice(("policy.json", "policy.json", "policy.safetensors"))
        data = bytearray(self._originals[name])
        if name == "policy.json" and rng.random() < 0.8:
            stored = json.loads(data)
            for _ in range(rng.choice((1, 1, 2, 4))):
                mutate_json(stored, rng)
            data = bytearray(json.dumps(stored).encode())
        elif rng.random() < 0.5 and name != "policy.json":
            data = bytearray(mutate_header(bytes(data), rng))
        else:
            mutate_bytes(data, rng)
        (self._copy / name).write_bytes(data)
        if rng.random() < 5 / _WHOLE:
            return "policy, whole", name, lambda: command("evaluate", str(self._copy), "--episodes", "1")
        return name, name, lambda: load_policy(self._copy)

    def _settings(self, rng: random.Random) -> tuple[str, str, Callable[[], object]]:
        settings = json.loads(self._originals["config.json"])
        for _ in range(rng.randint(1, 3)):
            mutate_json(settings, rng)
        data = bytearray(json.dumps(settings).encode())
        if rng.random() < 0.3:
            mutate_bytes(data, rng)
        (self._copy / "config.json").write_bytes(data)
        uses: dict[str, Callable[[], object]] = {
            "sweep": lambda: check_same(self._job()),
            "resume": lambda: settings_to_resume(find_resume_point(self._copy), [], "continue"),
            "print": lambda: command("ppo", "--config", str(self._copy / "config.json"), "--print-config"),
        }
        name = rng.choice(list(uses))
        return f"config.json: {name}", "config.json", uses[name]

    def _sweep_file(self, rng: random.Random) -> tuple[str, str, Callable[[], object]]:
        data = bytearray(_SWEEP.encode())
        mutate_bytes(data, rng)
        self._sweep.write_bytes(data)
        return "sweep.toml", "sweep", lambda: make_sweep(read_sweep(self._sweep), "sweep.toml")

    def _job(self) -> Job:
        values = {**json.loads(self._originals["config.json"]), "run_dir": str(self._copy)}
        return Job(environment="env", arm="arm", config=resolve([Layer(source="fuzz", values=values)]).config)


def command(*arguments: str) -> int:
    """Run the command line in this process, unseen."""
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return esper(arguments)

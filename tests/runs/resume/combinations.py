"""Every feature with every other, stopped at a random update and resumed: the end is that of the run left alone.

`python tests/runs/resume/combinations.py --help` for more than the tests do. A new feature is a line in `FACTORS`.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mixed_env
from covering import Row, cover
from harness import differences
from mixed_parts import PARTS

from esper.analysis.runs import read_events
from esper.runs.checkpoint.folder import checkpoints_in
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.resume.rules import Mode
from esper.runs.run import resume_run, run
from esper.telemetry.events import Event, UpdateCompleted, UpdateSkipped

# Levels of each factor, and the settings they stand for. `_env` are arguments of the environment.
FACTORS: Mapping[str, Mapping[str, Mapping[str, Any]]] = {
    "memory": {"none": {}, **{name: {"rnn": name, "rnn_size": 3} for name in ("lstm", "gru")}},
    "observations": {
        "vector": {},
        "dict": {"_env": {"observations": "dict"}},
        "image, small": {"_env": {"observations": "image"}, "encoder": "small"},
        "image, flatten": {"_env": {"observations": "image"}, "encoder": "flatten"},
    },
    "actions": {name: {"_env": {"actions": name}} for name in mixed_env.ACTIONS},
    "scaled actions": {name: {"scale_actions": name} for name in ("off", "on")},
    "activation": {name: {"activation": name} for name in ("tanh", "relu", "elu", "gelu", "silu")},
    "critic": {"as the actor": {}, "deeper": {"critic_hidden_sizes": [5, 3]}},
    "layer norm": {"no": {}, "yes": {"layer_norm": True}},
    "masks": {"none": {}, "masked": {"_env": {"masked": True}}},
    "success": {"none": {}, "told": {"_env": {"success": True}}},
    "time limit": {"none": {}, "4 steps": {"max_episode_steps": 4}},
    "observation statistics": {"no": {}, "yes": {"normalize_observations": True}},
    "reward statistics": {"no": {}, "yes": {"normalize_rewards": True}},
    "trunk": {"apart": {}, **{f"shared, {lr}": {"shared_trunk": True, "shared_lr": lr} for lr in ("policy", "min")}},
    "frozen": {"nothing": {}, "3 updates": {"freeze_encoder": 3}},
    "passed": {"id": {}, "class": {"env": "<Mixed>"}},
    "part": PARTS,
    "vector": {
        **{name: {"vector": name} for name in ("sync", "native")},
        **{f"async, {number}": {"vector": "async", "env_workers": number} for number in (2, 4)},
        "torch": {"vector": "auto"},
    },
    "engine": {name: {"compile": name} for name in ("native", "off", "torch")}
    | {"off, bf16": {"compile": "off", "precision": "bf16"}},
    "telemetry": {name: {"telemetry": name} for name in ("off", "minimal", "normal", "debug")},
    "metrics after": {"no": {}, "yes": {"metrics_after": True}},
    "decay": {
        "constant": {},
        "linear": {"lr_decay": "linear"},
        "cosine": {"lr_decay": "cosine", "lr_min_ratio": 0.1},
        "polynomial": {"lr_decay": "polynomial", "lr_power": 3, "lr_decay_timesteps": 100},
        "exponential": {"lr_decay": "exponential", "lr_min_ratio": 0.01},
        "step": {"lr_decay": "step", "lr_step_size": 3, "lr_gamma": 0.5},
        "multistep": {"lr_decay": "multistep", "lr_milestones": [4, 6], "lr_gamma": 0.5},
        "inverse_sqrt": {"lr_decay": "inverse_sqrt", "lr_timescale": 2},
        "wsd": {"lr_decay": "wsd", "lr_decay_frac": 0.4, "lr_wsd_shape": "1-sqrt"},
        "cosine_restarts": {"lr_decay": "cosine_restarts", "lr_cycles": 2},
        "triangular": {"lr_decay": "triangular", "lr_cycles": 2, "lr_min_ratio": 0.1},
        "function": {"lr_decay": "mixed_env:halving"},
        "piecewise": {"lr_decay": "piecewise", "lr_points": [[0, 1e-3], [4, 1e-4], [6, 5e-4]]},
    },
    "warmup": {
        "none": {},
        "steps": {"lr_warmup_steps": 2, "policy_lr_delay": 1},
        "timesteps": {"lr_warmup_timesteps": 40},
        "fraction": {"lr_warmup_frac": 0.2, "lr_warmup_shape": "cosine", "lr_warmup_start_ratio": 0.1},
    },
    "feedback": {
        "none": {},
        "by update": {"lr_kl_target": 1e-3},
        "by minibatch, policy": {"policy_lr_kl_target": 1e-3, "policy_lr_kl_every": "minibatch"},
    },
    "coefficients": {
        "constant": {},
        "falling": {
            "clip_coef_decay": "linear",
            "entropy_coef": 0.01,
            "entropy_coef_decay": "cosine",
            "value_coef_decay": "step",
            "value_coef_step_size": 2,
            "value_coef_gamma": 0.5,
        },
    },
    "limits": {
        "none": {},
        "all": {"target_kl": 0.02, "value_clip_coef": 0.2, "max_grad_norm": "none"},
        "each": {"max_grad_norm": 0.1, "max_grad_norm_over": "group"},
        "falling": {
            "target_kl": 0.05,
            "target_kl_decay": "cosine",
            "target_kl_min_ratio": 0.2,
            "value_clip_coef": 0.2,
            "value_clip_coef_decay": "linear",
            "value_clip_coef_min_ratio": 0.1,
        },
    },
    "evaluation": {"none": {}, "best policy": {"eval_every": 2, "eval_episodes": 2}},
    "videos": {"none": {}, "every second": {"record_every": 2}},
    "draws": {name: {"_env": {"draws": name}} for name in ("own", "global")},
    "fault": {"none": {}, **{name: {"_env": {"fault": name}} for name in ("reward", "observation")}},
    "resume": {"plain": {}, "continue": {}, "extend": {}, "restart": {}},
    "end": {"killed": {}, "signal": {}},
}

# What cannot be, by levels of several factors.
FORBIDDEN: tuple[Mapping[str, tuple[str, ...]], ...] = (
    {"actions": ("box",), "masks": ("masked",)},
    {"actions": tuple(name for name in mixed_env.ACTIONS if name != "box"), "scaled actions": ("on",)},
    {"masks": ("masked",), "scaled actions": ("on",)},
    {"vector": ("native",), "masks": ("masked",)},
    {"vector": ("native",), "observations": ("dict",)},
    # A class has no vector version, and none makes environments in tensors.
    {"vector": ("native", "torch"), "passed": ("class",)},
    # Parts from Python are torch's, which compiles no optimizer; a network and an encoder are instead of others.
    {"engine": ("native",), "part": tuple(name for name in PARTS if name != "ours")},
    {"engine": ("torch",), "part": ("optimizer",)},
    {"part": ("network",), "memory": ("lstm", "gru")},
    {"part": ("network", "encoder"), "observations": ("image, small", "image, flatten")},
    {"part": ("network",), "trunk": ("shared, policy", "shared, min")},
    {"part": ("network",), "critic": ("deeper",)},
    # `torch` compiles each step of a recurrent network's sequences anew, and is refused.
    {"engine": ("torch",), "memory": ("lstm", "gru")},
    {"engine": ("off, bf16",), "memory": ("lstm", "gru")},
    # The environments in tensors have vectors or, with one choice, images, no masks, one choice or numbers, no faults,
    # tell of no success, and draw from a generator of their own.
    {"vector": ("torch",), "observations": ("dict",)},
    {"vector": ("torch",), "observations": ("image, small", "image, flatten"), "actions": ("box",)},
    {"vector": ("torch",), "masks": ("masked",)},
    {"vector": ("torch",), "actions": ("multi_discrete", "multi_binary")},
    {"vector": ("torch",), "fault": ("reward", "observation")},
    {"vector": ("torch",), "draws": ("global",)},
    {"vector": ("torch",), "success": ("told",)},
    {"trunk": ("shared, policy", "shared, min"), "critic": ("deeper",)},
    # Without an encoder or a trunk there is nothing to freeze.
    {
        "frozen": ("3 updates",),
        "trunk": ("apart",),
        "observations": ("vector", "dict", "image, flatten"),
        "part": tuple(name for name in PARTS if name not in ("encoder", "network")),
    },
    {"frozen": ("3 updates",), "part": ("network",)},
    # Points have no warmup: it is one of them; triangles rise by themselves, a function gives every rate.
    {"decay": ("piecewise", "triangular", "function"), "warmup": ("steps", "timesteps", "fraction")},
    # A trunk that follows the lower of two rates has one factor.
    {"trunk": ("shared, min",), "feedback": ("by minibatch, policy",)},
    # A restart leaves 4 updates, of which delay and warmup take 3.
    {"decay": ("cosine_restarts", "wsd"), "warmup": ("steps",), "resume": ("restart",)},
)

SETTINGS: Mapping[str, Any] = {
    "num_envs": 4,
    "num_steps": 8,
    "num_minibatches": 2,
    "update_epochs": 2,
    "total_timesteps": 8 * 4 * 8,
    "hidden_sizes": [4],
    "threads": 1,
    "keep_checkpoints": 99,
    "quiet": True,
    "tensorboard": False,
    "picture": False,
}
UPDATES, MORE_UPDATES = 8, 12


def allowed(row: Row) -> bool:
    """Whether a row, or a part of one, can be."""
    return not any(all(row.get(name) in levels for name, levels in rule.items()) for rule in FORBIDDEN)


def rows(strength: int = 2, *, without: Mapping[str, tuple[str, ...]] | None = None) -> list[Row]:
    """A covering set of rows, those first that have the most that is new."""
    left_out = without or {}
    factors = {
        name: [level for level in levels if level not in left_out.get(name, ())] for name, levels in FACTORS.items()
    }
    return cover(factors, allowed, strength)


def settings_of(row: Row) -> dict[str, Any]:
    """The settings that `row` stands for."""
    settings = dict(SETTINGS)
    env_kwargs: dict[str, Any] = {}
    for name, level in row.items():
        chosen = dict(FACTORS[name][level])
        env_kwargs |= chosen.pop("_env", {})
        settings |= chosen
    if row["decay"] != "piecewise":
        settings["lr"] = 1e-3
    if row["vector"] == "torch":
        return {**settings, "env": _in_tensors(row)}
    return {"env": "Mixed-v0", **settings, "env_kwargs": env_kwargs}


def _in_tensors(row: Row) -> str:
    if row["observations"] != "vector":
        return "torch/MinAtar/Breakout"
    return "torch/Pendulum-v1" if row["actions"] == "box" else "torch/CartPole-v1"


class EndAt:
    """A sink that ends the run in `run_dir` at the event of update `update`.

    By a signal, or as if it were killed: the folder is kept as it is when there is a checkpoint of more than `updates`,
    which a busy machine may still be writing, and `put_back` later.
    """

    def __init__(self, update: int, how: str, run_dir: Path, updates: int) -> None:
        self._update, self._how, self._run_dir, self._updates = update, how, run_dir, updates
        self._kept = run_dir.with_name(f"{run_dir.name}, as killed")

    def emit(self, event: Event) -> None:
        if isinstance(event, UpdateCompleted | UpdateSkipped) and event.update == self._update:
            if self._how == "killed":
                deadline = time.monotonic() + 60
                while self._newest() <= self._updates and time.monotonic() < deadline:
                    time.sleep(0.01)
                # A checkpoint that is being written has a name of its own until it is whole.
                shutil.copytree(self._run_dir, self._kept, ignore=shutil.ignore_patterns(".*"))
            else:
                os.kill(os.getpid(), signal.SIGTERM)

    def close(self) -> None: ...

    def _newest(self) -> int:
        return int(checkpoints_in(self._run_dir / "checkpoints")[0].name[:8])

    def put_back(self) -> None:
        if self._how == "killed":
            shutil.rmtree(self._run_dir)
            self._kept.rename(self._run_dir)


def check(row: Row, folder: Path, rng: random.Random) -> None:
    """Hold a run of `row` that is ended and resumed to the same run left alone: its way, and its end.

    Raises:
        AssertionError: naming what is different.
    """
    settings = settings_of(row) | {"checkpoint_every": rng.randint(1, 3)}
    alone, disturbed = folder / "alone", folder / "disturbed"
    run(_config(settings, alone))
    _end_and_resume(lambda sinks: run(_config(settings, disturbed), sinks), disturbed, range(UPDATES), row, rng)
    _compare(disturbed, alone, UPDATES)
    if row["resume"] != "plain":
        mode: Mode = row["resume"]  # type: ignore[assignment]
        # A function is named again, as a new horizon calls it again.
        named = {name: settings[name] for name in ("lr_decay",) if ":" in settings.get(name, "")}
        values = {"total_timesteps": 32 * MORE_UPDATES, "quiet": True, **named, **PARTS[row["part"]]}
        more = [Layer(source="more", values=values)]
        # Only its newest state: what is before it has been compared.
        given = _given(settings["env"])
        resume_run(alone, more, mode=mode, given=given)
        _end_and_resume(
            lambda sinks: resume_run(disturbed, more, mode=mode, given=given, sinks=lambda config: sinks),
            disturbed,
            range(UPDATES, MORE_UPDATES),
            row,
            rng,
        )
        _compare(disturbed, alone, MORE_UPDATES)


def _config(settings: Mapping[str, Any], run_dir: Path) -> RunConfig:
    config = resolve([Layer(source="row", values={**settings, "run_dir": str(run_dir)})]).config
    environment = dataclasses.replace(config.environment, given=_given(config.environment.env))
    return dataclasses.replace(config, environment=environment)


def _given(env: str) -> type[mixed_env.Mixed] | None:
    """What is passed from Python for `env`."""
    return mixed_env.Mixed if env == "<Mixed>" else None


def _end_and_resume(start: Any, run_dir: Path, span: range, row: Row, rng: random.Random) -> None:
    """Start, end at a random update of `span`, and resume; it must go on at its newest checkpoint."""
    end = rng.randrange(span.start + 3, span.stop - 1) if span.stop - span.start > 4 else span.start + 2
    before = _events(run_dir, "run_resumed") if (run_dir / "events.jsonl").exists() else []
    ending = EndAt(end, row["end"], run_dir, span.start)
    start([ending])
    ending.put_back()
    newest = checkpoints_in(run_dir / "checkpoints")[0]
    if row["end"] == "signal":
        assert int(newest.name[:8]) == end + 1, f"stopped after update {end}, the newest checkpoint is {newest.name}"
    env = str(json.loads((run_dir / "config.json").read_text())["env"])
    again = [Layer(source="again", values={"quiet": True, **PARTS[row["part"]]})]
    resume_run(run_dir, again, given=_given(env))
    resumed = _events(run_dir, "run_resumed")[len(before) :][-1]
    assert resumed["update"] == int(newest.name[:8]) > span.start, f"resumed at {resumed['update']}, not {newest.name}"
    assert resumed["checkpoint"] == str(newest)
    assert (resumed["broken"], resumed["exact_resume"], resumed["changed"]) == ([], True, {})
    assert resumed["lr"] == resumed["lr_before"]


def _compare(disturbed: Path, alone: Path, updates: int) -> None:
    assert not list(disturbed.rglob("*.broken")), "a checkpoint was set aside"
    for run_dir in (disturbed, alone):
        names = [event["event"] for event in read_events(run_dir)]
        assert names.count("run_started") == 1
        assert (names[0], names[-1]) == ("run_started", "run_finished")
        recorded = [e["update"] for e in read_events(run_dir) if e["event"] in ("update_completed", "update_skipped")]
        skipped = [event["update"] for event in _events(run_dir, "update_skipped")]
        finished = _events(run_dir, "run_finished")[-1]
        assert (finished["updates"], finished["updates_undone"]) == (updates, len(skipped))
        # Without telemetry only those that were skipped are recorded.
        assert recorded in (list(range(updates)), skipped)
    found = differences(disturbed, alone)
    assert found == [], f"different: {found}"
    videos = [{path.name: path.read_bytes() for path in folder.glob("videos/*")} for folder in (disturbed, alone)]
    assert videos[0] == videos[1], "other videos"
    every = json.loads((alone / "config.json").read_text())["record_every"]
    due = range(every, updates + 1, every) if every else ()
    assert sorted(Path(name).stem for name in videos[0]) == [f"update-{number:05}" for number in due]
    best = [(folder / "best" / "policy.safetensors") for folder in (disturbed, alone)]
    assert best[0].exists() == best[1].exists()
    assert not best[0].exists() or best[0].read_bytes() == best[1].read_bytes(), "another best policy"


def _events(run_dir: Path, name: str) -> list[dict[str, Any]]:
    return [event for event in read_events(run_dir) if event["event"] == name]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--strength", type=int, default=2, help="so many factors meet with all of their levels")
    parser.add_argument("--seed", type=int, default=0, help="of the updates at which runs are ended")
    parser.add_argument("--rows", type=int, help="only the first rows")
    parser.add_argument("--compiled", action="store_true", help="torch.compile too, half a minute a row")
    args = parser.parse_args()
    every = rows(args.strength, without={} if args.compiled else {"engine": ("torch",)})[: args.rows]
    started, failed = time.monotonic(), 0
    for index, row in enumerate(every):
        folder = Path(tempfile.mkdtemp())
        try:
            check(row, folder, random.Random(f"{args.seed} {index}"))
        except Exception as error:
            failed += 1
            print(f"row {index}: {dict(row)}: {type(error).__name__}: {error}", flush=True)
        shutil.rmtree(folder)
    print(f"{len(every)} rows, {failed} failed, {(time.monotonic() - started) / 60:.1f} minutes")


if __name__ == "__main__":
    main()

"""Inspect checkpoints: their content, and whether they are complete."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from esper.scripts.flags import fail, say
from esper.storage import files

if TYPE_CHECKING:
    from esper.runs.resume.point import ResumePoint

USAGE = "esper checkpoint inspect PATH [--json]"


def add_arguments(parser: argparse.ArgumentParser, *, help_all: bool) -> None:
    parser.add_argument("action", choices=["inspect"], metavar="inspect", help="print what is in the checkpoint")
    parser.add_argument("path", type=Path, metavar="PATH", help="folder of a run, or one checkpoint")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")


def run(args: argparse.Namespace) -> int:
    from esper.runs.resume.point import find_resume_point
    from esper.storage.store import CorruptError, StoreError

    try:
        point = find_resume_point(args.path)
    except CorruptError as error:
        fail(f"broken: {error}", "esper checkpoint")
    except StoreError as error:
        fail(str(error), "esper checkpoint")
    if point.state is None:
        fail(f"{args.path}: the run has no checkpoint yet", "esper checkpoint")
    try:
        facts = describe(point, point.state)
        text = json.dumps(facts) if args.json else _table(facts)
    except (AttributeError, LookupError, OSError, TypeError, ValueError) as error:
        fail(f"{point.source}: is not the state of a run ({error!r})", "esper checkpoint")
    say(text)
    return 0


def describe(point: ResumePoint, state: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a checkpoint, with the field names of the record."""
    training, schedule, config = state["training"], state["schedule"], point.config
    agent = training["agent"]
    # In schema 1 undone updates did not advance the clock.
    updates = training.get("rollouts", agent["train_steps"])
    return {
        "checkpoint": str(point.checkpoint),
        "whole": True,
        "broken": [reason for _, reason in point.broken],
        "env": config.environment.env,
        "seed": config.seed,
        "undone": training.get("undone", updates - agent["train_steps"]),
        "total_updates": config.ppo.total_updates,
        "env_steps": updates * config.ppo.batch_size,
        "episodes": training["episodes"],
        "exact_resume": state["exact_resume"],
        "update": updates,
        "horizon": {"start": schedule["start"], "updates": schedule["updates"]},
        "lr_schedule_switch": state["lr_schedule_switch"],
        "schedules": {
            name: {
                "next": rate,
                "phase": schedule["next_phase"].get(name),
                **schedule["resolved"].get(name, {}),
            }
            for name, rate in schedule["next"].items()
        },
        "tensors": {name: tuple(tensor.shape) for name, tensor in agent["network"].items()},
        "numbers": sum(tensor.numel() for tensor in agent["network"].values()),
        "bytes": sum(files.size_of(point.source / name) for name in files.names_in(point.source)),
        "versions": state["versions"],
    }


def _table(facts: Mapping[str, Any]) -> str:
    rows = [
        ("", f"{facts['checkpoint']}: complete"),
        *(("broken", reason) for reason in facts["broken"]),
        ("run", f"{facts['env']}, seed {facts['seed']}"),
        (
            "position",
            f"{facts['update']:,} of {facts['total_updates']:,} updates ({facts['undone']:,} undone), "
            f"{facts['env_steps']:,} env steps, {facts['episodes']:,} episodes",
        ),
        ("resume", "exact" if facts["exact_resume"] else "with fresh episodes: the environment cannot save its state"),
        (
            "schedules",
            f"update {facts['update']:,}, counted from {facts['horizon']['start']:,}, of "
            f"{facts['horizon']['updates']:,}; switch {facts['lr_schedule_switch']}",
        ),
        *((name, _schedule(schedule)) for name, schedule in facts["schedules"].items()),
        ("network", f"{facts['numbers']:,} numbers in {len(facts['tensors'])} tensors"),
        ("size", f"{facts['bytes']:,} bytes"),
        ("written by", ", ".join(f"{name} {version}" for name, version in facts["versions"].items())),
    ]
    return "\n".join(f"{name:12} {text}".strip() for name, text in rows)


def _schedule(schedule: Mapping[str, Any]) -> str:
    parts = [f"next {schedule['next']:.6g}"]
    if schedule["phase"]:
        parts.append(f"in {schedule['phase']}")
    if "decay" in schedule:
        base = "" if schedule["peak"] is None else f" from {schedule['peak']:g}"
        parts.append(f"{schedule['decay']}{base} to {schedule['floor']:g}")
    return ", ".join(parts)

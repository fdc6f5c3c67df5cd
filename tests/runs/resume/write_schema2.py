"""Writes the run folders of `schema2/`: `python tests/runs/resume/write_schema2.py FOLDER`.

They are what a version of the past left behind, so they stay as they are. Whoever raises the schema of a record, a
checkpoint or a policy copies this file, and writes folders of the last version before.
"""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from esper.scripts.train import main

SMALL = (
    *("--preset", "none", "--num-envs", "2", "--num-steps", "8", "--total-timesteps", "96", "--hidden-sizes", "2"),
    *("--num-minibatches", "2", "--update-epochs", "2", "--lr", "1e-3", "--checkpoint-every", "1", "--threads", "1"),
    *("--keep-checkpoints", "99", "--no-tensorboard", "--no-picture", "--quiet"),
)
_MIXED = ("--env", "mixed_env:Mixed-v0", "--env-kwargs")
# Starts of `esper ppo` in one folder, one after the other; RUN is the folder.
RUNS: dict[str, tuple[tuple[str, ...], ...]] = {
    "native": (
        (
            *(*SMALL, "--env", "CartPole-v1", "--compile", "native", "--lr-decay", "cosine", "--lr-warmup-frac", "0.2"),
            *("--normalize-observations", "--normalize-rewards", "--eval-every", "2", "--eval-episodes", "2"),
        ),
    ),
    "memory": (
        (
            *(*SMALL, *_MIXED, '{"masked": true, "actions": "multi_discrete"}', "--compile", "off"),
            *("--lstm-size", "3", "--value-lr-decay", "linear"),
        ),
    ),
    "images": ((*SMALL, *_MIXED, '{"observations": "image"}', "--encoder", "small", "--shared-trunk"),),
    "tensors": (
        (*SMALL, "--env", "torch/Pendulum-v1", "--lr-decay", "linear"),
        ("--resume", "RUN", "--resume-schedule", "extend", "--total-timesteps", "144", "--quiet"),
    ),
}
SWEEP = (
    *(*SMALL, "--env", "CartPole-v1", "--telemetry", "minimal", "--total-timesteps", "48", "--workers", "1"),
    *("--arm", "constant:", "--arm", "cosine: --lr-decay cosine", "--seeds", "2"),
)
# The updates before the checkpoint that is kept of each.
KEPT = {"native": 3, "memory": 3, "images": 3, "tensors": 7}


def esper(arguments: Sequence[str]) -> str:
    """What the command prints."""
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        status = main(arguments)
    assert status == 0, f"{' '.join(arguments)}: exit status {status}"
    return printed.getvalue()


def train(name: str, run: Path) -> None:
    for flags in RUNS[name]:
        place = () if "RUN" in flags else ("--run-dir", str(run))
        esper(["ppo", *(flag.replace("RUN", str(run)) for flag in flags), *place])


def write(folder: Path) -> None:
    """The folders, and in FOLDER/NAME.json what commands say about each."""
    for name, kept in KEPT.items():
        run = folder / name
        train(name, run)
        for checkpoint in (run / "checkpoints").iterdir():
            if checkpoint.name != f"{kept:08}":
                shutil.rmtree(checkpoint)
        said = {
            "inspect": json.loads(esper(["checkpoint", "inspect", str(run), "--json"])),
            "evaluate": json.loads(esper(["evaluate", str(run), "--episodes", "3", "--trust", "--json"])),
        }
        del said["inspect"]["checkpoint"], said["inspect"]["versions"], said["inspect"]["bytes"]
        (folder / f"{name}.json").write_text(json.dumps(said) + "\n")
    esper(["sweep", *SWEEP, "--output", str(folder / "sweep")])
    for page in (folder / "sweep").glob("*.html"):
        page.unlink()
    for checkpoints in (folder / "sweep").rglob("checkpoints"):
        shutil.rmtree(checkpoints)
    arms = [str(folder / "sweep" / "CartPole-v1" / arm) for arm in ("constant", "cosine")]
    (folder / "sweep.json").write_text(esper(["compare", *arms, "--json"]))
    for lock in folder.rglob(".lock"):
        lock.unlink()


if __name__ == "__main__":
    write(Path(sys.argv[1]).resolve())

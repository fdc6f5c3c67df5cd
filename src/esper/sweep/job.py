"""One run of a sweep, in the calling process: started, or resumed from its last checkpoint."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from esper.runs.layers import Layer, SettingsError
from esper.runs.resume.point import ResumeError
from esper.runs.run import RunError, check_run, resume_run, run
from esper.settings.options import ConfigError, flatten
from esper.storage import files
from esper.storage.store import StoreError
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of
from esper.system.errors import describe


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a try at a run ended, and why if not completed. A `failed` run may succeed when tried again."""

    status: Literal["completed", "diverged", "interrupted", "failed", "refused"]
    cause: str | None = None


def do(job: Job) -> Outcome:
    """Start or resume the run of `job`; nothing is done if it is completed."""
    progress = progress_of(job)
    if progress.status in ("completed", "diverged"):
        return Outcome(status=progress.status)
    try:
        if files.is_there(job.run_dir / "config.json"):
            settings = Layer(source="sweep", values=flatten(job.config))
            _, result = resume_run(job.run_dir, [settings])
        else:
            result = run(job.config)
    except RunError as error:
        return Outcome(status="failed", cause=str(error))
    except (ConfigError, SettingsError, StoreError, ResumeError) as error:
        return Outcome(status="refused", cause=str(error))
    return Outcome(status=result.train.status, cause=result.cause)


def refusal(jobs: Sequence[Job]) -> str | None:
    """Why one of `jobs` cannot begin here: environments and agents are made, once for each setting."""
    checked = set()
    for job in jobs:
        config = dataclasses.replace(job.config, seed=0, run_dir=None)
        if repr(config) in checked:
            continue
        checked.add(repr(config))
        try:
            check_run(config)
        except Exception as error:
            return f"{job.name}: {error or describe(error)}"
    return None

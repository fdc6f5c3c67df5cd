"""Runs as tasks of a Ray cluster, or of one that Ray starts on this machine. The only module that imports ray."""

from __future__ import annotations

import logging
import os
from typing import Any

import ray
from ray.exceptions import RayError, TaskCancelledError

from esper.schedules import SWITCH
from esper.sweep.job import Outcome, do
from esper.sweep.plan import Job


class RayLauncher:
    """Submits all runs to Ray, which starts each when its resources are free. All machines must see the sweep's folder.

    Without an `address` Ray uses the cluster of RAY_ADDRESS, or starts one here with all cores.

    Raises:
        ConnectionError: when there is no cluster at `address`.
    """

    def __init__(self, address: str | None, *, cpus: int, gpus: float, jobs: int) -> None:
        # All runs are submitted at once, so that an autoscaler sees the whole demand.
        self.slots = jobs
        ray.init(address=address, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR)
        # A lost worker or node counts as a failed try.
        options: dict[str, Any] = {"num_cpus": cpus, "num_gpus": gpus, "max_retries": 0}
        switch = os.environ.get(SWITCH)
        if switch is not None:
            options["runtime_env"] = {"env_vars": {SWITCH: switch}}
        self._remote = ray.remote(**options)(do)
        self._jobs: dict[Any, Job] = {}

    def start(self, job: Job) -> None:
        self._jobs[self._remote.remote(job)] = job

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        done, _ = ray.wait(list(self._jobs), num_returns=1, timeout=seconds)
        return [(self._jobs.pop(reference), _outcome(reference)) for reference in done]

    def stop(self) -> None:
        for reference in self._jobs:
            ray.cancel(reference)

    def cancel(self, job: Job) -> None:
        for reference, running in self._jobs.items():
            if running is job:
                ray.cancel(reference)

    def close(self) -> None:
        ray.shutdown()


def _outcome(reference: Any) -> Outcome:
    try:
        outcome: Outcome = ray.get(reference)
    except TaskCancelledError:
        return Outcome(status="interrupted", cause="cancelled")
    except RayError as error:
        return Outcome(status="failed", cause=str(error).splitlines()[0])
    return outcome

"""Runs as tasks of a Ray cluster, or of one that Ray starts on this machine. The only module that imports ray."""

from __future__ import annotations

import logging
import os
import secrets
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from esper.schedules import SWITCH
from esper.storage import files
from esper.sweep.away import Contents, bring_back, do_away, sees, to_send
from esper.sweep.job import Outcome, do, refusal
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of
from esper.system.errors import describe

# On how many machines settings are tried before they are refused.
_MACHINES_TO_CHECK = 3


class RayLauncher:
    """Submits all runs to Ray, which starts each when its resources are free.

    A machine that sees the token in the sweep's folder trains there. From the others runs are brought back through
    Ray. A run that a machine refuses is given to others.
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
        self._work, self._check = ray.remote(**options)(_work), ray.remote(**options)(_check)
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        # Where its machine is lost it begins anew elsewhere.
        lasting = {"num_cpus": 0, "max_restarts": -1, "max_task_retries": -1}
        self._mailbox = ray.remote(**lasting)(_Mailbox).options(scheduling_strategy=here).remote()
        self._token = f".seen-{secrets.token_hex(8)}"
        self._jobs: dict[Any, Job] = {}
        self._known: dict[str, Job] = {}
        self._tokens = set[Path]()
        self._refused_by = defaultdict[str, set[str]](set)  # machines by job

    def check(self, jobs: Sequence[Job]) -> str | None:
        refused: str | None = None
        tried = set[str]()
        for _ in range(_MACHINES_TO_CHECK):
            reference = _elsewhere(self._check, tried).remote(list(jobs))
            try:
                found, machine = ray.get(reference)
                nodes = {machine}
            except RayError as error:
                found, nodes = _first_line(error), _machines_of(error)
            if found is None:
                return None
            refused = refused or found
            tried |= nodes
            if not nodes or not _machines() - tried:
                break
        return refused

    def start(self, job: Job) -> None:
        token = job.run_dir.parents[2] / self._token
        if token not in self._tokens:
            files.write_new(token, b"")
            self._tokens.add(token)
        self._known[job.name] = job
        work = _elsewhere(self._work, self._to_avoid(job))
        self._jobs[work.remote(job, token, to_send(job), self._mailbox)] = job

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        done, _ = ray.wait(list(self._jobs), num_returns=1, timeout=seconds)
        self._take_mail()
        found = []
        for reference in done:
            job = self._jobs.pop(reference)
            outcome, machines = _outcome(reference)
            if outcome.status == "refused":
                self._refused_by[job.name] |= machines
                if machines and _machines() - self._refused_by[job.name]:
                    self.start(job)
                    continue
            if outcome.status in ("completed", "diverged") and progress_of(job).status != outcome.status:
                outcome = Outcome(status="failed", cause=f"{outcome.status} where it ran, but it is not visible here")
            found.append((job, outcome))
        return found

    def stop(self) -> None:
        for reference in self._jobs:
            ray.cancel(reference)

    def cancel(self, job: Job) -> None:
        for reference, running in self._jobs.items():
            if running is job:
                ray.cancel(reference)

    def close(self) -> None:
        if not ray.is_initialized():
            return
        try:
            self._take_mail()
        except RayError:
            logging.getLogger(__name__).warning("the Ray cluster is gone; runs resume from their last checkpoints here")
        for token in self._tokens:
            files.remove(token)
        ray.shutdown()

    def _to_avoid(self, job: Job) -> set[str]:
        """The machines that refused `job`; those that refused others, too, unless none is left."""
        every = set[str]().union(*self._refused_by.values())
        return every if _machines() - every else self._refused_by[job.name]

    def _take_mail(self) -> None:
        letters: dict[str, Contents] = ray.get(self._mailbox.take.remote())
        for name, contents in letters.items():
            bring_back(self._known[name], contents)


class _Mailbox:
    """What machines sent of their runs, the latest of each, until the sweep takes it."""

    def __init__(self) -> None:
        self._letters: dict[str, Contents] = {}

    def put(self, name: str, contents: Contents) -> None:
        self._letters[name] = contents

    def take(self) -> dict[str, Contents]:
        letters, self._letters = self._letters, {}
        return letters


def _work(job: Job, token: Path, begun: Contents, mailbox: Any) -> tuple[Outcome, str]:
    """The outcome of `job`, and the machine."""
    try:
        if sees(token):
            outcome = do(job)
        else:
            outcome = do_away(job, begun, lambda contents: ray.get(mailbox.put.remote(job.name, contents)))
    except OSError as error:
        outcome = Outcome(status="refused", cause=files.why(error))
    except Exception as error:
        outcome = Outcome(status="failed", cause=describe(error))
    return outcome, _this_machine()


def _check(jobs: Sequence[Job]) -> tuple[str | None, str]:
    return refusal(jobs), _this_machine()


def _this_machine() -> str:
    return str(ray.get_runtime_context().get_node_id())


def _machines() -> set[str]:
    return {node["NodeID"] for node in ray.nodes() if node["Alive"]}


def _elsewhere(function: Any, machines: set[str]) -> Any:
    """`function`, not on `machines`."""
    if not machines:
        return function
    return function.options(label_selector={"ray.io/node-id": f"!in({','.join(sorted(machines))})"})


def _outcome(reference: Any) -> tuple[Outcome, set[str]]:
    """The outcome of a task, and the machines that refused it."""
    try:
        outcome, machine = ray.get(reference)
    except TaskCancelledError:
        return Outcome(status="interrupted", cause="cancelled"), set()
    except RayTaskError as error:
        # Not of the run, which ends with an outcome: Esper cannot be imported there.
        return Outcome(status="refused", cause=_first_line(error)), _machines_of(error)
    except RayError as error:
        return Outcome(status="failed", cause=_first_line(error)), set()
    return outcome, {machine}


def _machines_of(error: RayError) -> set[str]:
    """The machines with the address that `error` names."""
    address = getattr(error, "ip", None)
    return {node["NodeID"] for node in ray.nodes() if node["Alive"] and node["NodeManagerAddress"] == address}


def _first_line(error: RayError) -> str:
    """What `error` says in a line: of an error of the task its last line, as the others are its traceback."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[-1] if isinstance(error, RayTaskError) else lines[0]

"""Runs all jobs of a sweep with any launcher."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from esper.sweep.plan import Job

if TYPE_CHECKING:
    from esper.sweep.job import Outcome

_SECONDS_BETWEEN_LOOKS = 0.5


class Launcher(Protocol):
    """Runs jobs in other processes, at most `slots` at a time."""

    slots: int

    def check(self, jobs: Sequence[Job]) -> str | None:
        """Why one of `jobs` cannot begin where they run; None if all can. Nothing is trained or written."""
        ...

    def start(self, job: Job) -> None:
        """Start or resume the run of `job`."""
        ...

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that have ended since the last call; waits for one, at most `seconds`."""
        ...

    def stop(self) -> None:
        """Request all running jobs to stop after their current update."""
        ...

    def cancel(self, job: Job) -> None:
        """Request `job` to stop after its current update, if it runs."""
        ...

    def close(self) -> None:
        """Kill all jobs that still run."""
        ...


class JobQueue:
    """The jobs that wait, run, and have ended, and the number of retries of each."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = deque(jobs)
        self.running: list[Job] = []
        self.outcomes: dict[str, Outcome] = {}
        self.retries = Counter[str]()


def run_all(
    queue: JobQueue,
    launcher: Launcher,
    *,
    retries: int,
    should_stop: Callable[[], bool],
    on_change: Callable[[JobQueue, Job | None], None],
) -> None:
    """Run the waiting jobs of `queue`; a failed job resumes from its last checkpoint, up to `retries` times.

    `on_change` is called about twice a second, and with each job that has ended without another retry.
    """
    stopping = False
    while queue.running or (queue.waiting and not stopping):
        while queue.waiting and not stopping and len(queue.running) < launcher.slots:
            job = queue.waiting.popleft()
            launcher.start(job)
            queue.running.append(job)
        for job, outcome in launcher.ended(_SECONDS_BETWEEN_LOOKS):
            queue.running.remove(job)
            if outcome.status == "failed" and queue.retries[job.name] < retries and not stopping:
                queue.retries[job.name] += 1
                queue.waiting.appendleft(job)
            else:
                queue.outcomes[job.name] = outcome
                on_change(queue, job)
        on_change(queue, None)
        if should_stop() and not stopping:
            stopping = True
            launcher.stop()

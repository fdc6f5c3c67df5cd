"""Bringing all runs of a sweep to their end, whatever starts them."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from esper.sweep.plan import Job

if TYPE_CHECKING:
    from esper.sweep.job import Outcome

_SECONDS_BETWEEN_LOOKS = 0.5


class Launcher(Protocol):
    """Runs jobs elsewhere, `slots` at most at a time."""

    slots: int

    def start(self, job: Job) -> None:
        """Let the run of `job` begin, or go on."""
        ...

    def ended(self, seconds: float) -> list[tuple[Job, Outcome]]:
        """The jobs that have ended since the last call; waits for one, at most so many `seconds`."""
        ...

    def stop(self) -> None:
        """Ask all that run to stop after the update they are in."""
        ...

    def close(self) -> None:
        """End what still runs, at once."""
        ...


class Board:
    """Which jobs wait, run, and have ended, and how often each was tried again."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self.waiting = deque(jobs)
        self.running: list[Job] = []
        self.outcomes: dict[str, Outcome] = {}
        self.retries = Counter[str]()


def run_all(
    board: Board,
    launcher: Launcher,
    *,
    retries: int,
    should_stop: Callable[[], bool],
    on_change: Callable[[Board, Job | None], None],
) -> None:
    """Run what waits on `board`; a job that fails goes on from its last checkpoint, up to `retries` times.

    `on_change` is called about twice a second, and with each job that has ended for good.
    """
    stopping = False
    while board.running or (board.waiting and not stopping):
        while board.waiting and not stopping and len(board.running) < launcher.slots:
            job = board.waiting.popleft()
            launcher.start(job)
            board.running.append(job)
        for job, outcome in launcher.ended(_SECONDS_BETWEEN_LOOKS):
            board.running.remove(job)
            if outcome.status == "failed" and board.retries[job.name] < retries and not stopping:
                board.retries[job.name] += 1
                board.waiting.appendleft(job)
            else:
                board.outcomes[job.name] = outcome
                on_change(board, job)
        on_change(board, None)
        if should_stop() and not stopping:
            stopping = True
            launcher.stop()

"""The runs of a sweep while they train: a live table, or plain lines if the output is not a terminal."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from esper.storage import files
from esper.sweep.plan import Job
from esper.sweep.progress import progress_of

if TYPE_CHECKING:
    from esper.sweep.launch import JobQueue

_SECONDS_BETWEEN_LOOKS = 1.0
_SECONDS_BETWEEN_LINES = 30.0


class Overview:
    """Shows all runs by environment and arm; a context manager that owns the terminal."""

    def __init__(self, jobs: Sequence[Job], slots: int, *, quiet: bool) -> None:
        self._jobs, self._slots = jobs, slots
        self._console = Console(quiet=quiet)
        self._live: Live | None = None
        self._progress = {job.name: progress_of(job) for job in jobs}
        self._seconds = defaultdict[str, float](float)
        self._before = {name: progress.fraction for name, progress in self._progress.items()}
        self._started = self._looked = self._last_line = time.monotonic()

    def __enter__(self) -> Overview:
        done = sum(progress.status == "completed" for progress in self._progress.values())
        self._say(f"{len(self._jobs)} runs, {done} of them completed before, {self._slots} at a time")
        if self._console.is_terminal:
            self._live = Live(console=self._console, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, queue: JobQueue, ended: Job | None) -> None:
        """Read the progress of the runs; report a run that has `ended` without completing."""
        now = time.monotonic()
        if ended is not None:
            self._progress[ended.name] = progress_of(ended)
            outcome = queue.outcomes[ended.name]
            if self._live is None or outcome.status not in ("completed", "interrupted"):
                self._say(
                    f"{self._done()}  {ended.name} {outcome.status}{f': {outcome.cause}' if outcome.cause else ''}"
                )
                self._last_line = now
        if now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return
        for job in queue.running:
            self._progress[job.name] = progress = progress_of(job)
            # A killed run resumes from its checkpoint, which is before the end of its record.
            self._before[job.name] = min(self._before[job.name], progress.fraction)
        for job in self._active(queue):
            self._seconds[job.name] += now - self._looked
        self._looked = now
        if self._live is not None:
            self._live.update(self._table(queue), refresh=True)
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._say(f"{self._done()}  {len(self._active(queue))} running, {self._time_left(queue)} left")
            self._last_line = now

    def _say(self, text: str) -> None:
        self._console.print(files.printable(text), highlight=False, soft_wrap=True, markup=False)

    def _done(self) -> str:
        done = sum(progress.status == "completed" for progress in self._progress.values())
        return f"{done}/{len(self._jobs)}"

    def _table(self, queue: JobQueue) -> Table:
        table, active = Table.grid(padding=(0, 2)), self._active(queue)
        groups = self._most_wanted(queue)
        # Two lines are of the whole, and the cursor has one.
        shown = groups[: max(1, self._console.height - 4)] if len(groups) > self._console.height - 3 else groups
        for (environment, arm), jobs in shown:
            progress = [self._progress[job.name] for job in jobs]
            ended = [queue.outcomes[job.name] for job in jobs if job.name in queue.outcomes]
            failed = sum(outcome.status in ("failed", "refused") for outcome in ended)
            failed += sum(each.status == "diverged" for each in progress)
            running = sum(job in active for job in jobs)
            table.add_row(
                f"{environment}/{arm}",
                ProgressBar(total=len(jobs), completed=sum(each.fraction for each in progress), width=30),
                f"{sum(each.status == 'completed' for each in progress)}/{len(jobs)} complete",
                f"{running} running" if running else "",
                f"[red]{failed} failed[/]" if failed else "",
            )
        whole = Table.grid()
        # Above the table, where it is visible even if the arms exceed the terminal's lines.
        whole.add_row(f"{self._done()} complete, {self._time_left(queue)} left")
        whole.add_row(table)
        if hidden := groups[len(shown) :]:
            complete = sum(all(self._progress[job.name].status == "completed" for job in jobs) for _, jobs in hidden)
            whole.add_row(f"and {len(hidden)} more arms, {complete} of them complete")
        return whole

    def _most_wanted(self, queue: JobQueue) -> list[tuple[tuple[str, str], list[Job]]]:
        """The arms, as far as not all fit: those that run, those with failures, those that wait, the complete ones."""
        groups = list(self._groups().items())
        if len(groups) <= self._console.height - 3:
            return groups
        active = {job.name for job in self._active(queue)}
        failed = {name for name, outcome in queue.outcomes.items() if outcome.status in ("failed", "refused")}

        def rank(group: tuple[tuple[str, str], list[Job]]) -> int:
            names = {job.name for job in group[1]}
            if names & active:
                return 0
            if names & failed or any(self._progress[name].status == "diverged" for name in names):
                return 1
            return 3 if all(self._progress[name].status == "completed" for name in names) else 2

        return sorted(groups, key=rank)

    def _groups(self) -> dict[tuple[str, str], list[Job]]:
        groups: dict[tuple[str, str], list[Job]] = {}
        for job in self._jobs:
            groups.setdefault((job.environment, job.arm), []).append(job)
        return groups

    def _time_left(self, queue: JobQueue) -> str:
        """From the speed of each environment so far; an environment without one counts as the slowest."""
        done, spent, left = (defaultdict[str, float](float) for _ in range(3))
        for job in self._jobs:
            env, steps, progress = job.environment, job.config.ppo.total_timesteps, self._progress[job.name]
            done[env] += steps * (progress.fraction - self._before[job.name])
            spent[env] += self._seconds[job.name]
            if job.name not in queue.outcomes and progress.status in ("new", "begun"):
                left[env] += steps * (1 - progress.fraction)
        speeds = {env: done[env] / spent[env] for env in done if done[env] and spent[env]}
        if not speeds:
            return "-"
        seconds = sum(steps / speeds.get(env, min(speeds.values())) for env, steps in left.items())
        minutes, rest = divmod(round(seconds / max(1, len(self._active(queue)))), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"

    def _active(self, queue: JobQueue) -> list[Job]:
        """The runs that train: jobs submitted to Ray may still wait."""
        return [job for job in queue.running if self._progress[job.name].status == "begun"]

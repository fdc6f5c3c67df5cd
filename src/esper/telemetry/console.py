"""A run on the terminal: a live table, or plain lines if the output is not a terminal."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table

from esper.settings.values import counted
from esper.storage import files
from esper.telemetry.events import (
    AnomalyDetected,
    EvaluationCompleted,
    Event,
    LearningStalled,
    RunFinished,
    RunResumed,
    RunStarted,
    UpdateCompleted,
    UpdateSkipped,
    VideoRecorded,
)

_RECENT_EPISODES = 100  # at least, if so many have ended
_SECONDS_BETWEEN_LINES = 5.0


def on_terminal(*, quiet: bool) -> ConsoleSink:
    """One that writes to this process's output, or nothing if `quiet`."""
    return ConsoleSink(Console(quiet=quiet))


class ConsoleSink:
    """Shows the progress of the run; notices of anything unusual stay on the screen.

    `notices` are lines about its settings, shown at the start. `lost` returns why output is lost, if writing raises no
    error by itself.
    """

    def __init__(
        self, console: Console, *, notices: Sequence[str] = (), lost: Callable[[], OSError | None] = lambda: None
    ) -> None:
        self._console, self._notices, self._lost = console, notices, lost
        self._live: Live | None = None
        self._total_updates = 1
        self._started = self._last_line = time.monotonic()
        self._recent: deque[tuple[float, int]] = deque()
        self._first: UpdateCompleted | None = None
        self._last: UpdateCompleted | None = None
        self._printed: UpdateCompleted | None = None

    def emit(self, event: Event) -> None:
        self._react(event)
        if error := self._lost():
            raise error

    def _react(self, event: Event) -> None:
        match event:
            case RunStarted():
                self._begin(event)
            case RunResumed():
                self._go_on(event)
            case UpdateCompleted():
                self._show(event)
            case AnomalyDetected() if event.kind != "non_finite":
                self._say(f"update {self._position(event)}: {event.says} ({event.kind})", style="yellow")
            case EvaluationCompleted():
                self._say(f"evaluation after update {self._position(event)}: {_evaluation(event)}")
            case VideoRecorded():
                self._say(f"video after update {self._position(event)}: {event.video}, {event.frames:,} frames")
            case UpdateSkipped():
                self._say(f"update {self._position(event)} skipped: {event.cause}", style="yellow")
            case LearningStalled():
                self._end()
                self._say(event.says, style="yellow")
            case RunFinished():
                self._end()

    def close(self) -> None:
        if self._live is not None:
            self._live.stop()
            self._live = None

    def _end(self) -> None:
        """Leave the last update on the screen."""
        if self._live is not None:
            self.close()
        elif self._last is not self._printed and self._last is not None:
            self._print_line(self._last)
        self._printed = self._last

    def _begin(self, event: RunStarted) -> None:
        if event.lr_schedule_switch == "off":
            self._say("ESPER_LR_SCHEDULE=off: learning rates stay at their base rates")
        for notice in self._notices:
            self._say(notice, style="yellow")
        self._watch(event)

    def _go_on(self, event: RunResumed) -> None:
        for reason in event.broken:
            self._say(f"broken, and set aside: {reason}")
        self._say(f"resuming from {event.checkpoint}, after {event.env_steps:,} env steps")
        if not event.exact_resume:
            self._say(f"the environments begin fresh episodes (seed {event.env_seed}): the resume is not exact")
        for name, (old, new) in event.changed.items():
            self._say(f"{name}: {old}, now {new}")
        for group, rate in event.lr.items():
            if rate != event.lr_before[group]:
                self._say(f"lr/{group} jumps: {event.lr_before[group]:.4g}, now {rate:.4g}")
        before, now = event.lr_factor_before or {}, event.lr_factor or {}
        for group in event.lr:
            if before.get(group, 1.0) != now.get(group, 1.0):
                self._say(f"lr_factor/{group} jumps: {before.get(group, 1.0):.4g}, now {now.get(group, 1.0):.4g}")
        self._watch(event)

    def _say(self, text: str, style: str | None = None) -> None:
        self._console.print(files.printable(text), style=style, highlight=False, soft_wrap=True, markup=False)

    def _watch(self, event: RunStarted | RunResumed) -> None:
        self._total_updates = event.total_updates
        if event.engine == "torch":
            self._say("compiling the update at its first use (up to a minute; quicker when cached)")
        self._started = self._last_line = time.monotonic()
        if self._console.is_terminal and self._live is None:
            self._live = Live(console=self._console, auto_refresh=False, transient=False)
            self._live.start()

    def _show(self, event: UpdateCompleted) -> None:
        self._last = event
        self._first = self._first or event
        if event.episode_return_mean is not None:
            self._recent.append((event.episode_return_mean, event.episodes))
            while self._recent_count() - self._recent[0][1] >= _RECENT_EPISODES:
                self._recent.popleft()
        if self._live is not None:
            self._live.update(self._table(event), refresh=self._due(0.1))
        elif event is self._first or self._due(_SECONDS_BETWEEN_LINES):
            self._print_line(event)

    def _position(
        self, event: UpdateCompleted | UpdateSkipped | AnomalyDetected | EvaluationCompleted | VideoRecorded
    ) -> str:
        """How many updates have ended with that of `event`, and of how many."""
        return f"{event.update + 1}/{self._total_updates}"

    def _due(self, seconds: float) -> bool:
        now = time.monotonic()
        if now - self._last_line < seconds and self._last is not None and self._last.update + 1 < self._total_updates:
            return False
        self._last_line = now
        return True

    def _facts(self, event: UpdateCompleted) -> Iterator[tuple[str, str]]:
        """Label and value of every row."""
        yield "update", self._position(event)
        yield "env steps", f"{event.env_steps:,}"
        yield "steps/s", f"{event.steps_per_second:,.0f}"
        yield "left", self._time_left(event)
        yield f"return ({self._recent_count()} episodes)", _number(self._recent_return())
        for group, rate in event.lr.items():
            factor = "" if event.lr_factor is None else f" x {event.lr_factor[group]:.3g}"
            yield f"lr/{group}", f"{rate:.3g} {event.lr_phase[group]}{factor}"
        yield "approx_kl", f"{event.approx_kl:.4f}"
        yield "clip_fraction", f"{event.clip_fraction:.3f}"
        if event.approx_kl_after is not None and event.clip_fraction_after is not None:
            yield "approx_kl_after", f"{event.approx_kl_after:.4f}"
            yield "clip_fraction_after", f"{event.clip_fraction_after:.3f}"
        yield "explained_variance", _number(event.explained_variance)
        if event.success_rate is not None:
            yield "success_rate", _number(event.success_rate)

    def _table(self, event: UpdateCompleted) -> Table:
        table = Table.grid(padding=(0, 2))
        facts = list(self._facts(event))
        for left, right in zip(facts[::2], [*facts[1::2], ("", "")], strict=False):
            table.add_row(f"[dim]{left[0]}[/]", left[1], f"[dim]{right[0]}[/]", right[1])
        whole = Table.grid()
        whole.add_row(ProgressBar(total=self._total_updates, completed=event.update + 1, width=60))
        whole.add_row(table)
        return whole

    def _print_line(self, event: UpdateCompleted) -> None:
        line = "  ".join(f"{label} {value}" for label, value in self._facts(event))
        self._console.print(line, highlight=False, soft_wrap=True)
        self._printed = event

    def _time_left(self, event: UpdateCompleted) -> str:
        done = event.update + 1 - (self._first or event).update
        seconds = int((time.monotonic() - self._started) / done * (self._total_updates - event.update - 1))
        minutes, seconds = divmod(seconds, 60)
        return f"{minutes}:{seconds:02}"

    def _recent_count(self) -> int:
        return sum(count for _, count in self._recent)

    def _recent_return(self) -> float | None:
        count = self._recent_count()
        return sum(mean * episodes for mean, episodes in self._recent) / count if count else None


def _evaluation(event: EvaluationCompleted) -> str:
    success = "" if event.eval_success_rate is None else f", success rate {event.eval_success_rate:.2f}"
    capped = "" if event.eval_capped is None else f", {event.eval_capped} of them truncated by the evaluation"
    return (
        f"return {event.eval_return_mean:.2f} ± {event.eval_return_std:.2f}"
        f"{success} over {counted(event.eval_episodes, 'episode')}{capped}"
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"

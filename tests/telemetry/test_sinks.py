"""What the record and the console make of events."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from esper.telemetry.console import ConsoleSink
from esper.telemetry.episodes import episode_fields
from esper.telemetry.events import LearningStalled, RunFinished, RunStarted, UpdateCompleted, UpdateSkipped
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.records import event_name, to_record


def update(index: int = 0, returns: tuple[float, ...] = (), **changes: Any) -> UpdateCompleted:
    fields: dict[str, Any] = {
        "update": index,
        "env_steps": 100 * (index + 1),
        "lr": {"policy": 1e-3, "value": 2e-3},
        "lr_phase": {"policy": "warmup", "value": "decay"},
        "schedule_update": index,
        "schedule_total_updates": 50,
        "clip_coef": 0.2,
        "entropy_coef": 0.0,
        "optimizer_steps": 4,
        "loss": 1.0,
        "policy_loss": 0.5,
        "value_loss": 1.0,
        "entropy": 0.6,
        "approx_kl": 0.01,
        "clip_fraction": 0.1,
        "ratio_mean": 1.0,
        "ratio_std": 0.1,
        "ratio_min": 0.8,
        "ratio_max": 1.2,
        "grad_norm": {"policy": 0.1, "value": 0.2},
        "explained_variance": None,
        "steps_per_second": 1000.0,
        **episode_fields(returns, [10] * len(returns)),
    }
    return UpdateCompleted(**(fields | changes))


def started(**changes: Any) -> RunStarted:
    fields: dict[str, Any] = {
        "config": {"env": "X-v0"},
        "seed": 1,
        "total_updates": 50,
        "schedules": {},
        "lr_schedule_switch": "on",
        "engine": "eager",
        "threads": 1,
        "telemetry": "normal",
        "versions": {},
    }
    return RunStarted(**(fields | changes))


class TestRecord:
    def test_groups_become_names_with_a_slash(self) -> None:
        record = to_record(update())
        assert record["event"] == "update_completed"
        assert (record["lr/policy"], record["lr/value"]) == (1e-3, 2e-3)
        assert record["lr_phase/value"] == "decay"
        assert record["grad_norm/policy"] == 0.1
        assert "lr" not in record

    def test_what_was_not_computed_is_absent(self) -> None:
        record = to_record(update())
        assert "explained_variance" not in record
        assert record["episodes"] == 0
        assert not [name for name in record if name.startswith("episode_")]

    def test_episode_statistics(self) -> None:
        record = to_record(update(returns=(1.0, 3.0)))
        assert (record["episode_return_mean"], record["episode_return_std"]) == (2.0, 1.0)
        assert (record["episode_return_min"], record["episode_return_max"]) == (1.0, 3.0)
        assert record["episode_length_mean"] == 10

    def test_names(self) -> None:
        kinds: list[type] = [RunStarted, UpdateCompleted, UpdateSkipped]
        assert [event_name(kind) for kind in kinds] == ["run_started", "update_completed", "update_skipped"]

    def test_file_has_whole_lines_while_the_run_goes_on(self, tmp_path: Path) -> None:
        sink = JsonlRecord(tmp_path / "events.jsonl")
        for index in range(3):
            sink.write(to_record(update(index)))
            lines = (tmp_path / "events.jsonl").read_text().splitlines()
            assert [json.loads(line)["update"] for line in lines] == list(range(index + 1))
        sink.close()

    def test_a_number_that_json_does_not_have_is_absent(self) -> None:
        record = to_record(update(returns=(1.0, float("nan")), ratio_std=float("inf")))
        assert record["episodes"] == 2
        assert not {"episode_return_mean", "ratio_std"} & set(record)
        json.dumps(record, allow_nan=False)


def shown(*events: Any, terminal: bool = False) -> str:
    output = io.StringIO()
    sink = ConsoleSink(Console(file=output, force_terminal=terminal, width=100))
    for event in events:
        sink.emit(event)
    sink.close()
    return output.getvalue()


class TestConsole:
    def test_plain_lines(self) -> None:
        text = shown(started(), update(0, (5.0, 15.0)))
        assert text.startswith("update 1/50  env steps 100  steps/s 1,000  left ")
        assert "return (2 episodes) 10.00  lr/policy 0.001 warmup  lr/value 0.002 decay" in text
        assert "explained_variance -" in text

    def test_metrics_after_the_update_are_there_where_they_were_computed(self) -> None:
        assert "_after" not in shown(started(), update())
        text = shown(started(), update(approx_kl_after=0.02, clip_fraction_after=0.25, ratio_std_after=0.3))
        assert "approx_kl_after 0.0200  clip_fraction_after 0.250" in text

    def test_lines_are_rare_but_the_last_update_has_one(self) -> None:
        finished = RunFinished(
            status="completed", cause=None, updates=50, updates_undone=0, env_steps=5000, episodes=0, seconds=1.0
        )
        lines = shown(started(), *(update(index) for index in range(50)), finished).splitlines()
        assert [line.split("  ")[0] for line in lines] == ["update 1/50", "update 50/50"]

    def test_an_interrupted_run_shows_where_it_stopped(self) -> None:
        finished = RunFinished(
            status="interrupted", cause="SIGINT", updates=7, updates_undone=0, env_steps=700, episodes=0, seconds=1.0
        )
        lines = shown(started(), *(update(index) for index in range(7)), finished).splitlines()
        assert lines[-1].startswith("update 7/50")

    def test_return_is_over_the_last_hundred_episodes_or_so(self) -> None:
        old, new = [update(index, (0.0,) * 50) for index in range(4)], [update(index, (8.0,) * 50) for index in (4, 49)]
        assert "return (100 episodes) 8.00" in shown(started(), *old, *new).splitlines()[-1]

    def test_live_table_on_a_terminal(self) -> None:
        text = shown(started(total_updates=1), update(0, (5.0,)), terminal=True)
        for part in ("1/1", "lr/policy", "0.001 warmup", "clip_fraction", "0.100"):
            assert part in text

    @pytest.mark.parametrize("terminal", [False, True])
    def test_a_diagnosis_is_the_last_line(self, terminal: bool) -> None:
        stalled = LearningStalled(update=6, env_steps=700, cause="x", says="returns stand still", tries=["a lower lr"])
        finished = RunFinished(
            status="completed", cause=None, updates=7, updates_undone=0, env_steps=700, episodes=0, seconds=1.0
        )
        lines = shown(started(), *(update(index) for index in range(7)), stalled, finished, terminal=terminal)
        assert "returns stand still" in lines.splitlines()[-1]
        assert lines.count("update 7/50") == (not terminal)

    @pytest.mark.parametrize(("switch", "said"), [("off", 1), ("on", 0)])
    def test_the_switch_is_said_once(self, switch: str, said: int) -> None:
        assert shown(started(lr_schedule_switch=switch), update()).count("ESPER_LR_SCHEDULE=off") == said

    def test_a_skipped_update_is_said(self) -> None:
        assert "update 4/50 skipped: bad" in shown(
            started(), UpdateSkipped(update=3, env_steps=1, cause="bad", non_finite=True)
        )

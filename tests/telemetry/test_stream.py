"""What is recorded at each level, what follows from updates, and what happens when someone cannot write."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_sinks import started, update

from esper.analysis.runs import read_events
from esper.telemetry.analytics import Analytics
from esper.telemetry.anomalies import AnomalyDetector
from esper.telemetry.config import TelemetryConfig
from esper.telemetry.events import (
    AnalyticsSnapshot,
    AnomalyDetected,
    DebugSnapshot,
    Event,
    RunFinished,
    SinkError,
    UpdateSkipped,
)
from esper.telemetry.jsonl import JsonlRecord
from esper.telemetry.records import to_record
from esper.telemetry.stream import Telemetry

SKIPPED = UpdateSkipped(update=5, env_steps=1, cause="loss nan", non_finite=True)


def finished() -> RunFinished:
    return RunFinished(
        status="completed", cause=None, updates=1, updates_undone=0, env_steps=1, episodes=1, seconds=1.0
    )


class Kept:
    """Keeps what it is given; raises where it should."""

    def __init__(self, *, fails_at: int | None = None) -> None:
        self.events: list[Event] = []
        self.closed, self._fails_at = False, fails_at

    def emit(self, event: Event) -> None:
        if len(self.events) == self._fails_at:
            raise OSError("the disk of others is full")
        self.events.append(event)

    def close(self) -> None:
        self.closed = True


def debug_snapshot() -> DebugSnapshot:
    return DebugSnapshot(
        update=0,
        env_steps=1,
        lr={},
        lr_phase={},
        schedule_update=0,
        schedule_total_updates=1,
        minibatch={"loss": [1.0, None]},
    )


def stream(folder: Path, level: Any = "normal", **sinks: Any) -> Telemetry:
    config = TelemetryConfig(telemetry=level, snapshot_every=2)
    return Telemetry(config, JsonlRecord(folder / "events.jsonl"), **sinks)


def recorded(folder: Path) -> list[str]:
    return [event["event"] for event in read_events(folder)]


class TestLevels:
    @pytest.mark.parametrize(
        ("level", "names"),
        [
            ("off", ["run_started", "update_skipped"]),
            ("minimal", ["run_started", "update_completed", "update_completed", "update_skipped"]),
            (
                "normal",
                [
                    *("run_started", "update_completed", "update_completed", "analytics_snapshot"),
                    *("update_skipped", "anomaly_detected"),
                ],
            ),
            (
                "debug",
                [
                    *("run_started", "update_completed", "update_completed", "analytics_snapshot", "debug_snapshot"),
                    *("update_skipped", "anomaly_detected"),
                ],
            ),
        ],
    )
    def test_what_each_records(self, tmp_path: Path, level: str, names: list[str]) -> None:
        writer, watcher = Kept(), Kept()
        telemetry = stream(tmp_path, level, writers=[writer], watchers=[watcher])
        for event in (started(), update(0), update(1), debug_snapshot(), SKIPPED):
            telemetry.emit(event)
        telemetry.close()
        assert recorded(tmp_path) == names
        assert len(writer.events) == len(names)
        # Who shows the run sees updates whatever is recorded.
        assert update(1) in watcher.events
        assert (writer.closed, watcher.closed) == (True, True)


class TestFailures:
    @pytest.mark.parametrize("kind", ["writers", "watchers"])
    def test_a_sink_that_fails_is_reported_and_switched_off(
        self, tmp_path: Path, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        bad, good = Kept(fails_at=1), Kept()
        with caplog.at_level(logging.WARNING):
            telemetry = stream(tmp_path, **{kind: [bad, good]})
            for event in (started(), update(0), update(2)):
                telemetry.emit(event)
            telemetry.close()
        assert len(caplog.records) == 1
        assert "Kept failed and is switched off" in caplog.text
        assert len(bad.events) == 1
        assert [type(event).__name__ for event in good.events] == [
            *("RunStarted", "SinkFailed", "UpdateCompleted", "UpdateCompleted")
        ]
        assert recorded(tmp_path) == ["run_started", "update_completed", "sink_failed", "update_completed"]
        (failed,) = [event for event in read_events(tmp_path) if event["event"] == "sink_failed"]
        assert (failed["sink"], failed["cause"]) == ("Kept", "OSError: the disk of others is full")

    @pytest.mark.parametrize("error", [SystemExit(1), GeneratorExit(), ValueError("a\nb")])
    def test_nothing_that_a_sink_raises_passes(self, tmp_path: Path, error: BaseException) -> None:
        class Bad(Kept):
            def emit(self, event: Event) -> None:
                raise error

        bad = Bad()
        telemetry = stream(tmp_path, writers=[bad])
        telemetry.emit(started())
        assert recorded(tmp_path) == ["run_started", "sink_failed"]
        assert bad.closed

    def test_ctrl_c_passes(self, tmp_path: Path) -> None:
        class Interrupted(Kept):
            def emit(self, event: Event) -> None:
                raise KeyboardInterrupt

        telemetry = stream(tmp_path, writers=[Interrupted()])
        with pytest.raises(KeyboardInterrupt):
            telemetry.emit(started())

    @pytest.mark.parametrize("kind", ["writers", "watchers"])
    def test_the_end_is_the_last_line_although_a_sink_fails_on_close(self, tmp_path: Path, kind: str) -> None:
        class Bad(Kept):
            def close(self) -> None:
                raise OSError("no room for the rest")

        good = Kept()
        telemetry = stream(tmp_path, **{kind: [Bad(), good]})
        telemetry.emit(started())
        telemetry.emit(finished())
        assert recorded(tmp_path) == ["run_started", "sink_failed", "run_finished"]
        assert [type(event).__name__ for event in good.events] == ["RunStarted", "RunFinished", "SinkFailed"]
        assert good.closed

    def test_the_limit_is_put_around_the_closing_of_each_sink(self, tmp_path: Path) -> None:
        def limit(close: Any) -> None:
            close()
            raise TimeoutError("did not return within 60 s")

        sinks = [Kept(), Kept()]
        telemetry = stream(tmp_path, writers=sinks, limit=limit)
        telemetry.emit(finished())
        assert [sink.closed for sink in sinks] == [True, True]
        assert recorded(tmp_path) == ["sink_failed", "sink_failed", "run_finished"]

    def test_the_record_is_not_lost_silently(self, tmp_path: Path) -> None:
        telemetry = stream(tmp_path)
        telemetry.emit(started())
        (tmp_path / "events.jsonl").unlink()
        with pytest.raises(SinkError, match="was removed while the run was writing it"):
            telemetry.emit(update(0))


class TestAnalytics:
    def test_statistics_by_hand(self) -> None:
        analytics = Analytics(snapshot_every=3)
        found: list[Event] = []
        for index, loss in enumerate((1.0, np.e, 1.0)):
            found += analytics.see(to_record(update(index, value_loss=float(loss), approx_kl=0.01 * (index + 1))))
        (snapshot,) = found
        assert isinstance(snapshot, AnalyticsSnapshot)
        assert (snapshot.update, snapshot.window, snapshot.env_steps) == (2, 3, 300)
        assert snapshot.lr == {"policy": 1e-3, "value": 2e-3}
        assert snapshot.lr_phase == {"policy": "warmup", "value": "decay"}
        assert (snapshot.schedule_update, snapshot.schedule_total_updates) == (2, 50)
        assert snapshot.mean["approx_kl"] == pytest.approx(0.02)
        # 1, 2, 3 hundredths around 2: squares 1, 0, 1 over 3.
        assert snapshot.std["approx_kl"] == pytest.approx(0.01 * (2 / 3) ** 0.5)
        assert (snapshot.min["approx_kl"], snapshot.max["approx_kl"]) == (0.01, 0.03)
        # Logarithms 0, 1, 0: differences 1 and -1, mean 0, squares 2 over 1.
        assert snapshot.value_loss_roughness == pytest.approx(2**0.5)
        # No update had an explained variance.
        assert "explained_variance" not in snapshot.mean

    def test_the_window_is_the_last_hundred(self) -> None:
        analytics = Analytics(snapshot_every=150)
        (snapshot,) = [
            event
            for index in range(150)
            for event in analytics.see(to_record(update(index, entropy=float(index >= 50))))
        ]
        assert isinstance(snapshot, AnalyticsSnapshot)
        assert (snapshot.window, snapshot.mean["entropy"]) == (100, 1.0)

    def test_going_on_from_the_record_changes_nothing(self, tmp_path: Path) -> None:
        losses = np.random.default_rng(0).lognormal(0, 3, 60)
        events: list[Event] = [started(), *(update(index, value_loss=float(loss)) for index, loss in enumerate(losses))]
        whole, parts = tmp_path / "whole", tmp_path / "parts"
        for folder, pieces in ((whole, [events]), (parts, [events[:31], events[31:]])):
            folder.mkdir()
            path = folder / "events.jsonl"
            for piece in pieces:
                before = list(read_events(folder)) if path.exists() else []
                record = JsonlRecord(path, path.stat().st_size if path.exists() else 0)
                telemetry = Telemetry(TelemetryConfig(snapshot_every=4), record, before=before)
                for event in piece:
                    telemetry.emit(event)
                telemetry.close()
        records = [[{**event, "time": 0} for event in read_events(folder)] for folder in (whole, parts)]
        assert records[0] == records[1]
        assert "analytics_snapshot" in recorded(whole)

    def test_an_anomaly_is_said_when_it_begins(self) -> None:
        analytics = Analytics(snapshot_every=1000)
        wild = {3, 4, 9, 30}
        found = [
            event
            for index in range(40)
            for event in analytics.see(to_record(update(index, ratio_max=11.0 if index in wild else 1.2)))
        ]
        # 4 and 9 come back within 10 updates of the one before.
        assert [event.update for event in found] == [3, 30]
        assert isinstance(found[0], AnomalyDetected)
        assert (found[0].kind, found[0].value) == ("ratio_explosion", 11.0)


class TestAnomalies:
    @pytest.mark.parametrize(
        ("calm", "wild", "kind", "value"),
        [
            ({"ratio_max": 10.0}, {"ratio_max": 10.5}, "ratio_explosion", 10.5),
            ({"ratio_min": 0.1}, {"ratio_min": 0.05}, "ratio_explosion", 0.05),
            # A hundredth of the first update's 0.6 is 0.006.
            ({"entropy": 0.007}, {"entropy": 0.005}, "entropy_collapse", 0.005),
            ({"explained_variance": -1.0}, {"explained_variance": -1.5}, "value_collapse", -1.5),
            # Over a hundred times the median of 1.
            ({"value_loss": 99.0}, {"value_loss": 101.0}, "value_loss_spike", 101.0),
        ],
    )
    def test_each_has_its_limit(self, calm: dict[str, Any], wild: dict[str, Any], kind: str, value: float) -> None:
        detector = AnomalyDetector()
        detector.see(to_record(started(total_updates=100)))
        for index in range(50):
            assert detector.see(to_record(update(index))) == []
        assert detector.see(to_record(update(50, **calm))) == []
        (found,) = detector.see(to_record(update(51, **wild)))
        assert (found.kind, found.value) == (kind, value)

    def test_a_value_function_that_has_just_begun_is_not_judged(self) -> None:
        detector = AnomalyDetector()
        detector.see(to_record(started(total_updates=100)))
        assert detector.see(to_record(update(9, explained_variance=-5.0))) == []
        assert detector.see(to_record(update(10, explained_variance=-5.0))) != []

    def test_what_is_not_finite(self) -> None:
        skipped = to_record(SKIPPED)
        (found,) = AnomalyDetector().see(skipped)
        assert (found.kind, found.says) == ("non_finite", "loss nan")
        assert AnomalyDetector().see({**skipped, "non_finite": False}) == []

    def test_the_entropy_of_a_continuous_policy_may_be_negative(self) -> None:
        detector = AnomalyDetector()
        assert detector.see(to_record(update(0, entropy=1.0))) == []
        assert detector.see(to_record(update(1, entropy=-3.0))) == []


def test_lines_are_json_that_everyone_reads(tmp_path: Path) -> None:
    telemetry = stream(tmp_path, "debug")
    telemetry.emit(debug_snapshot())
    telemetry.close()
    (line,) = (tmp_path / "events.jsonl").read_text().splitlines()
    assert json.loads(line, parse_constant=pytest.fail)["minibatch/loss"] == [1.0, None]

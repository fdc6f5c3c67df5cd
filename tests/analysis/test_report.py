"""The page about a run, and what it calls an anomaly."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from esper.analysis.anomalies import summarize_anomalies
from esper.analysis.panels import own_metrics
from esper.analysis.record import read_record
from esper.analysis.runs import load_updates, ratio_quantiles
from esper.analysis.schedules import schedules_of
from esper.scripts.train import main


def update(index: int, **values: float) -> dict[str, Any]:
    return {"event": "update_completed", "update": index, "ratio_max": 1.2, "value_loss": 1.0, **values}


def test_troubles_are_counted_from_where_they_began() -> None:
    found = summarize_anomalies(
        [
            {"event": "run_started", "total_updates": 60},
            *(update(index) for index in range(50)),
            update(50, value_loss=1000.0),
            *(update(index, ratio_max=11.0) for index in (51, 53)),
            {"event": "update_skipped", "update": 54, "cause": "a reward was nan", "non_finite": True},
            {"event": "update_skipped", "update": 54, "cause": "over target_kl", "non_finite": False},
        ]
    )
    assert [(each.kind, each.update, each.updates) for each in found] == [
        *(("value_loss_spike", 50, 1), ("ratio_explosion", 51, 2), ("non_finite", 54, 1))
    ]
    assert found[2].says == "a reward was nan"


def test_quantiles_of_an_update_are_means_over_its_minibatches() -> None:
    events = [{"event": "debug_snapshot", "update": 3, "minibatch/ratio_p95": [1.0, 2.0, None], "minibatch/loss": [1]}]
    found = ratio_quantiles(events, np.array([2, 3]))
    assert list(found) == ["ratio_p95"]
    assert np.isnan(found["ratio_p95"][0])
    assert found["ratio_p95"][1] == 1.5


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run <1>"
    flags = ["--preset", "none", "--num-envs", "2", "--num-steps", "16", "--total-timesteps", "320", "--quiet"]
    flags += ["--no-tensorboard", "--no-picture", "--lr-decay", "cosine", "--run-dir", str(run)]
    assert main(["ppo", "--env", "CartPole-v1", *flags]) == 0
    return run


class TestReport:
    def test_is_one_page_that_needs_nothing_else(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esper.analysis.charts.find_spec", lambda name: None)
        assert main(["report", str(trained), "--output", str(tmp_path / "out")]) == 0
        page = (tmp_path / "out" / "report.html").read_text()
        assert "report.html" in capsys.readouterr().out
        # No address but those of pictures that are in it.
        assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z/]+)', page)) == {"data:image/png"}
        assert page.count("<img") == 4
        assert "completed, 10 of 10 updates, 320 environment steps" in page
        assert "run &lt;1&gt;" in page
        assert "<td>lr_decay</td><td>cosine</td>" in page
        for picture in (tmp_path / "out").glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")

    def test_curves_are_in_it_where_plotly_is_installed(self, trained: Path, tmp_path: Path) -> None:
        pytest.importorskip("plotly")
        assert main(["report", str(trained), "--output", str(tmp_path)]) == 0
        page = (tmp_path / "report.html").read_text()
        assert "<img" not in page
        assert not re.search(r'(?:src|href)="', page)
        panels = [each for data in re.findall(r"json\">(.*?)</script>", page) for each in json.loads(data)]
        assert [panel["title"] for panel in panels[:2]] == ["return (mean, one deviation, range)", "learning rates"]
        # Cosine, of 10 updates: half of the way is 0.5 (1 + cos(pi / 2)).
        rate = panels[1]["traces"][0]
        assert (rate["name"], rate["y"][0], rate["y"][5]) == ("policy", 3e-4, pytest.approx(1.5e-4))
        assert rate["text"] == ["decay"] * 10

    def test_it_begins_with_what_came_out(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines()
        events = [json.loads(line) for line in lines]
        updates = [event for event in events if event["event"] == "update_completed"]
        updates[-1] |= {"episode_return_mean": 321.0, "episodes": 2}
        evaluation = {"event": "evaluation_completed", "update": 9, "env_steps": 320, "time": events[-1]["time"]}
        evaluation |= {
            "eval_return_mean": 123.0,
            "eval_return_std": 1.0,
            "eval_return_min": 1.0,
            "eval_return_max": 9.0,
        }
        evaluation |= {"eval_length_mean": 9.0, "eval_episodes": 10, "eval_seconds": 1.0, "eval_capped": 0}
        (tmp_path / "events.jsonl").write_text("".join(json.dumps(e) + "\n" for e in [*events[:-1], evaluation]))
        assert main(["report", str(tmp_path)]) == 0
        page = (tmp_path / "report" / "report.html").read_text()
        assert "Return 321 over the last 10 % of updates, 123 in the latest evaluation, 123 in the best" in page
        changed, _, others = page.partition("more have their defaults")
        assert "<td>total_timesteps</td><td>320</td>" in changed
        assert "<td>gamma</td><td>0.99</td>" in others
        assert "<td>gamma</td>" not in changed

    def test_schedules_that_change_are_pictures(self, trained: Path) -> None:
        sections = "".join(schedules_of(read_record(trained)))
        assert re.findall(r"<figcaption>(\w+) <span>([^<]+)<", sections) == [
            *(("policy_lr", "cosine from 0.0003 to 0"), ("value_lr", "cosine from 0.0003 to 0"))
        ]
        points = re.findall(r'points="([^"]+)"', sections)[0].split()
        # From the left at the top to the right; 10 updates.
        assert (len(points), points[0], points[-1].partition(",")[0]) == (10, "0,3", "200")
        assert "unchanged: clip_coef 0.2, entropy_coef 0, value_coef 0.5" in sections

    def test_goes_beside_the_run_by_default(self, trained: Path) -> None:
        assert main(["report", str(trained)]) == 0
        assert (trained / "report" / "report.html").exists()

    def test_a_run_that_is_not_done_has_one_too(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines(keepends=True)
        first = next(line for line in lines if "update_completed" in line)
        (tmp_path / "events.jsonl").write_text(lines[0] + first)
        assert main(["report", str(tmp_path)]) == 0
        assert "not finished, 1 of 10 updates" in (tmp_path / "report" / "report.html").read_text()

    def test_a_record_that_is_cut_in_a_line_is_reported_up_to_there(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines(keepends=True)
        updates = [number for number, line in enumerate(lines) if "update_completed" in line]
        cut = updates[4]
        (tmp_path / "events.jsonl").write_text("".join([*lines[:cut], lines[cut][:50] + "\n", *lines[cut + 1 :]]))
        assert main(["report", str(tmp_path)]) == 0
        page = (tmp_path / "report" / "report.html").read_text()
        assert "not finished, 4 of 10 updates" in page
        assert f"the record is cut: line {cut + 1} is not JSON" in page

    def test_columns_are_those_of_the_record(self, trained: Path) -> None:
        found, wanted = read_record(trained).updates, load_updates(trained)
        assert set(found) == set(wanted) - {"event"}
        for name in found:
            assert found[name].tolist() == pytest.approx(wanted[name].tolist(), nan_ok=True), name

    def test_a_long_record_is_read_in_batches(self, trained: Path, tmp_path: Path) -> None:
        """Numbers that come and go, an anomaly in the middle of a batch, one at its end."""
        lines = (trained / "events.jsonl").read_text().splitlines()
        update = json.loads(next(line for line in lines if "update_completed" in line))
        update |= {"value_loss": 1.0, "ratio_max": 1.1, "ratio_min": 0.9}
        long = [{**update, "update": n, "env_steps": n + 1} for n in range(2000)]
        long[700]["ratio_max"] = 20.0
        long[1200]["value_loss"] = 101.0
        for n in range(1500, 1700):
            del long[n]["loss"]
        long[1999]["user/late"] = 3.0
        (tmp_path / "events.jsonl").write_text("\n".join([lines[0], *map(json.dumps, long)]) + "\n")
        record = read_record(tmp_path)
        assert [(each.kind, each.update, each.updates) for each in record.anomalies] == [
            *(("ratio_explosion", 700, 1), ("value_loss_spike", 1200, 1))
        ]
        assert record.updates["update"].tolist() == list(range(2000))
        assert np.flatnonzero(np.isnan(record.updates["loss"])).tolist() == list(range(1500, 1700))
        assert np.flatnonzero(record.updates["user/late"] == 3.0).tolist() == [1999]
        assert record.updates["lr_phase/policy"].tolist() == [update["lr_phase/policy"]] * 2000

    def test_a_wrong_number_in_a_long_record_is_named_by_its_line(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """Among statistics, which the report does not read."""
        lines = (trained / "events.jsonl").read_text().splitlines()
        update = json.loads(next(line for line in lines if "update_completed" in line))
        snapshot = json.dumps({"event": "analytics_snapshot", "mean/loss": 1.0}, separators=(",", ":"))
        long = [json.dumps({**update, "update": n}, separators=(",", ":")) for n in range(1000)]
        long[500] = long[500].replace(f'"loss":{update["loss"]}', '"loss":"low"')
        # Line 1 is the start; of update 500 it is line 502, after 50 of statistics.
        mixed = [line for n, line in enumerate(long) for line in ([snapshot, line] if n % 10 == 9 else [line])]
        (tmp_path / "events.jsonl").write_text("\n".join([lines[0], *mixed]) + "\n")
        with pytest.raises(SystemExit, match="2"):
            main(["report", str(tmp_path)])
        assert "line 552: its loss is 'low', not a number" in capsys.readouterr().err

    def test_a_single_update_is_seen(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines(keepends=True)
        first = next(line for line in lines if "update_completed" in line)
        (tmp_path / "events.jsonl").write_text(lines[0] + first)
        assert main(["report", str(tmp_path)]) == 0
        for picture in (tmp_path / "report").glob("*.png"):
            pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
            # Three panels, each with a line, are a thousand pixels and more; legends alone are a hundred.
            assert ((pixels[..., 2] - pixels[..., 0]) > 100).sum() > 1_000, picture.name

    def test_metrics_from_python_have_a_panel_each(self, trained: Path, tmp_path: Path) -> None:
        def record(metrics: Sequence[str]) -> bytes | None:
            run = tmp_path / f"{len(metrics)} metrics"
            run.mkdir()
            numbers = "".join(f',"{name}":1.5' for name in metrics)
            text = (trained / "events.jsonl").read_text()
            # Only the third update has them.
            (run / "events.jsonl").write_text(re.sub(r'("update":2,.*"clip_coef":[0-9.]+)', rf"\1{numbers}", text))
            assert main(["report", str(run)]) == 0
            assert ("Your metrics" in (run / "report" / "report.html").read_text()) == bool(metrics)
            pictures = {path.name for path in (run / "report").glob("*.png")} - {"learning.png", "value.png"}
            assert pictures == {"policy.png", "ratio.png"} | ({"own-1.png"} if metrics else set())
            return (run / "report" / "own-1.png").read_bytes() if metrics else None

        def blue(png: bytes | None) -> int:
            assert png is not None
            pixels = np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)
            return int(((pixels[..., 2] - pixels[..., 0]) > 100).sum())

        assert record([]) is None
        one = blue(record(["user/$cost"]))
        # A single value is a dot.
        assert one > 20
        assert blue(record(["user/$cost", "loss_term/decay"])) >= 1.5 * one

    def test_metrics_after_the_update_have_a_picture(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        flags = ["--preset", "none", "--num-envs", "2", "--num-steps", "16", "--quiet", "--no-tensorboard"]
        run = ["--metrics-after", "--total-timesteps", "96", "--no-picture", "--run-dir", str(tmp_path / "run")]
        assert main(["ppo", "--env", "CartPole-v1", *flags, *run]) == 0
        # A resume may do without.
        again = ["--resume", str(tmp_path / "run"), "--no-metrics-after", "--total-timesteps", "160", "--quiet"]
        assert main(["ppo", *again]) == 0
        assert main(["report", str(tmp_path / "run")]) == 0
        page = (tmp_path / "run" / "report" / "report.html").read_text()
        assert "<h2>After the update</h2>" in page
        picture = Image.open(tmp_path / "run" / "report" / "after.png").convert("RGB")
        pixels = np.asarray(picture).astype(int)
        assert ((pixels[..., 2] - pixels[..., 0]) > 100).sum() > 500

    def test_many_metrics_have_several_pictures(self) -> None:
        updates = {"update": np.arange(3), **{f"user/{n}": np.ones(3) for n in range(50)}}
        assert [(name, len(part)) for name, (_, part) in own_metrics(updates).items()] == [("own-1", 48), ("own-2", 2)]

    def test_anomalies_are_numbered_as_in_the_pictures(self, trained: Path, tmp_path: Path) -> None:
        text = (trained / "events.jsonl").read_text()
        ratios = re.sub(r'"ratio_max":[0-9.]+', '"ratio_max":20.0', text)
        (tmp_path / "events.jsonl").write_text(
            re.sub(r'"entropy":[0-9.]+', '"entropy":0.0', ratios).replace('"entropy":0.0', '"entropy":0.6', 1)
        )
        assert main(["report", str(tmp_path)]) == 0
        page = (tmp_path / "report" / "report.html").read_text()
        assert "<td>1. ratio_explosion</td><td>from update 0, in 10" in page
        assert "<td>2. entropy_collapse</td><td>from update 1, in 9" in page

    @pytest.mark.parametrize(
        ("record", "message"),
        [
            (None, "cannot be read"),
            ("", "events.jsonl is empty"),
            ("{\n", "line 1 is not JSON"),
            ('{"event": "run_started", "schema": 3, "config": {"env": "X"}}\n{\n', "line 2 is not JSON"),
            ('{"event": "run_sta', "events.jsonl is cut within its first line"),
            ('{"event": "x"}\n', "not begin"),
            ('{"event": "run_started"}\n', "its run_started has schema 1; schemas 2 and 3 are read"),
            (
                '{"event": "run_started", "schema": 2}\n{"event": "run_resumed", "schema": 4}\n',
                "run_resumed has schema 4",
            ),
            (
                '{"event": "run_started", "schema": 2}\n{"event": "update_completed", "update": 0, "entropy": "low"}\n',
                "line 2: its entropy is 'low', not a number",
            ),
        ],
    )
    def test_nothing_to_report(
        self, tmp_path: Path, record: str | None, message: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        if record is not None:
            (tmp_path / "events.jsonl").write_text(record)
        with pytest.raises(SystemExit) as stop:
            main(["report", str(tmp_path)])
        assert stop.value.code == 2
        assert message in capsys.readouterr().err


class TestTables:
    def test_csv_has_a_row_for_each_update(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["report", str(trained), "--csv", str(tmp_path / "a.csv")]) == 0
        assert (
            capsys.readouterr().out
            == f"csv      {tmp_path / 'a.csv'}: 10 updates, {len(load_updates(trained))} columns\n"
        )
        with (tmp_path / "a.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        expected = load_updates(trained)
        assert list(rows[0]) == list(expected)
        assert [row["update"] for row in rows] == [str(index) for index in range(10)]
        assert [float(row["lr/policy"]) for row in rows] == expected["lr/policy"].tolist()
        missing = next(name for name in expected if np.isnan(_floats(expected[name])).any())
        assert [row[missing] == "" for row in rows] == np.isnan(_floats(expected[missing])).tolist()
        assert rows[0]["lr_phase/policy"] == "decay"

    def test_a_page_is_written_where_it_is_asked_for(self, trained: Path, tmp_path: Path) -> None:
        assert main(["report", str(trained), "--csv", str(tmp_path / "a.csv"), "--output", str(tmp_path / "page")]) == 0
        assert (tmp_path / "page" / "report.html").exists()

    def test_data_frames_take_updates_as_they_are(self, trained: Path) -> None:
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(load_updates(str(trained)))
        assert frame["update"].tolist() == list(range(10))
        assert frame["lr_phase/policy"].tolist() == ["decay"] * 10

    def test_parquet_has_the_same_with_nulls(self, trained: Path, tmp_path: Path) -> None:
        parquet = pytest.importorskip("pyarrow.parquet")
        assert main(["report", str(trained), "--parquet", str(tmp_path / "a.parquet")]) == 0
        found, expected = parquet.read_table(tmp_path / "a.parquet").to_pydict(), load_updates(trained)
        assert list(found) == list(expected)
        assert found["lr_phase/policy"] == ["decay"] * 10
        for name in ("update", "lr/policy", "episode_return_mean"):
            assert found[name] == [None if value != value else value for value in expected[name].tolist()]

    def test_parquet_without_its_library(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("esper.analysis.tables.find_spec", lambda name: None)
        with pytest.raises(SystemExit, match="2"):
            main(["report", str(trained), "--parquet", str(tmp_path / "a.parquet")])
        assert capsys.readouterr().err.endswith("a.parquet: needs pyarrow: pip install 'esper-simic[parquet]'\n")

    def test_a_file_that_cannot_be_written(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit, match="2"):
            main(["report", str(trained), "--csv", str(tmp_path)])
        assert f"--csv {tmp_path}: cannot be written: " in capsys.readouterr().err


def _floats(column: Any) -> Any:
    return column if column.dtype.kind == "f" else np.zeros(len(column))

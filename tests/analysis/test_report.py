"""The page about a run, and what it calls an anomaly."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from esper.analysis.anomalies import find_anomalies
from esper.scripts.train import main

STEADY: dict[str, Any] = {
    "update": np.arange(100),
    "ratio_min": np.full(100, 0.8),
    "ratio_max": np.full(100, 1.3),
    "entropy": np.linspace(0.69, 0.3, 100),
    "explained_variance": np.linspace(-0.9, 0.9, 100),
    "value_loss": np.linspace(10.0, 1.0, 100),
}


def kinds(**changes: Any) -> list[tuple[str, int, int]]:
    return [(a.kind, a.update, a.updates) for a in find_anomalies(STEADY | changes)]


def changed(name: str, **values: float) -> dict[str, Any]:
    column = STEADY[name].copy()
    for index, value in values.items():
        column[int(index[1:])] = value
    return {name: column}


class TestAnomalies:
    def test_a_steady_run_has_none(self) -> None:
        assert kinds() == []

    @pytest.mark.parametrize(
        ("change", "anomaly"),
        [
            (changed("ratio_max", _20=11.0, _30=50.0), ("ratio explosion", 20, 2)),
            (changed("ratio_min", _20=0.05), ("ratio explosion", 20, 1)),
            (changed("entropy", _90=0.0, _91=0.001), ("entropy collapse", 90, 2)),
            (changed("value_loss", _70=1000.0), ("value loss spike", 70, 1)),
            (changed("explained_variance", _80=-2.0), ("value collapse", 80, 1)),
        ],
    )
    def test_each_kind(self, change: dict[str, Any], anomaly: tuple[str, int, int]) -> None:
        assert kinds(**change) == [anomaly]

    def test_a_value_function_may_begin_badly(self) -> None:
        assert kinds(explained_variance=np.where(np.arange(100) < 10, -9.0, 0.5)) == []

    def test_the_entropy_of_a_continuous_policy_may_be_negative(self) -> None:
        assert kinds(entropy=np.linspace(1.0, -3.0, 100)) == []

    def test_skipped_updates_are_one_too(self) -> None:
        (anomaly,) = find_anomalies({}, [{"update": 7, "cause": "a reward was nan"}, {"update": 7, "cause": "again"}])
        assert (anomaly.kind, anomaly.update, anomaly.updates, anomaly.says) == ("skipped", 7, 2, "a reward was nan")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "run <1>"
    flags = ["--preset", "none", "--num-envs", "2", "--num-steps", "16", "--total-timesteps", "320", "--quiet"]
    flags += ["--no-tensorboard", "--lr-decay", "cosine", "--run-dir", str(run)]
    assert main(["ppo", "--env", "CartPole-v1", *flags]) == 0
    return run


class TestReport:
    def test_is_one_page_that_needs_nothing_else(
        self, trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert main(["report", str(trained), "--output", str(tmp_path / "out")]) == 0
        page = (tmp_path / "out" / "report.html").read_text()
        assert "report.html" in capsys.readouterr().out
        # No address but those of pictures that are in it.
        assert set(re.findall(r'(?:src|href)="([a-z]+:[a-z/]+)', page)) == {"data:image/png"}
        assert page.count("<img") == 4
        assert "completed, 10 of 10 updates, 320 environment steps" in page
        assert "run &lt;1&gt;" in page
        assert "<td>policy_lr_decay</td><td>cosine</td>" in page
        for picture in (tmp_path / "out").glob("*.png"):
            assert picture.read_bytes().startswith(b"\x89PNG")

    def test_goes_beside_the_run_by_default(self, trained: Path) -> None:
        assert main(["report", str(trained)]) == 0
        assert (trained / "report" / "report.html").exists()

    def test_a_run_that_is_not_done_has_one_too(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines(keepends=True)
        first = next(line for line in lines if "update_completed" in line)
        (tmp_path / "events.jsonl").write_text(lines[0] + first)
        assert main(["report", str(tmp_path)]) == 0
        assert "not finished, 1 of 10 updates" in (tmp_path / "report" / "report.html").read_text()

    def test_a_single_update_is_seen(self, trained: Path, tmp_path: Path) -> None:
        lines = (trained / "events.jsonl").read_text().splitlines(keepends=True)
        first = next(line for line in lines if "update_completed" in line)
        (tmp_path / "events.jsonl").write_text(lines[0] + first)
        assert main(["report", str(tmp_path)]) == 0
        for picture in (tmp_path / "report").glob("*.png"):
            pixels = np.asarray(Image.open(picture).convert("RGB")).astype(int)
            # Three panels, each with a line, are a thousand pixels and more; legends alone are a hundred.
            assert ((pixels[..., 2] - pixels[..., 0]) > 100).sum() > 1_000, picture.name

    def test_anomalies_are_numbered_as_in_the_pictures(self, trained: Path, tmp_path: Path) -> None:
        text = (trained / "events.jsonl").read_text()
        ratios = re.sub(r'"ratio_max": [0-9.]+', '"ratio_max": 20.0', text)
        (tmp_path / "events.jsonl").write_text(
            re.sub(r'"entropy": [0-9.]+', '"entropy": 0.0', ratios).replace('"entropy": 0.0', '"entropy": 0.6', 1)
        )
        assert main(["report", str(tmp_path)]) == 0
        page = (tmp_path / "report" / "report.html").read_text()
        assert "<td>1. ratio explosion</td><td>from update 0, in 10" in page
        assert "<td>2. entropy collapse</td><td>from update 1, in 9" in page

    @pytest.mark.parametrize(
        ("record", "message"),
        [(None, "cannot be read"), ("", "does not begin"), ("{", "cannot be read"), ('{"event": "x"}\n', "not begin")],
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

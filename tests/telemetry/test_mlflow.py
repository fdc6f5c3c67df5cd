"""MLflow with a database, a file for each run or one for all. Needs the extra `mlflow`."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from esper.analysis.runs import read_events
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import resume_run, run
from esper.settings.options import ConfigError
from esper.telemetry import writers
from esper.telemetry.config import TelemetryConfig

# SQLAlchemy 2.1 warns of what MLflow's tables use.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)


def train(run_dir: Path, **settings: Any) -> list[dict[str, Any]]:
    values = {
        "env": "torch/CartPole-v1",
        "total_timesteps": 4096,
        "threads": 1,
        "run_dir": str(run_dir),
        "tensorboard": False,
        "picture": False,
        "quiet": True,
        "mlflow": "esper-tests",
        **settings,
    }
    run(resolve([Layer(source="test", values=values)]).config)
    return list(read_events(run_dir))


def logged(uri: str, experiment: str = "esper-tests") -> tuple[Any, list[Any]]:
    """A client of the database at `uri`, and the runs of `experiment` in it."""
    from mlflow import MlflowClient

    client = MlflowClient(uri)
    return client, client.search_runs([client.get_experiment_by_name(experiment).experiment_id])


def of(events: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == name]


def test_a_run_is_written(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    events = train(tmp_path / "run", snapshot_every=2)
    assert not of(events, "sink_failed")
    client, (found,) = logged(f"sqlite:///{tmp_path}/run/mlflow/mlflow.db")
    assert (found.info.run_name, found.info.status, found.data.tags["status"]) == ("run", "FINISHED", "completed")
    params = found.data.params
    assert (params["env"], params["total_timesteps"], params["policy_lr"]) == ("torch/CartPole-v1", "4096", "0.0003")
    assert len(params) == len(events[0]["config"])
    for name in ("value_loss", "lr/policy"):
        points = client.get_metric_history(found.info.run_id, name)
        assert [(point.step, point.value) for point in points] == [
            (event["env_steps"], event[name]) for event in of(events, "update_completed")
        ]
    assert [point.step for point in client.get_metric_history(found.info.run_id, "mean/value_loss")] == [2048, 4096]
    assert "env_steps" not in found.data.metrics


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("store", ["sqlite:///{}/all.db", "file://{}/all"])
def test_a_resumed_run_is_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: str) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := store.format(tmp_path))
    train(tmp_path / "other")
    train(tmp_path / "run", total_timesteps=2048)
    resume_run(tmp_path / "run", [Layer(source="test", values={"total_timesteps": 4096})], mode="extend")
    assert not of(list(read_events(tmp_path / "run")), "sink_failed")
    assert not (tmp_path / "run" / "mlflow").exists()
    client, runs = logged(uri)
    assert sorted(each.info.run_name for each in runs) == ["other", "run"]
    (resumed,) = (each for each in runs if each.info.run_name == "run")
    assert resumed.info.status == "FINISHED"
    assert (resumed.data.params["total_timesteps"], resumed.data.tags["changed/total_timesteps"]) == ("2048", "4096")
    steps = [point.step for point in client.get_metric_history(resumed.info.run_id, "value_loss")]
    assert steps == [1024, 2048, 3072, 4096]


def test_what_was_written_after_the_last_checkpoint_is_not_written_again(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    train(tmp_path / "run", checkpoint_every=1, keep_checkpoints=9, eval_every=2, eval_episodes=1)
    for newer in ("00000003", "00000004"):
        shutil.rmtree(tmp_path / "run" / "checkpoints" / newer)
    resume_run(tmp_path / "run")
    client, (found,) = logged(f"sqlite:///{tmp_path}/run/mlflow/mlflow.db")
    for name, steps in (("value_loss", [1024, 2048, 3072, 4096]), ("eval_return_mean", [2048, 4096])):
        assert [point.step for point in client.get_metric_history(found.info.run_id, name)] == steps


def test_a_run_that_begins_anew_in_its_folder_is_another_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri := f"sqlite:///{tmp_path}/all.db")
    train(tmp_path / "run", seed=1)
    (tmp_path / "run").rename(tmp_path / "gone")
    train(tmp_path / "run", seed=2)
    _, runs = logged(uri)
    assert sorted(each.data.params["seed"] for each in runs) == ["1", "2"]


def test_what_went_wrong_is_a_tag(tmp_path: Path) -> None:
    """At a rate of 1e-9 nothing is learned, and the diagnosis says so."""
    pytest.importorskip("mlflow")
    events = train(tmp_path / "run", lr=1e-9, total_timesteps=40_960)
    (stalled,) = of(events, "learning_stalled")
    _, (found,) = logged(f"sqlite:///{tmp_path}/run/mlflow/mlflow.db")
    assert found.data.tags["diagnosis"] == stalled["says"]


def test_a_path_that_mlflow_would_cut(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    (failed,) = of(train(tmp_path / "which?one"), "sink_failed")
    assert "MLflow takes no ? in a path" in failed["cause"]
    assert [path.name for path in tmp_path.iterdir()] == ["which?one"]


@pytest.mark.parametrize("folder", ["mlflow", "wandb"])
def test_a_run_that_was_killed_before_its_first_checkpoint_begins_anew(tmp_path: Path, folder: str) -> None:
    (tmp_path / "run" / folder).mkdir(parents=True)
    (tmp_path / "run" / ".lock").touch()
    assert train(tmp_path / "run", mlflow=None)[-1]["status"] == "completed"


def test_a_server_that_refuses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    # MLflow tries for minutes by itself. Nothing listens at port 9.
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    events = train(tmp_path / "run")
    (failed,) = of(events, "sink_failed")
    assert failed["sink"] == "MlflowSink"
    assert "127.0.0.1" in failed["cause"]
    assert events[-1]["status"] == "completed"


def test_a_database_that_is_a_link(tmp_path: Path) -> None:
    pytest.importorskip("mlflow")
    from esper.telemetry.events import RunResumed
    from esper.telemetry.mlflow import MlflowSink

    (tmp_path / "run" / "mlflow").mkdir(parents=True)
    (tmp_path / "run" / "mlflow" / "mlflow.db").symlink_to(tmp_path / "outside.db")
    with pytest.raises(OSError, match="is a link"):
        MlflowSink("x", tmp_path / "run").emit(RunResumed.__new__(RunResumed))
    assert not (tmp_path / "outside.db").exists()


def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writers, "find_spec", lambda name: None)
    config = RunConfig(run_dir=str(tmp_path / "run"), telemetry=TelemetryConfig(mlflow="x"))
    with pytest.raises(ConfigError, match=r"needs mlflow: pip install 'esper-simic\[mlflow\]'"):
        run(config)
    assert not (tmp_path / "run").exists()

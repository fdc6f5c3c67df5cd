"""The schema in the docs is that of the events, and real records keep to it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from esper.analysis.runs import read_events
from esper.runs.config import RunConfig
from esper.runs.layers import Layer, resolve
from esper.runs.run import resume_run, run
from esper.runs.versions import versions
from esper.telemetry.schema import json_schema

DOCUMENT = Path(__file__).parents[2] / "docs" / "events.schema.json"
SMALL = {
    "env": "torch/CartPole-v1",
    "total_timesteps": 8 * 1024,
    "preset": None,
    "threads": 1,
    "tensorboard": False,
    "picture": False,
    "quiet": True,
    "eval_every": 4,
    "eval_episodes": 2,
}


def config(run_dir: Path, **settings: Any) -> RunConfig:
    values = {**SMALL, "run_dir": str(run_dir), "snapshot_every": 3, **settings}
    del values["preset"]
    return resolve([Layer(source="test", values=values)]).config


class TestRecords:
    def test_of_a_run_that_was_stopped_and_went_on(self, tmp_path: Path) -> None:
        def stop(event: Any) -> None:
            if type(event).__name__ == "UpdateCompleted" and event.update == 4:
                raise KeyboardInterrupt

        class Stopper:
            emit = staticmethod(stop)

            def close(self) -> None: ...

        run_dir = tmp_path / "run"
        with pytest.raises(KeyboardInterrupt):
            run(config(run_dir, telemetry="debug", checkpoint_every=2), [Stopper()])
        # Its writer is of this process, and still at it.
        deadline = time.monotonic() + 60
        while not (run_dir / "checkpoints" / "00000004").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        values = {"telemetry": "debug", "tensorboard": False, "picture": False, "quiet": True}
        resume_run(run_dir, [Layer(source="test", values=values)])
        validator = jsonschema.Draft202012Validator(json.loads(DOCUMENT.read_text()))
        events = list(read_events(run_dir))
        for event in events:
            # Of one schema in turn, as an error of oneOf says nothing.
            (schema,) = [each for each in validator.schema["oneOf"] if each["title"] == event["event"]]
            jsonschema.validate(event, schema)
        assert {event["event"] for event in events} == {
            *("run_started", "run_resumed", "update_completed", "analytics_snapshot", "debug_snapshot"),
            *("evaluation_completed", "checkpoint_saved", "run_finished"),
        }

    def test_a_field_that_is_not_declared_is_an_error(self) -> None:
        validator = jsonschema.Draft202012Validator(json_schema())
        line = {"event": "sink_failed", "time": 1.0, "sink": "X", "cause": "y"}
        assert validator.is_valid(line)
        assert not validator.is_valid(line | {"more": 1})
        assert not validator.is_valid({"event": "sink_failed", "time": 1.0, "sink": "X"})
        assert not validator.is_valid(line | {"sink": 3})

    def test_the_beginning_says_what_made_it(self, tmp_path: Path) -> None:
        run(config(tmp_path / "run"))
        first = next(read_events(tmp_path / "run"))
        kernels = first["versions"].pop("kernels")
        assert kernels.startswith("native-")
        assert first["versions"] == versions()
        assert {"esper", "torch", "python"} <= set(first["versions"])
        assert first["schema"] == 3
        assert first["telemetry"] == "normal"


def test_levels_change_nothing_that_is_learned(tmp_path: Path) -> None:
    policies = set()
    for level in ("off", "debug"):
        run(config(tmp_path / level, telemetry=level, eval_every=3 if level == "debug" else None))
        policies.add((tmp_path / level / "policy.safetensors").read_bytes())
    assert len(policies) == 1


def test_evaluations_come_from_the_same_starts_each_time(tmp_path: Path) -> None:
    """At a rate that changes nothing, every evaluation is the same."""
    run(config(tmp_path / "run", lr=1e-12))
    found = [event for event in read_events(tmp_path / "run") if event["event"] == "evaluation_completed"]
    assert [event["update"] for event in found] == [3, 7]
    assert found[0]["eval_return_mean"] == found[1]["eval_return_mean"]
    assert [event["eval_episodes"] for event in found] == [2, 2]

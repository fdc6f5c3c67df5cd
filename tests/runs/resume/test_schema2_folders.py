"""Run folders of the last version before the sources were moved: every command reads them, and resume is exact.

`write_schema2.py` has written them, and says how.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import write_schema2
from write_schema2 import KEPT, RUNS, SWEEP

from esper.analysis.runs import read_events
from esper.policies.policy import load_policy
from esper.runs.checkpoint.folder import load_checkpoint
from esper.runs.layers import recorded_layer
from esper.scripts.train import main

OLD = Path(__file__).parent / "schema2"
NAMES = tuple(KEPT)
ARMS = ("constant", "cosine")


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(OLD, tmp_path / "schema2"))


def expected(name: str) -> Any:
    return json.loads((OLD / f"{name}.json").read_text())


def differing(then: Any, now: Any, path: str = "") -> Iterator[str]:
    """What was there then, and is not now, or is not the same; there may be more now."""
    if isinstance(then, Mapping) and isinstance(now, Mapping):
        for name in then:
            if name in now:
                yield from differing(then[name], now[name], f"{path}/{name}".strip("/"))
            else:
                yield f"{path}/{name}: is gone"
    elif isinstance(then, torch.Tensor) and isinstance(now, torch.Tensor):
        if then.dtype != now.dtype or not then.equal(now):
            yield path
    elif isinstance(then, float) or (isinstance(then, list) and then and isinstance(then[0], float)):
        if now != pytest.approx(then, rel=1e-6):
            yield f"{path}: {then}, now {now}"
    elif then != now:
        yield f"{path}: {then}, now {now}"


def said(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    capsys.readouterr()
    assert main(arguments) == 0
    return capsys.readouterr().out


def checkpoint(run: Path, updates: int) -> dict[str, Any]:
    return load_checkpoint(run / "checkpoints" / f"{updates:08}")


def rates(run: Path) -> list[dict[str, float]]:
    """Learning rates of each update."""
    updates = [event for event in read_events(run) if event["event"] == "update_completed"]
    return [{name: value for name, value in event.items() if name.startswith("lr/")} for event in updates]


@pytest.mark.parametrize("name", NAMES)
class TestRun:
    def test_is_reported(self, name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said(["report", str(old / name)], capsys)
        page = (old / name / "report" / "report.html").read_text()
        total = 9 if name == "tensors" else 6
        assert f"completed, {total} of {total} updates, {16 * total} environment steps" in page
        assert ("<h2>Resumed</h2>" in page) == (name == "tensors")

    def test_is_inspected(self, name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        facts = json.loads(said(["checkpoint", "inspect", str(old / name), "--json"], capsys))
        assert list(differing(expected(name)["inspect"], facts)) == []

    def test_is_evaluated(self, name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        scores = json.loads(said(["evaluate", str(old / name), "--episodes", "3", "--trust", "--json"], capsys))
        assert list(differing(expected(name)["evaluate"], scores)) == []

    def test_is_exported(self, name: str, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        said(["export", str(old / name), "--trust"], capsys)
        policy = load_policy(old / name, trust=True)
        program = torch.export.load(old / name / "policy.pt2")
        (observations,), more = program.example_inputs
        actions = program.module()(observations, **more)
        masks = more.get("masks")
        if (memory := more.get("memory")) is None:
            assert actions.equal(policy.network.act(observations, masks=masks))
        else:
            assert actions[0].equal(policy.network.act(observations, masks=masks, recurrent_state=memory))
            assert actions[1].equal(memory)

    def test_goes_on_from_the_state_that_is_stored(self, name: str, old: Path, tmp_path: Path) -> None:
        """From its checkpoint to the end, at once and with a stop: the ends are the same to the last bit."""
        stored, kept = checkpoint(old / name, KEPT[name]), KEPT[name]
        again, stopped = tmp_path / "again", tmp_path / "stopped"
        for source, run in (
            (old / name / "checkpoints" / f"{kept:08}", again),
            (again / "checkpoints" / f"{kept + 1:08}", stopped),
        ):
            assert main(["ppo", "--resume", str(source), "--run-dir", str(run), "--trust", "--quiet"]) == 0
        # The first thing that the run writes is the state it was given.
        found = checkpoint(again, kept)
        for tree in (stored, found):
            del tree["versions"], tree["events_bytes"]
        # Older names of settings are today's.
        stored["config"] = dict(recorded_layer(stored["config"], "stored").values)
        if "env" in (copies := (found["training"]["environment"] or {}).get("copies", {})):
            # Generators that nobody gave the environment stand beside it now.
            found["training"]["environment"]["copies"] = copies["env"]
        assert list(differing(stored, found)) == []
        resumed = next(event for event in read_events(again) if event["event"] == "run_resumed")
        assert (resumed["update"], resumed["exact_resume"], resumed["lr"]) == (kept, True, resumed["lr_before"])
        ends = [load_policy(run, trust=True).network.state_dict() for run in (again, stopped, old / name)]
        assert list(differing(ends[0], ends[1])) == []
        for tensor_name, tensor in ends[2].items():
            # Written by another processor, perhaps.
            torch.testing.assert_close(ends[0][tensor_name], tensor, rtol=1e-4, atol=1e-5)

    def test_is_what_the_same_commands_train_now(self, name: str, old: Path, tmp_path: Path) -> None:
        anew = tmp_path / "anew"
        write_schema2.train(name, anew)
        states = [checkpoint(run, KEPT[name])["training"]["agent"]["network"] for run in (anew, old / name)]
        for tensor_name, tensor in states[1].items():
            torch.testing.assert_close(states[0][tensor_name], tensor, rtol=1e-4, atol=1e-5)
        assert rates(anew) == rates(old / name)


class TestSweep:
    # Actions were never scaled then.
    AGAIN = ("sweep", *SWEEP, "--scale-actions", "off")

    def test_is_compared(self, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        arms = [str(old / "sweep" / "CartPole-v1" / arm) for arm in ARMS]
        then, now = expected("sweep"), json.loads(said(["compare", *arms, "--json"], capsys))
        # Too few seeds are said once now, of all arms, and not of pairs again.
        then["notes"] = ["constant, cosine: too few seeds to tell arms apart (2); have 5 or more"]
        assert list(differing(then, now)) == []

    def test_is_known_to_be_complete(self, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        records = {path: path.read_bytes() for path in old.rglob("events.jsonl")}
        assert "4 of 4 runs are complete" in said([*self.AGAIN, "--output", str(old / "sweep")], capsys)
        assert {path: path.read_bytes() for path in records} == records

    def test_was_at_the_default_of_a_newer_setting(self, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for path in old.rglob("seed-1/config.json"):
            settings = json.loads(path.read_text())
            del settings["adam_eps"]
            path.write_text(json.dumps(settings))
        assert "4 of 4 runs are complete" in said([*self.AGAIN, "--output", str(old / "sweep")], capsys)
        with pytest.raises(SystemExit):
            main([*self.AGAIN, "--adam-eps", "1e-3", "--output", str(old / "sweep")])
        assert "with other settings: adam_eps 1e-05, now 0.001" in capsys.readouterr().err

    def test_its_policies_are_evaluated(self, old: Path, capsys: pytest.CaptureFixture[str]) -> None:
        for arm in ARMS:
            run = old / "sweep" / "CartPole-v1" / arm / "seed-2"
            assert json.loads(said(["evaluate", str(run), "--episodes", "2", "--json"], capsys))["episodes"] == 2


def test_each_folder_has_what_a_run_leaves() -> None:
    for name in RUNS:
        files = {path.name for path in (OLD / name).iterdir()}
        assert files >= {"config.json", "events.jsonl", "policy.json", "policy.safetensors", "checkpoints"}

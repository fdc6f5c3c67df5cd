"""Runs on machines that do not see the sweep's folder end as those that do, and are brought back."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest
from test_sweep import make, updates

from esper.analysis.runs import read_events
from esper.storage.carrying import read_folder, write_folder
from esper.sweep import away
from esper.sweep.address import find_cluster
from esper.sweep.away import Contents, bring_back, do_away, sees, to_send
from esper.sweep.progress import progress_of


def test_a_run_goes_on_from_what_came_back_before_its_machine_was_lost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(away, "_SECONDS_BETWEEN_CHECKPOINTS", 0.05)
    job = make(tmp_path / "sweep", total_timesteps=200_000, checkpoint_every=1)[0]
    letters: list[Contents] = []
    assert do_away(job, {}, letters.append).status == "completed"
    assert len(letters) > 4
    assert not job.run_dir.exists()
    # The last letter is of the whole run; those before are of checkpoints.
    bring_back(job, letters[len(letters) // 2 - 1])
    assert 0 < progress_of(job).fraction < 1
    again: list[Contents] = []
    assert do_away(job, to_send(job), again.append).status == "completed"
    bring_back(job, again[-1])
    assert progress_of(job).status == "completed"
    assert [event["event"] for event in read_events(job.run_dir)].count("run_resumed") == 1
    (same,) = [each for each in make(tmp_path / "alone", total_timesteps=200_000) if each.arm == job.arm]
    assert do_away(same, {}, lambda contents: bring_back(same, contents)).status == "completed"
    assert updates(job.run_dir) == updates(same.run_dir)
    assert {path.name for path in (job.run_dir / "checkpoints").iterdir()} == {
        Path(name).parts[1] for name in again[-1] if name.startswith("checkpoints/")
    }


def test_a_token_is_seen_where_the_folder_is_the_same(tmp_path: Path) -> None:
    assert not sees(tmp_path / ".seen-1")
    (tmp_path / ".seen-1").touch()
    assert sees(tmp_path / ".seen-1")


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "a/../../outside"])
def test_names_that_lead_out_of_the_folder(tmp_path: Path, name: str) -> None:
    (tmp_path / "run").mkdir()
    with pytest.raises(ValueError, match="is not a name in"):
        write_folder(tmp_path / "run", {name: b"x"})
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_a_folder_is_the_same_elsewhere(tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    contents = {"a": b"1", "checkpoints/00000002/manifest.json": b"2", "checkpoints/00000002/state": b"3"}
    for folder in (here, there):
        folder.mkdir()
    write_folder(here, {**contents, "checkpoints/00000001/state": b"0"})
    (here / ".lock").touch()
    write_folder(here, contents, replaced="checkpoints")
    write_folder(there, read_folder(here, last="a"))
    assert read_folder(there) == contents
    assert list(read_folder(here, last="a"))[-1] == "a"
    assert read_folder(here, without=("checkpoints",)) == {"a": b"1"}


class TestAddress:
    def test_nothing_listens(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            began = time.monotonic()
            for address in (f"127.0.0.1:{taken.getsockname()[1]}", f"ray://127.0.0.1:{taken.getsockname()[1]}"):
                with pytest.raises(ConnectionError, match="nothing answers there: Connection refused"):
                    find_cluster(address)
            assert time.monotonic() - began < 10

    @pytest.mark.parametrize("address", ["nowhere", "127.0.0.1:http", "127.0.0.1:99999", "ray://head"])
    def test_no_address(self, address: str) -> None:
        with pytest.raises(ConnectionError, match="must be auto, local, host:port or ray://host:port"):
            find_cluster(address)

    def test_ray_here_listens_on_this_machine_only(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("RAY_ADDRESS", raising=False)
        monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
        assert find_cluster(None) == "local"
        assert os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] == "0"

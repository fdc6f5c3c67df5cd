"""Which state a run goes on from, and with which settings, without training anything."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from esper.runs.checkpoint.folder import save_checkpoint
from esper.runs.layers import Layer, recorded, resolve
from esper.runs.resume.point import (
    Resume,
    ResumeError,
    ResumePoint,
    check_newest,
    find_resume_point,
    is_checkpoint,
)
from esper.runs.resume.rules import Mode, may_change
from esper.runs.resume.settings import settings_to_resume
from esper.storage.store import StoreError

GIVEN: dict[str, Any] = {"policy_lr": 0.001, "gamma": 0.9, "seed": 7}


def settings(**given: Any) -> dict[str, Any]:
    return dict(recorded(resolve([Layer(source="the test", values=GIVEN | given)]).config))


def checkpoint(path: Path, config: object = None, **state: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_checkpoint(path, {"config": settings() if config is None else config, **state})
    return path


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A run with three checkpoints."""
    for number in (1, 2, 3):
        checkpoint(tmp_path / "run" / "checkpoints" / f"{number:08}", number=number)
    return tmp_path / "run"


def spoil(run: Path, *numbers: int) -> None:
    for number in numbers:
        (run / "checkpoints" / f"{number:08}" / "state.json").write_text("{}")


class TestFinding:
    def test_the_newest_of_a_run(self, run: Path) -> None:
        point = find_resume_point(run)
        assert (point.run_dir, point.checkpoint) == (run, run / "checkpoints" / "00000003")
        assert point.source == point.checkpoint
        assert point.state is not None
        assert point.state["number"] == 3
        assert recorded(point.config) == settings()
        assert list(point.broken) == []

    def test_the_newest_that_is_whole_and_what_is_wrong_with_the_others(self, run: Path) -> None:
        spoil(run, 2, 3)
        point = find_resume_point(run)
        assert point.checkpoint == run / "checkpoints" / "00000001"
        assert point.run_dir == run
        assert [path.name for path, _ in point.broken] == ["00000003", "00000002"]
        for path, reason in point.broken:
            assert reason.startswith(f"{path / 'state.json'}: does not have its original size and checksum")

    @pytest.mark.parametrize("manifest", ["", "{}", "[]", '{"schema": 2}', "{" + " " * 5000 + "}", "\0" * 300])
    def test_the_one_before_a_damaged_manifest(self, run: Path, manifest: str) -> None:
        (run / "checkpoints" / "00000003" / "manifest.json").write_text(manifest)
        point = find_resume_point(run)
        assert point.checkpoint == run / "checkpoints" / "00000002"
        ((path, reason),) = point.broken
        assert reason.startswith(f"{path / 'manifest.json'}: ")

    def test_the_one_before_a_file_by_the_name_of_a_checkpoint(self, run: Path) -> None:
        stray = run / "checkpoints" / "00000004"
        stray.touch()
        (run / "checkpoints" / "notes.txt").touch()
        point = find_resume_point(run)
        assert point.checkpoint == run / "checkpoints" / "00000003"
        assert point.broken == ((stray, f"{stray}: is a file, not a folder"),)

    @pytest.mark.parametrize("kind", ["link", "pipe"])
    def test_no_other_where_something_else_is_in_place_of_the_newest(self, run: Path, kind: str) -> None:
        stray = run / "checkpoints" / "00000004"
        os.mkfifo(stray) if kind == "pipe" else stray.symlink_to(run / "checkpoints" / "00000003")
        with pytest.raises(StoreError, match=rf"{stray}: is (a link|not a folder)$"):
            find_resume_point(run)

    def test_no_other_where_the_newest_is_of_a_newer_version(self, run: Path) -> None:
        (run / "checkpoints" / "00000003" / "manifest.json").write_text('{"schema": 99}')
        with pytest.raises(StoreError, match="schema 99 is newer"):
            find_resume_point(run)

    def test_none_that_is_whole(self, run: Path) -> None:
        spoil(run, 1, 2, 3)
        with pytest.raises(StoreError) as error:
            find_resume_point(run)
        first, *reasons = str(error.value).split("\n")
        assert first == f"{run}: none of its checkpoints is complete:"
        fault = "does not have its original size and checksum"
        folder = run / "checkpoints"
        names = ("00000003", "00000002", "00000001")
        assert reasons == [f"  {folder / name / 'state.json'}: {fault}" for name in names]

    def test_the_one_that_was_named_of_the_run_that_it_is_in(self, run: Path) -> None:
        point = find_resume_point(run / "checkpoints" / "00000002")
        assert (point.run_dir, point.checkpoint) == (run, run / "checkpoints" / "00000002")
        assert point.state is not None
        assert point.state["number"] == 2
        assert list(point.broken) == []

    def test_one_outside_of_any_run(self, run: Path, tmp_path: Path) -> None:
        alone = tmp_path / "alone"
        shutil.copytree(run / "checkpoints" / "00000002", alone)
        point = find_resume_point(alone)
        assert (point.run_dir, point.checkpoint, point.source) == (None, alone, alone)

    def test_a_broken_one_that_was_named(self, run: Path) -> None:
        spoil(run, 2)
        with pytest.raises(StoreError, match=r"00000002/state\.json: does not have its original size and checksum"):
            find_resume_point(run / "checkpoints" / "00000002")

    def test_a_link_is_for_outside_of_runs(self, run: Path, tmp_path: Path) -> None:
        link = run / "checkpoints" / "00000004"
        link.symlink_to(run / "checkpoints" / "00000001")
        with pytest.raises(StoreError, match=r"00000004: is a link$"):
            find_resume_point(link)
        alone = tmp_path / "alone"
        alone.symlink_to(run / "checkpoints" / "00000001")
        assert find_resume_point(alone).checkpoint == alone

    def test_a_run_without_checkpoints_begins_with_its_settings(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text(json.dumps(settings()))
        point = find_resume_point(tmp_path)
        assert (point.run_dir, point.checkpoint, point.state, point.source) == (tmp_path, None, None, tmp_path)
        assert recorded(point.config) == settings()

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, ": has neither a checkpoint nor a config.json"),
            ('{"gama": 1}', "/config.json: "),
            ("{", "/config.json: "),
        ],
    )
    def test_a_folder_that_is_no_run(self, tmp_path: Path, content: str | None, message: str) -> None:
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        with pytest.raises(StoreError) as error:
            find_resume_point(tmp_path)
        assert str(error.value).startswith(f"{tmp_path}{message}")

    def test_nothing_at_all(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError) as error:
            find_resume_point(tmp_path / "none")
        assert str(error.value) == f"{tmp_path / 'none'}: No such file or directory"

    @pytest.mark.parametrize(
        ("config", "message"),
        [
            ([], "config = []: must be the settings of the run"),
            ({"gamma": 7}, "gamma = 7: must be at least 0 and at most 1"),
        ],
    )
    def test_settings_that_cannot_be(self, tmp_path: Path, config: object, message: str) -> None:
        path = checkpoint(tmp_path / "alone", config)
        with pytest.raises(StoreError) as error:
            find_resume_point(path)
        assert str(error.value).startswith(f"{path}: ")
        assert message in str(error.value)


def test_what_is_meant_as_a_checkpoint(run: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone"
    shutil.copytree(run / "checkpoints" / "00000002", alone)
    assert is_checkpoint(alone)
    assert is_checkpoint(run / "checkpoints" / "00000002")
    # Even if it is not there: the error then is about a checkpoint.
    assert is_checkpoint(run / "checkpoints" / "00000009")
    assert not is_checkpoint(run)
    assert not is_checkpoint(tmp_path / "nowhere")


class TestNewest:
    def test_the_newest_may_go_on_in_its_folder(self, run: Path) -> None:
        check_newest(find_resume_point(run))
        check_newest(find_resume_point(run / "checkpoints" / "00000003"))

    def test_an_older_one_may_not(self, run: Path) -> None:
        older = run / "checkpoints" / "00000002"
        with pytest.raises(ResumeError) as error:
            check_newest(find_resume_point(older))
        assert str(error.value) == (
            f"{older}: 00000003 is newer, and would be overwritten; resume in another folder with --run-dir, "
            f"or from the newest with  --resume {run}"
        )

    def test_unless_the_newer_ones_are_broken(self, run: Path) -> None:
        spoil(run, 2, 3)
        check_newest(find_resume_point(run))

    def test_a_beginning_may_not_overwrite_checkpoints(self, run: Path) -> None:
        point = find_resume_point(run)
        beginning = ResumePoint(run_dir=run, checkpoint=None, state=None, config=point.config)
        with pytest.raises(ResumeError, match="00000003 is newer"):
            check_newest(beginning)

    def test_outside_of_a_run_nothing_can_be_overwritten(self, run: Path, tmp_path: Path) -> None:
        shutil.copytree(run / "checkpoints" / "00000001", tmp_path / "alone")
        check_newest(find_resume_point(tmp_path / "alone"))


class TestSettings:
    def now(self, run: Path, mode: Mode = "continue", **given: Any) -> Mapping[str, Any]:
        layers = [Layer(source="the command line", values=given)]
        return recorded(settings_to_resume(find_resume_point(run), layers, mode).config)

    def test_stay_as_they_were(self, run: Path) -> None:
        assert self.now(run) == settings()
        assert self.now(run, gamma=0.9) == settings()

    def test_are_told_apart_by_where_they_are_from(self, run: Path) -> None:
        layers = [Layer(source="the command line", values={"threads": 1})]
        origins = settings_to_resume(find_resume_point(run), layers, "continue").origins
        assert origins["gamma"].source == str(run / "checkpoints" / "00000003")
        assert origins["threads"].source == "the command line"

    def test_those_of_how_it_computes_may_change(self, run: Path) -> None:
        assert self.now(run, total_timesteps=1000, threads=1) == settings(total_timesteps=1000, threads=1)

    def test_schedules_may_with_a_new_horizon(self, run: Path) -> None:
        for mode in ("extend", "restart"):
            now = self.now(run, mode, policy_lr=0.002, value_lr_decay="linear", shared_lr="min")
            assert now == settings(policy_lr=0.002, value_lr_decay="linear", shared_lr="min")

    def test_every_other_difference_is_listed(self, run: Path) -> None:
        source = run / "checkpoints" / "00000003"
        with pytest.raises(ResumeError) as error:
            self.now(run, "extend", gamma=0.8, policy_lr=0.002, seed=8)
        first, *lines = str(error.value).split("\n")
        assert first == f"{source}: these settings cannot change on resume:"
        assert sorted(lines) == ["  gamma: 0.9, now 0.8", "  seed: 7, now 8"]

    def test_a_schedule_is_listed_with_the_way_to_change_it(self, run: Path) -> None:
        with pytest.raises(ResumeError) as error:
            self.now(run, gamma=0.8, policy_lr=0.002)
        *_, hint = str(error.value).split("\n")
        assert "\n  policy_lr: 0.001, now 0.002" in str(error.value)
        assert hint == "schedules may change with --resume-schedule extend or restart"

    def test_a_module_must_be_asked_for_by_someone_else(self, tmp_path: Path) -> None:
        checkpoint(tmp_path / "checkpoints" / "00000001", settings(env="strange:Env-v0"))
        with pytest.raises(ResumeError, match=r"imports 'strange'; .* add --env strange:Env-v0 or --trust$"):
            self.now(tmp_path)
        with pytest.raises(ResumeError, match="imports 'strange'"):
            self.now(tmp_path, total_timesteps=1000)
        assert self.now(tmp_path, env="strange:Env-v0")["env"] == "strange:Env-v0"
        checkpoint(tmp_path / "checkpoints" / "00000002", settings(env="strange:other:Env-v0"))
        with pytest.raises(ResumeError, match="imports 'strange'"):
            self.now(tmp_path)


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("total_timesteps", ["continue", "extend", "restart"]),
        ("policy_lr", ["extend", "restart"]),
        ("value_lr_decay_steps", ["extend", "restart"]),
        ("clip_coef", ["extend", "restart"]),
        ("entropy_coef_decay", ["extend", "restart"]),
        ("shared_lr", ["extend", "restart"]),
        ("value_clip_coef", ["extend", "restart"]),
        ("value_lr_kl_target", ["extend", "restart"]),
        ("gamma", []),
    ],
)
def test_what_may_change(name: str, allowed: list[str]) -> None:
    modes: tuple[Mode, ...] = ("continue", "extend", "restart")
    assert [mode for mode in modes if may_change(name, mode)] == allowed


def test_episodes_are_kept_where_there_are_some_and_nobody_asks_for_fresh_ones(run: Path) -> None:
    point = find_resume_point(run)

    def keeps(state: Mapping[str, Any] | None, fresh: bool) -> bool:
        at = ResumePoint(run_dir=run, checkpoint=point.checkpoint, state=state, config=point.config)
        return Resume(point=at, fresh_episodes=fresh).keeps_episodes

    there: dict[str, Any] = {"training": {"environment": {}}}
    gone: dict[str, Any] = {"training": {"environment": None}}
    assert keeps(there, False)
    assert not keeps(there, True)
    assert not keeps(gone, False)
    assert not keeps(None, False)

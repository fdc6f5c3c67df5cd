"""When checkpoints are written, and what becomes of an error in the background."""

from __future__ import annotations

import itertools
import threading
from pathlib import Path

import pytest

from esper.runs.checkpoint.config import CheckpointConfig
from esper.runs.checkpoint.folder import checkpoints_in, load_checkpoint
from esper.runs.checkpoint.keeper import CheckpointKeeper
from esper.settings.options import ConfigError
from esper.storage.store import StoreError


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class TestDue:
    def test_by_updates(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig(checkpoint_every=3))
        assert [number for number in range(1, 10) if keeper.due(number)] == [3, 6, 9]

    def test_by_minutes_since_the_last_one(self, tmp_path: Path) -> None:
        clock = Clock()
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig(checkpoint_every="0.5m"), clock)
        clock.now += 29
        assert not keeper.due(1)
        clock.now += 1
        assert keeper.due(2)
        keeper.save(2, {"x": 1})
        keeper.wait()
        assert not keeper.due(3)
        clock.now += 30
        assert keeper.due(4)

    @pytest.mark.parametrize("every", [0, -1, "m", "5", "-1m", "0m", "5s", "1e3m", "nanm", ""])
    def test_no_such_interval(self, every: int | str) -> None:
        with pytest.raises(ConfigError, match="checkpoint_every"):
            CheckpointConfig(checkpoint_every=every)


class TestWriting:
    def test_goes_on_in_the_background_and_is_announced_once(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        may_write = threading.Event()

        def before() -> None:
            may_write.wait(60)

        assert keeper.save(1, {"x": 1}, before=before) is None
        assert keeper.finished() is None
        assert checkpoints_in(tmp_path) == []
        may_write.set()
        saved = keeper.wait()
        assert saved is not None
        assert (saved.path, saved.number) == (tmp_path / "00000001", 1)
        assert keeper.finished() is None
        assert load_checkpoint(saved.path) == {"x": 1}

    def test_a_second_one_waits_for_the_first(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig(keep_checkpoints=2))
        keeper.save(1, {"x": 1})
        previous = keeper.save(2, {"x": 2})
        assert previous is not None
        assert previous.number == 1
        keeper.save(3, {"x": 3})
        keeper.wait()
        assert [load_checkpoint(path)["x"] for path in checkpoints_in(tmp_path)] == [3, 2]

    @pytest.mark.parametrize("ask", ["finished", "wait", "save"])
    def test_an_error_reaches_whoever_asks_next(self, tmp_path: Path, ask: str) -> None:
        keeper = CheckpointKeeper(tmp_path / "gone", CheckpointConfig())
        keeper.save(1, {"x": 1})
        assert keeper._writing is not None
        keeper._writing.join()
        with pytest.raises(StoreError, match="00000001: cannot be written: No such file or directory"):
            keeper.save(2, {}) if ask == "save" else getattr(keeper, ask)()

    @pytest.mark.parametrize("ask", ["finished", "wait"])
    def test_an_error_is_raised_once(self, tmp_path: Path, ask: str) -> None:
        keeper = CheckpointKeeper(tmp_path / "gone", CheckpointConfig())
        keeper.save(1, {"x": 1})
        with pytest.raises(StoreError):
            keeper.wait()
        assert getattr(keeper, ask)() is None
        assert keeper.finished() is None

    def test_tells_that_it_is_done_without_being_waited_for(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        may_write = threading.Event()

        def before() -> None:
            may_write.wait(60)

        keeper.save(4, {"x": 1}, before=before)
        (writer,) = [thread for thread in threading.enumerate() if thread.name == "checkpoint"]
        # The program must be able to end at once.
        assert writer.daemon
        may_write.set()
        writer.join()
        saved = keeper.finished()
        assert saved is not None
        assert (saved.path, saved.number) == (tmp_path / "00000004", 4)
        assert keeper.wait() is None

    def test_says_how_long_writing_took(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        readings = itertools.chain([10.0], itertools.repeat(12.5))
        monkeypatch.setattr("time.perf_counter", lambda: next(readings))
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        keeper.save(1, {"x": 1})
        saved = keeper.wait()
        assert saved is not None
        assert saved.seconds == 2.5

    def test_keeps_as_many_as_it_was_told(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig(keep_checkpoints=1))
        for number in (1, 2, 3):
            keeper.save(number, {"x": number})
        keeper.wait()
        assert [path.name for path in checkpoints_in(tmp_path)] == ["00000003"]

    def test_a_second_one_of_the_same_number_gets_a_name_of_its_own(self, tmp_path: Path) -> None:
        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        keeper.save(3, {"x": 1})
        keeper.save(3, {"x": 2})
        saved = keeper.wait()
        assert saved is not None
        assert saved.path.name == "00000003.1"
        assert [load_checkpoint(path)["x"] for path in checkpoints_in(tmp_path)] == [2, 1]

    @pytest.mark.parametrize(
        ("error", "message"),
        [(OSError(28, "No space left on device"), "No space left on device"), (OSError("odd"), "odd")],
    )
    def test_what_goes_wrong_before_writing_names_the_folder(
        self, tmp_path: Path, error: OSError, message: str
    ) -> None:
        def fail() -> None:
            raise error

        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        keeper.save(1, {"x": 1}, before=fail)
        with pytest.raises(StoreError) as raised:
            keeper.wait()
        assert str(raised.value) == f"{tmp_path}: {message}"
        assert list(tmp_path.iterdir()) == []

    def test_a_fault_of_the_program_is_not_made_a_store_error(self, tmp_path: Path) -> None:
        fault = RuntimeError("a fault")

        def fail() -> None:
            raise fault

        keeper = CheckpointKeeper(tmp_path, CheckpointConfig())
        keeper.save(1, {"x": 1}, before=fail)
        with pytest.raises(RuntimeError) as raised:
            keeper.wait()
        assert raised.value is fault


@pytest.mark.parametrize(("every", "interval"), [(3, (3, 0.0)), ("5m", (0, 300.0)), ("0.5m", (0, 30.0))])
def test_the_interval_is_of_updates_or_of_seconds(every: int | str, interval: tuple[int, float]) -> None:
    assert CheckpointConfig(checkpoint_every=every).interval == interval


def test_an_interval_that_is_none_is_said_with_what_is_allowed() -> None:
    with pytest.raises(ConfigError) as error:
        CheckpointConfig(checkpoint_every="5s")
    assert str(error.value) == "checkpoint_every = 5s: must be updates, at least 1, or minutes as 5m or 0.5m"

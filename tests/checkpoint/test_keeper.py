"""When checkpoints are written, and what becomes of an error in the background."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from esper.checkpoint.config import CheckpointConfig
from esper.checkpoint.folder import checkpoints_in, load_checkpoint
from esper.checkpoint.keeper import CheckpointKeeper
from esper.checkpoint.store import StoreError
from esper.options import ConfigError


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
        assert keeper.save(1, {"x": 1}, before=lambda: may_write.wait(60) and None) is None
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

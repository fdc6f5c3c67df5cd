"""Checkpoints as folders: whole or refused, kept in number."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from esper.runs.checkpoint import folder as folders
from esper.runs.checkpoint.folder import (
    checkpoints_in,
    load_checkpoint,
    new_checkpoint_path,
    prune,
    remove_leftovers,
    save_checkpoint,
    set_aside,
)
from esper.storage.store import CorruptError, StoreError

TREE: dict[str, Any] = {"step": 7, "rng": 2**90, "net": {"w": torch.arange(6.0).view(2, 3), "n": torch.tensor(3)}}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "00000007"
    save_checkpoint(path, TREE)
    return path


def sign(path: Path) -> None:
    """Make the manifest fit the files again, as someone would who changed them on purpose."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in manifest["files"]:
        data = (path / name).read_bytes()
        manifest["files"][name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    (path / "manifest.json").write_text(json.dumps(manifest))


class TestRoundTrip:
    def test_gives_back_the_tree(self, checkpoint: Path) -> None:
        tree = load_checkpoint(checkpoint)
        assert (tree["step"], tree["rng"]) == (7, 2**90)
        assert tree["net"]["w"].equal(TREE["net"]["w"])
        assert tree["net"]["n"].equal(TREE["net"]["n"])
        assert {path.name for path in checkpoint.iterdir()} == {"manifest.json", "state.json", "state.safetensors"}

    def test_an_existing_checkpoint_is_never_overwritten(self, checkpoint: Path) -> None:
        with pytest.raises(StoreError, match="cannot be written: Directory not empty"):
            save_checkpoint(checkpoint, {"step": 8})
        assert load_checkpoint(checkpoint)["step"] == 7
        assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]

    def test_a_number_that_json_does_not_have(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"00000001: cannot be written: x\[0\] is nan"):
            save_checkpoint(tmp_path / "00000001", {"x": [float("nan")]})
        assert list(tmp_path.iterdir()) == []

    def test_what_could_not_be_read_back_is_not_written(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(folders._LIMITS, "state.json", 10)
        with pytest.raises(StoreError, match="at most 10 can be read back"):
            save_checkpoint(tmp_path / "00000001", TREE)

    def test_a_folder_that_is_gone(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="cannot be written: No such file or directory"):
            save_checkpoint(tmp_path / "gone" / "00000001", TREE)


class TestBroken:
    @pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
    def test_any_flipped_bit_is_found(self, checkpoint: Path, name: str) -> None:
        data = bytearray((checkpoint / name).read_bytes())
        for position in range(0, len(data), max(len(data) // 40, 1)):
            changed = data.copy()
            changed[position] ^= 1 << (position % 8)
            (checkpoint / name).write_bytes(changed)
            with pytest.raises(CorruptError, match=f"{name}: does not have its original size and checksum"):
                load_checkpoint(checkpoint)

    @pytest.mark.parametrize("name", ["manifest.json", "state.json", "state.safetensors"])
    def test_truncated_or_missing(self, checkpoint: Path, name: str) -> None:
        data = (checkpoint / name).read_bytes()
        for size in (0, 1, len(data) // 2, len(data) - 1):
            (checkpoint / name).write_bytes(data[:size])
            if (name, size) != ("manifest.json", len(data) - 1):  # but for its last newline, which says nothing
                with pytest.raises(CorruptError, match=name):
                    load_checkpoint(checkpoint)
        (checkpoint / name).unlink()
        with pytest.raises(CorruptError, match=f"{name}: No such file"):
            load_checkpoint(checkpoint)

    @pytest.mark.parametrize(
        ("manifest", "message"),
        [
            ("{}", "schema None is not a version"),
            ('{"schema": "1"}', "schema '1' is not a version"),
            ('{"schema": true}', "schema True is not a version"),
            ('{"schema": 0}', "schema 0 is not a version"),
            ('{"schema": 1}', "must name the files"),
            ('{"schema": 1, "files": {"../../config.json": {}, "state.json": {}}}', "and no others"),
            ("[]", "must hold one object"),
            ("[" * 4000, "not JSON"),
            ('{"schema": NaN}', "NaN is not a number in JSON"),
            ("{" + " " * 5000 + "}", "at most 4,096 are read"),
        ],
    )
    def test_what_is_no_manifest(self, checkpoint: Path, manifest: str, message: str) -> None:
        (checkpoint / "manifest.json").write_text(manifest)
        with pytest.raises(CorruptError, match=message):
            load_checkpoint(checkpoint)

    def test_a_newer_manifest_is_whole(self, checkpoint: Path) -> None:
        (checkpoint / "manifest.json").write_text('{"schema": 3, "parts": {}}')
        with pytest.raises(StoreError, match="schema 3 is newer than the 2 that this version reads; upgrade") as error:
            load_checkpoint(checkpoint)
        assert not isinstance(error.value, CorruptError)

    def test_more_than_is_ever_written(self, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(folders._LIMITS, "state.json", 10)
        with pytest.raises(CorruptError, match=r"state\.json: has \d+ bytes; at most 10 are read"):
            load_checkpoint(checkpoint)

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (b"[" * 2_000_000, "not JSON: maximum recursion depth"),
            (b'{"step": ' + b"9" * 5000 + b"}", "not JSON: Exceeds the limit"),
            (b'{"step": Infinity}', "Infinity is not a number"),
            (b"\xff\xfe", "not JSON"),
            (b"{}", "tensor 'net/.' has no place in the state"),
        ],
    )
    def test_json_that_is_signed_but_hostile(self, checkpoint: Path, content: bytes, message: str) -> None:
        (checkpoint / "state.json").write_bytes(content)
        sign(checkpoint)
        with pytest.raises(StoreError, match=message):
            load_checkpoint(checkpoint)

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"\x00" * 7,
            (2**63).to_bytes(8, "little") + b"{}",
            (2**64 - 1).to_bytes(8, "little"),
            (2).to_bytes(8, "little") + b"{}" + b"\x00" * 100,
            (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,4]}}      ' + b"\x00" * 4,
            (64).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":',
        ],
    )
    def test_tensors_that_are_signed_but_hostile(self, checkpoint: Path, content: bytes) -> None:
        (checkpoint / "state.safetensors").write_bytes(content)
        sign(checkpoint)
        with pytest.raises(StoreError, match=r"state\.safetensors: (not a complete safetensors file|tensor)"):
            load_checkpoint(checkpoint)

    def test_a_link_is_not_followed(self, checkpoint: Path, tmp_path: Path) -> None:
        (checkpoint / "state.json").rename(tmp_path / "elsewhere.json")
        (checkpoint / "state.json").symlink_to(tmp_path / "elsewhere.json")
        with pytest.raises(StoreError, match=r"state\.json: is a link"):
            load_checkpoint(checkpoint)

    def test_a_pipe_does_not_make_it_wait(self, checkpoint: Path) -> None:
        (checkpoint / "state.json").unlink()
        os.mkfifo(checkpoint / "state.json")
        with pytest.raises(StoreError, match=r"state\.json: not a file"):
            load_checkpoint(checkpoint)

    def test_a_huge_file_is_not_read(self, checkpoint: Path) -> None:
        with (checkpoint / "state.safetensors").open("wb") as file:
            file.truncate(2**40)  # sparse
        with pytest.raises(StoreError, match="has 1,099,511,627,776 bytes; at most"):
            load_checkpoint(checkpoint)


class TestMany:
    def names(self, folder: Path) -> list[str]:
        return [path.name for path in checkpoints_in(folder)]

    def make(self, folder: Path, *names: str) -> None:
        for name in names:
            (folder / name).mkdir()

    def test_newest_first_and_nothing_else(self, tmp_path: Path) -> None:
        self.make(tmp_path, "00000009", "00000010", "00000010.2", "100000000", ".00000011.tmp", "00000012.broken", "x")
        assert self.names(tmp_path) == ["100000000", "00000010.2", "00000010", "00000009"]
        assert checkpoints_in(tmp_path / "none") == []

    def test_a_name_is_new_although_its_number_is_not(self, tmp_path: Path) -> None:
        assert new_checkpoint_path(tmp_path, 10).name == "00000010"
        self.make(tmp_path, "00000010")
        assert new_checkpoint_path(tmp_path, 10).name == "00000010.1"
        self.make(tmp_path, "00000010.1")
        assert new_checkpoint_path(tmp_path, 10).name == "00000010.2"
        assert new_checkpoint_path(tmp_path, 9).name == "00000009"

    def test_prune_keeps_the_newest_and_always_the_one_just_written(self, tmp_path: Path) -> None:
        self.make(tmp_path, "00000001", "00000002", "00000003", "00000009")
        prune(tmp_path, 2, tmp_path / "00000002")
        assert self.names(tmp_path) == ["00000009", "00000003", "00000002"]

    def test_set_aside_and_leftovers(self, tmp_path: Path) -> None:
        self.make(tmp_path, "00000001", ".00000002.tmp")
        assert set_aside(tmp_path / "00000001").name == "00000001.broken"
        remove_leftovers(tmp_path)
        assert [path.name for path in tmp_path.iterdir()] == ["00000001.broken"]


class TestMessages:
    def test_there_is_no_such_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError) as error:
            load_checkpoint(tmp_path / "00000001")
        assert str(error.value).endswith("00000001: No such file or directory")

    def test_it_is_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "00000001").touch()
        with pytest.raises(CorruptError) as error:
            load_checkpoint(tmp_path / "00000001")
        assert str(error.value) == f"{tmp_path / '00000001'}: is a file, not a folder"

    def test_it_is_a_pipe(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "00000001")
        with pytest.raises(StoreError) as error:
            load_checkpoint(tmp_path / "00000001")
        assert str(error.value) == f"{tmp_path / '00000001'}: is not a folder"
        assert not isinstance(error.value, CorruptError)

    def test_the_manifest_names_other_files(self, checkpoint: Path) -> None:
        (checkpoint / "manifest.json").write_text('{"schema": 1, "files": {"state.json": {}}}')
        with pytest.raises(StoreError) as error:
            load_checkpoint(checkpoint)
        expected = "must name the files state.json, state.safetensors and no others"
        assert str(error.value) == f"{checkpoint / 'manifest.json'}: {expected}"


class TestRemoving:
    """Whatever lies there: a folder with something in it, a file, a link, nothing."""

    @pytest.fixture(params=["folder", "file", "link", "nothing"])
    def lies_there(self, request: pytest.FixtureRequest, tmp_path: Path) -> Path:
        """What a writer that was killed left of 00000007, and a folder that a link leads to."""
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "elsewhere" / "kept").touch()
        (tmp_path / "checkpoints").mkdir()
        path = tmp_path / "checkpoints" / ".00000007.tmp"
        if request.param == "folder":
            (path / "deep").mkdir(parents=True)
            (path / "deep" / "file").touch()
        elif request.param == "file":
            path.touch()
        elif request.param == "link":
            path.symlink_to(tmp_path / "elsewhere")
        return path

    def test_leftovers(self, lies_there: Path, tmp_path: Path) -> None:
        remove_leftovers(lies_there.parent)
        assert list(lies_there.parent.iterdir()) == []
        assert (tmp_path / "elsewhere" / "kept").exists()

    def test_do_not_stand_in_the_way(self, lies_there: Path, tmp_path: Path) -> None:
        path = lies_there.with_name("00000007")
        save_checkpoint(path, TREE)
        assert load_checkpoint(path)["step"] == 7
        assert (tmp_path / "elsewhere" / "kept").exists()

    def test_a_checkpoint_that_was_set_aside_before_gives_way(self, checkpoint: Path) -> None:
        aside = checkpoint.with_name("00000007.broken")
        aside.mkdir()
        (aside / "older").touch()
        assert set_aside(checkpoint) == aside
        assert sorted(path.name for path in aside.iterdir()) == ["manifest.json", "state.json", "state.safetensors"]
        assert not checkpoint.exists()

    def test_pruning_removes_what_is_in_the_folders(self, tmp_path: Path) -> None:
        for number in (1, 2, 3):
            save_checkpoint(tmp_path / f"{number:08}", {"step": number})
        prune(tmp_path, 1, tmp_path / "00000003")
        assert [path.name for path in tmp_path.iterdir()] == ["00000003"]

    def test_a_failed_write_leaves_nothing(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(_: int) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(StoreError) as error:
            save_checkpoint(tmp_path / "00000001", TREE)
        assert str(error.value) == f"{tmp_path / '00000001'}: cannot be written: No space left on device"
        assert list(tmp_path.iterdir()) == []


class TestSizes:
    @pytest.mark.parametrize("name", ["state.json", "state.safetensors"])
    def test_the_largest_that_can_be_read_back_is_written(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        save_checkpoint(tmp_path / "00000001", TREE)
        size = (tmp_path / "00000001" / name).stat().st_size
        monkeypatch.setitem(folders._LIMITS, name, size)
        save_checkpoint(tmp_path / "00000002", TREE)
        assert load_checkpoint(tmp_path / "00000002")["step"] == 7
        monkeypatch.setitem(folders._LIMITS, name, size - 1)
        with pytest.raises(StoreError, match=f"{name}: {size} bytes; at most {size - 1} can be read back"):
            save_checkpoint(tmp_path / "00000003", TREE)

    def test_what_is_flushed_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        path = tmp_path / "00000001"
        named: list[bool] = []
        monkeypatch.setattr(os, "fsync", lambda _: named.append(path.exists()))
        save_checkpoint(path, TREE)
        # Three files and their folder; then the folder that has the new name.
        assert named == [False] * 4 + [True]

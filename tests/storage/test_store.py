"""Files of state: what is written, what is read back, what is refused."""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path

import pytest
import torch

from esper.storage import files
from esper.storage.store import (
    StoreError,
    dump_tensors,
    load_pair,
    parse_json,
    parse_tensors,
    read_bytes,
    save_pair,
)

HERE = Path("here")


class TestPair:
    def test_comes_back(self, tmp_path: Path) -> None:
        weights = torch.arange(6.0).view(2, 3)
        save_pair(tmp_path / "policy", {"w": weights, "n": torch.tensor(3)}, {"env": "CartPole-v1"}, root=tmp_path)
        tensors, metadata = load_pair(tmp_path / "policy", root=tmp_path)
        assert set(tensors) == {"w", "n"}
        assert tensors["w"].equal(weights)
        assert tensors["n"].equal(torch.tensor(3))
        assert metadata == {"env": "CartPole-v1"}
        assert {path.name for path in tmp_path.iterdir()} == {"policy.json", "policy.safetensors"}

    @pytest.mark.parametrize("name", ["policy.json", "policy.safetensors"])
    def test_needs_both_files(self, tmp_path: Path, name: str) -> None:
        save_pair(tmp_path / "policy", {"w": torch.zeros(1)}, {}, root=tmp_path)
        (tmp_path / name).unlink()
        with pytest.raises(StoreError, match=f"{name}: No such file or directory"):
            load_pair(tmp_path / "policy", root=tmp_path)

    def test_names_the_broken_file(self, tmp_path: Path) -> None:
        save_pair(tmp_path / "policy", {"w": torch.zeros(1)}, {}, root=tmp_path)
        (tmp_path / "policy.safetensors").write_bytes(b"?")
        with pytest.raises(StoreError, match=r"policy\.safetensors: not a complete safetensors file"):
            load_pair(tmp_path / "policy", root=tmp_path)
        (tmp_path / "policy.json").write_bytes(b"[]")
        with pytest.raises(StoreError, match=r"policy\.json: must hold one object"):
            load_pair(tmp_path / "policy", root=tmp_path)


class TestFormats:
    def test_json_is_one_readable_object_with_a_last_newline(self) -> None:
        data = files.dump_json({"a": 1, "b": [2]})
        assert json.loads(data) == {"a": 1, "b": [2]}
        assert data == b'{\n  "a": 1,\n  "b": [\n    2\n  ]\n}\n'
        assert parse_json(data, HERE) == {"a": 1, "b": [2]}

    def test_json_has_no_infinity(self) -> None:
        with pytest.raises(ValueError, match="Out of range float"):
            files.dump_json({"a": float("inf")})

    def test_tensors_may_need_a_gradient_or_lie_across_the_memory(self) -> None:
        across = torch.arange(6.0).view(2, 3).t()
        tensors = {"across": across, "learned": torch.ones(2, requires_grad=True)}
        back = parse_tensors(dump_tensors(tensors), HERE)
        assert back["across"].tolist() == [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
        assert back["learned"].tolist() == [1.0, 1.0]

    @pytest.mark.parametrize("text", ["", "{", '{"a": -Infinity}', "[" * 100_000])
    def test_what_is_no_json_is_refused_with_a_reason(self, text: str) -> None:
        with pytest.raises(StoreError, match=r"^here: not JSON: .{10,}"):
            parse_json(text.encode(), HERE)

    def test_a_reason_is_short(self) -> None:
        # The library quotes a data type that it does not know, however long it is.
        header = json.dumps({"a": {"dtype": "F" * 5000, "shape": [1], "data_offsets": [0, 4]}}).encode()
        with pytest.raises(StoreError) as error:
            parse_tensors(len(header).to_bytes(8, "little") + header + bytes(4), HERE)
        prefix = "here: not a complete safetensors file: "
        assert str(error.value).startswith(prefix)
        assert 10 < len(str(error.value)) - len(prefix) <= 200


class TestReading:
    def test_up_to_the_limit(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        assert read_bytes(path, 5) == b"12345"
        with pytest.raises(StoreError, match="file: has 5 bytes; at most 4 are read"):
            read_bytes(path, 4)

    def test_a_folder_or_a_name_that_cannot_be(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r": not a file, but a folder$"):
            read_bytes(tmp_path, 5)
        with pytest.raises(StoreError, match="null byte"):
            read_bytes(Path("a\0b"), 5)

    def test_a_link_to_a_good_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").write_bytes(b"1")
        (tmp_path / "link").symlink_to(tmp_path / "file")
        with pytest.raises(StoreError, match=r"link: is a link$"):
            read_bytes(tmp_path / "link", 5)

    def test_leaves_no_file_open(self, tmp_path: Path) -> None:
        path = tmp_path / "file"
        path.write_bytes(b"12345")
        before = len(os.listdir("/dev/fd"))
        for limit in (4, 5):
            with contextlib.suppress(StoreError):
                read_bytes(path, limit)
        assert len(os.listdir("/dev/fd")) == before


class TestWriting:
    def test_replaces_what_was_there_and_leaves_nothing_beside_it(self, tmp_path: Path) -> None:
        path = tmp_path / "state.json"
        path.write_bytes(b"longer than the new content")
        files.write(path, b"new")
        assert path.read_bytes() == b"new"
        assert list(tmp_path.iterdir()) == [path]

    def test_a_reader_sees_the_old_file_until_the_new_one_is_flushed(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = tmp_path / "state.json"
        path.write_bytes(b"old")
        flushed: list[tuple[bool, int, bytes]] = []

        def watched(descriptor: int) -> None:
            status = os.fstat(descriptor)
            is_folder = stat.S_ISDIR(status.st_mode)
            flushed.append((is_folder, 0 if is_folder else status.st_size, path.read_bytes()))

        monkeypatch.setattr(os, "fsync", watched)
        files.write(path, b"newer")
        # First the whole file, then the folder that has its new name.
        assert flushed == [(False, 5, b"old"), (True, 0, b"newer")]

    def test_what_is_flushed_as_a_folder_must_be_one(self, tmp_path: Path) -> None:
        files.flush_folder(tmp_path)
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match=r"Not a directory|is no folder"):
            files.flush_folder(tmp_path / "file")

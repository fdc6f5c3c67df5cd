"""The kernels' cache: what is loaded from it, what is replaced, and what is left alone."""

from __future__ import annotations

import errno
import os
import pwd
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from esper.simic.engines.native import cache, library
from kernels import ANSWER, Place, Ran

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")


def rewritten(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    return lambda path: path.write_bytes(change(path.read_bytes()))


def flipped(content: bytes, at: int) -> bytes:
    at %= len(content)
    return content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.rename(path.parents[2] / "moved")
        make(path)

    return replace


def filled_folder(path: Path) -> None:
    (path / "folder").mkdir(parents=True)
    (path / "folder" / "file").write_text("x")


def of_another_name(path: Path) -> None:
    with cache.open_cache(path.parent) as kept:
        kept.write("kernels-other.so", kept.open(path.name).content)
    (path.parent / "kernels-other.so").rename(path)


UNUSABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "cut to half": (rewritten(lambda content: content[: len(content) // 2]), "damaged"),
    "cut by a byte": (rewritten(lambda content: content[:-1]), "damaged"),
    "longer": (rewritten(lambda content: content + b"\0"), "damaged"),
    "empty": (rewritten(lambda content: b""), "damaged"),
    "zeros": (rewritten(lambda content: bytes(len(content))), "damaged"),
    "text": (rewritten(lambda content: b"not a library " * 1000), "damaged"),
    "flipped first": (rewritten(lambda content: flipped(content, 0)), "damaged"),
    "flipped in the middle": (rewritten(lambda content: flipped(content, len(content) // 2)), "damaged"),
    "flipped last": (rewritten(lambda content: flipped(content, -1)), "damaged"),
    "of another name": (of_another_name, "damaged"),
    "huge": (lambda path: os.truncate(path, 2**40), "damaged"),
    "a folder": (replaced(Path.mkdir), "no regular file"),
    "a folder with files": (replaced(filled_folder), "no regular file"),
    "a FIFO": (replaced(os.mkfifo), "no regular file"),
    "a link to nothing": (replaced(lambda path: path.symlink_to("nothing")), "symbolic link"),
    "a link to a library": (replaced(lambda path: path.symlink_to(path.parents[2] / "moved")), "symbolic link"),
    "a link to itself": (replaced(lambda path: path.symlink_to(path.name)), "symbolic link"),
    "writable by the group": (lambda path: path.chmod(0o664), "others may write it (mode 664)"),
    "writable by all": (lambda path: path.chmod(0o646), "others may write it (mode 646)"),
}


class TestFile:
    def test_is_compiled_once_and_loaded_without_a_word(self, place: Place) -> None:
        assert place.load() == place.load() == Ran(ANSWER, "")
        assert place.compilations() == 1
        assert place.kept().stat().st_mode & 0o777 == 0o644
        assert place.cache.stat().st_mode & 0o777 == 0o700
        assert not list(place.temporary.iterdir())

    @pytest.mark.parametrize(("spoil", "reason"), UNUSABLE.values(), ids=UNUSABLE.keys())
    def test_is_replaced_and_never_loaded(self, place: Place, spoil: Callable[[Path], object], reason: str) -> None:
        place.load()
        path = place.kept()
        whole = path.read_bytes()
        spoil(path)
        # Whoever loads what is there now is not told from the right one by its answer, but by the compiler's notes.
        out, err = place.load()
        assert out == ANSWER
        assert f"{path} is not loaded but compiled anew: " in err
        assert reason in err
        assert place.compilations() == 2
        assert place.load() == Ran(ANSWER, "")
        assert place.compilations() == 2
        assert place.kept().read_bytes() == whole
        assert not path.is_symlink()

    @root_only
    def test_of_someone_else_is_replaced(self, place: Place) -> None:
        place.load()
        os.chown(place.kept(), 12345, -1)
        out, err = place.load()
        assert (out, place.compilations()) == (ANSWER, 2)
        assert "it belongs to the user with id 12345" in err
        assert place.kept().stat().st_uid == 0

    def test_that_is_replaced_leaves_what_it_was_linked_to(self, place: Place) -> None:
        place.load()
        path, linked = place.kept(), place.root / "linked"
        linked.write_text("something of the user's")
        path.unlink()
        path.hardlink_to(linked)
        assert place.load().out == ANSWER
        assert linked.read_text() == "something of the user's"
        assert place.load() == Ran(ANSWER, "")

    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(content=st.binary(min_size=1, max_size=99), data=st.data())
    def test_no_damage_goes_unnoticed(self, tmp_path: Path, content: bytes, data: st.DataObject) -> None:
        tmp_path.chmod(0o700)
        path = tmp_path / "file"
        with cache.open_cache(tmp_path) as kept:
            kept.write("file", content)
            read, descriptor = kept.open("file")
            os.close(descriptor)
            assert read == content
            whole = path.read_bytes()
            start = data.draw(st.integers(0, len(whole)))
            end = data.draw(st.integers(start, len(whole)))
            spoiled = whole[:start] + data.draw(st.binary(max_size=9)) + whole[end:]
            if spoiled != whole:
                path.write_bytes(spoiled)
                with pytest.raises(OSError, match="damaged"):
                    kept.open("file")

    def test_is_on_the_disk_before_it_has_its_name(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        tmp_path.chmod(0o700)
        order = []
        fsync, replace = os.fsync, os.replace

        def watched_fsync(descriptor: int) -> None:
            order.append("folder" if Path(f"/proc/self/fd/{descriptor}").is_dir() else "file")
            fsync(descriptor)

        def watched_replace(*arguments: Any, **options: Any) -> None:
            order.append("rename")
            replace(*arguments, **options)

        monkeypatch.setattr(os, "fsync", watched_fsync)
        monkeypatch.setattr(os, "replace", watched_replace)
        with cache.open_cache(tmp_path) as kept:
            kept.write("file", b"content")
        assert order == ["file", "rename", "folder"]

    def test_that_cannot_be_written_is_there_for_this_run(
        self, here: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def no_room(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(os, "fsync", no_room)
        assert str(library.load_library().library.esper_learner()) == ANSWER
        assert [record.message for record in caplog.records] == [
            f"{here.cache} cannot keep compiled kernels ([Errno 28] No space left on device): "
            "they are compiled for this run alone"
        ]
        assert here.compilations() == 1
        assert not [*here.cache.iterdir(), *here.temporary.iterdir()]


class TestFolder:
    @pytest.mark.parametrize("mode", [0o777, 0o775, 0o770, 0o702, 0o1777])
    def test_that_others_may_write_is_not_used(self, place: Place, mode: int) -> None:
        place.load()
        before = place.kept().read_bytes()
        place.cache.chmod(mode)
        for count in (2, 3):
            out, err = place.load()
            assert (out, place.compilations()) == (ANSWER, count)
            assert err == (
                f"compiled kernels cannot be kept ({place.cache}: others may write it (mode {mode:o}); "
                "`chmod go-w` changes that): they are compiled for this run alone"
            )
        assert place.kept().read_bytes() == before

    @root_only
    def test_of_someone_else_is_not_used(self, place: Place) -> None:
        place.load()
        os.chown(place.cache, 12345, -1)
        out, err = place.load()
        assert (out, place.compilations()) == (ANSWER, 2)
        assert f"({place.cache}: it belongs to the user with id 12345): they are compiled for this run alone" in err

    @pytest.mark.parametrize(
        "make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("nothing")], ids=["file", "FIFO", "link"]
    )
    def test_that_is_none(self, place: Place, make: Callable[[Path], object]) -> None:
        place.cache.parent.mkdir()
        make(place.cache)
        out, err = place.load()
        assert out == ANSWER
        assert f"'{place.cache}'): they are compiled for this run alone" in err

    def test_may_be_elsewhere(self, place: Place) -> None:
        place.cache.parent.mkdir()
        (place.root / "elsewhere").mkdir(0o700)
        place.cache.symlink_to(place.root / "elsewhere")
        assert place.load() == place.load() == Ran(ANSWER, "")
        assert place.compilations() == 1

    def test_is_cleared_of_what_killed_processes_left(self, place: Place) -> None:
        place.load()
        old, young = ("esper-kernels-aaaaaaaa", "tmp1234_xyz"), ("esper-kernels-bbbbbbbb", "kernels-1234.so", "tmp")
        for name in (*old, *young):
            (place.cache / name).mkdir()
            (place.cache / name / "file").touch()
            if name != "esper-kernels-bbbbbbbb":
                os.utime(place.cache / name, (0, 0))
        for name in ("esper-kernels-cccccccc", "tmp1234_xyz"):
            (place.temporary / name).touch()
            os.utime(place.temporary / name, (0, 0))
        kept = {path.name for path in place.cache.iterdir()} - set(old)
        place.load()
        assert {path.name for path in place.cache.iterdir()} == kept
        # In the folder for temporary files, other programs' files begin with tmp.
        assert [path.name for path in place.temporary.iterdir()] == ["tmp1234_xyz"]


class TestWhereItIs:
    @pytest.fixture(autouse=True)
    def _passwd(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.give(monkeypatch, "/users/me")

    def give(self, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
        def entry(uid: int) -> pwd.struct_passwd:
            if home is None:
                raise KeyError(uid)
            return pwd.struct_passwd(("me", "x", uid, 0, "", home, "/bin/sh"))

        monkeypatch.setattr(pwd, "getpwuid", entry)

    @pytest.mark.parametrize(
        ("xdg", "home", "expected"),
        [
            ("/caches", "/home/me", "/caches/esper"),
            (None, "/home/me", "/home/me/.cache/esper"),
            ("", "/home/me", "/home/me/.cache/esper"),
            ("caches", "/home/me", "/home/me/.cache/esper"),
            ("~/caches", "/home/me", "/home/me/.cache/esper"),
            (None, None, "/users/me/.cache/esper"),
            ("", "", "/users/me/.cache/esper"),
            ("caches", "home/me", "/users/me/.cache/esper"),
            (None, "/", "/users/me/.cache/esper"),
            (None, "//", "/users/me/.cache/esper"),
        ],
    )
    def test_an_absolute_path_below_a_home(
        self, monkeypatch: pytest.MonkeyPatch, xdg: str | None, home: str | None, expected: str
    ) -> None:
        for name, value in (("XDG_CACHE_HOME", xdg), ("HOME", home)):
            monkeypatch.delenv(name, raising=False)
            if value is not None:
                monkeypatch.setenv(name, value)
        assert library.cache_folder() == Path(expected)

    @pytest.mark.parametrize("of_passwd", [None, "", "/"])
    def test_without_a_home_kernels_are_there_for_this_run(
        self,
        here: Place,
        monkeypatch: pytest.MonkeyPatch,
        caplog: pytest.LogCaptureFixture,
        of_passwd: str | None,
    ) -> None:
        self.give(monkeypatch, of_passwd)
        monkeypatch.setenv("XDG_CACHE_HOME", "")
        monkeypatch.setenv("HOME", "")
        assert str(library.load_library().library.esper_learner()) == ANSWER
        assert [record.message for record in caplog.records] == [
            "compiled kernels cannot be kept (neither XDG_CACHE_HOME nor HOME is the absolute path of a folder): "
            "they are compiled for this run alone"
        ]

"""A folder as bytes, to bring it from one machine to another."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from esper.storage import files


def read_folder(folder: Path, *, without: tuple[str, ...] = (), last: str = "") -> dict[str, bytes]:
    """The files below `folder` by relative name, but hidden ones and those in `without`; the one called `last` last.

    Raises:
        OSError: when one cannot be read, or was removed in between.
    """
    names = sorted(_names_below(folder, folder, without), key=lambda name: name == last)
    return {name: _content(folder / name, folder) for name in names}


def write_folder(folder: Path, contents: Mapping[str, bytes], *, last: str = "", replaced: str = "") -> None:
    """Write `contents` into `folder`, which must exist, each file atomically, and those called `last` last.

    Then what is not in `contents` is removed from the folder `replaced`.

    Raises:
        OSError: when one cannot be written.
        ValueError: for a name that leads out of `folder`.
    """
    for name in sorted(contents, key=lambda name: PurePosixPath(name).name == last):
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"{name!r:.60} is not a name in {folder}")
        for parent in [*path.parents][-2::-1]:
            files.make_folder(folder / parent, root=folder)
        files.write(folder / name, contents[name], root=folder)
    if replaced:
        kept = {path.parts[1] for path in map(PurePosixPath, contents) if path.parts[0] == replaced}
        for name in files.names_in(folder / replaced, root=folder) if kept else ():
            if name not in kept:
                files.remove(folder / replaced / name, root=folder)


def _content(path: Path, folder: Path) -> bytes:
    with files.open_to_read(path, root=folder) as file:
        return file.read()


def _names_below(path: Path, folder: Path, without: tuple[str, ...]) -> Iterator[str]:
    for name in files.names_in(path, root=folder):
        if name.startswith(".") or name in without:
            continue
        below = path / name
        with contextlib.suppress(NotADirectoryError):
            yield from _names_below(below, folder, without)
            continue
        yield below.relative_to(folder).as_posix()

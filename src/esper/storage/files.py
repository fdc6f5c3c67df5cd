"""The files of a run's folder, which may come from someone else: the one way to open, write, rename and remove them.

`root` is the folder that the user named; links in its own path are followed. Below it no link is followed and only
regular files are opened: every name is looked up in an open folder, so that it cannot be exchanged between check and
use. Without a `root` it is the folder of the file.

Refusals are `OSError`s like those of the system; `why` turns them into text with the file's name.
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NoReturn

MAX_DEPTH = 100
_FLAGS = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: tuple[tuple[Callable[[int], bool], str], ...] = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_TEMPORARY = re.compile(r"\..*\.[0-9a-f]{16}\.tmp", re.DOTALL)


def read(path: Path, limit: int, *, root: Path | None = None) -> bytes:
    """The content of the regular file at `path`, at most `limit` bytes."""
    with open_to_read(path, root=root) as file:
        size = os.fstat(file.fileno()).st_size
        data = file.read(limit + 1) if size <= limit else b""
        if size > limit or len(data) > limit:
            raise OSError(errno.EFBIG, f"has {max(size, len(data)):,} bytes; at most {limit:,} are read", str(path))
        return data


def open_to_read(path: Path, *, root: Path | None = None) -> BinaryIO:
    """The regular file at `path`, open for reading."""
    return open(_open(path, os.O_RDONLY, root), "rb")


def read_named(path: Path, limit: int) -> bytes:
    """The same for a file that the user named: it may be a link, except in the folder of a run."""
    return read(path if path.name == "config.json" else Path(os.path.realpath(path)), limit)


def open_in_place(path: Path, *, create: bool = False, root: Path | None = None) -> int:
    """A descriptor to read and write the regular file at `path`, which must have no hard links."""
    descriptor = _open(path, os.O_RDWR | (os.O_CREAT if create else 0), root)
    if os.fstat(descriptor).st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "has a hard link, and writing would change that, too", str(path))
    return descriptor


def open_new(path: Path, *, root: Path | None = None) -> BinaryIO:
    """A new file at `path`, which must not exist."""
    with _folder(path.parent, root) as folder:
        return open(_create(path.name, folder), "wb")


def write_new(path: Path, data: bytes, *, root: Path | None = None) -> None:
    """Write `data` to a new file at `path`, which must not exist, and flush it to the disk."""
    with open_new(path, root=root) as file:
        _write_flushed(file, data)


def write(path: Path, data: bytes | Iterable[bytes], *, root: Path | None = None) -> None:
    """Write `data` to a new file beside `path`, flush it to the disk, and rename it to `path`."""
    with _folder(path.parent, root) as folder:
        with contextlib.suppress(FileNotFoundError):
            _check_file(os.stat(path.name, dir_fd=folder, follow_symlinks=False), path)
        temporary = temporary_name(path.name)
        try:
            with open(_create(temporary, folder), "wb") as file:
                _write_flushed(file, data)
            os.replace(temporary, path.name, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=folder)
            raise
        os.fsync(folder)


def write_named(path: Path, data: bytes | Iterable[bytes]) -> None:
    """The same for a file that the user named: the folders above it are made."""
    make_named_folder(path.parent)
    write(path, data)


def check_named(path: Path) -> None:
    """Refuse, without writing anything, most of what `write_named` refuses.

    Raises:
        OSError: naming what is in the way.
    """
    there = next(folder for folder in path.absolute().parents if os.path.lexists(folder))
    if not there.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(there))
    if not os.access(there, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "this user may not write in it", str(there))
    with contextlib.suppress(FileNotFoundError):
        _check_file(os.stat(path, follow_symlinks=False), path)


def temporary_name(name: str) -> str:
    """A random name, for a file that is renamed to `name` when it is complete."""
    beginning = os.fsdecode(os.fsencode(name)[:100])
    return f".{beginning}.{secrets.token_hex(8)}.tmp"


def is_temporary(name: str) -> bool:
    """Whether `temporary_name` made it."""
    return _TEMPORARY.fullmatch(name) is not None


def make_folder(path: Path, *, new: bool = False, root: Path | None = None) -> None:
    """Make a folder at `path`; it may exist unless `new`."""
    with _folder(path.parent, root) as folder:
        try:
            os.mkdir(path.name, dir_fd=folder)
        except FileExistsError:
            if new:
                raise
            os.close(_enter(folder, path.name, path))


def make_named_folder(path: Path) -> None:
    """Make the folder `path`, which the user named, and those above it; it may exist."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        there = next(each for each in (path, *path.parents) if os.path.lexists(each))
        raise NotADirectoryError(errno.ENOTDIR, "is no folder", str(there)) from None


def flush_folder(path: Path, *, root: Path | None = None) -> None:
    """Make renames in `path` survive a loss of power."""
    with _folder(path, root) as folder:
        os.fsync(folder)


def names_in(path: Path, *, root: Path | None = None) -> list[str]:
    """The names in folder `path`, in no order."""
    with _folder(path, root) as folder:
        return os.listdir(folder)


def is_there(path: Path, *, root: Path | None = None) -> bool:
    """Whether anything is at `path`, also a broken link."""
    with contextlib.suppress(OSError), _folder(path.parent, root) as folder:
        os.stat(path.name, dir_fd=folder, follow_symlinks=False)
        return True
    return False


def size_of(path: Path, *, root: Path | None = None) -> int:
    """The size of the regular file at `path` in bytes."""
    with open_to_read(path, root=root) as file:
        return os.fstat(file.fileno()).st_size


def rename(path: Path, name: str, *, root: Path | None = None) -> Path:
    """Rename `path` to `name` in the same folder; returns the new path."""
    with _folder(path.parent, root) as folder:
        os.rename(path.name, name, src_dir_fd=folder, dst_dir_fd=folder)
    return path.with_name(name)


def remove(path: Path, *, root: Path | None = None) -> None:
    """Remove what is at `path`, if anything: a folder with its content, a link without its target."""
    with contextlib.suppress(FileNotFoundError), _folder(path.parent, root) as folder:
        if stat.S_ISDIR(os.stat(path.name, dir_fd=folder, follow_symlinks=False).st_mode):
            shutil.rmtree(path.name, dir_fd=folder)
        else:
            os.unlink(path.name, dir_fd=folder)


def check_files(folder: Path, names: Mapping[str, Any]) -> None:
    """Refuse `folder` if one of `names` exists in it and is of the wrong kind.

    A value is None for a file, or the names in it for a folder.

    Raises:
        OSError: naming the first.
    """

    def check(path: Path, names: Mapping[str, Any]) -> None:
        with _folder(path, folder) as descriptor:
            for name, inner in names.items():
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if inner is None:
                        _check_file(status, path / name)
                    else:
                        os.close(_enter(descriptor, name, path / name))
                        check(path / name, inner)

    check(folder, names)


def find(folder: Path, name: str) -> Iterator[Path]:
    """The folders from `folder` down, without following links, that have an entry `name`."""
    left = [folder]
    while left:
        path = left.pop()
        with contextlib.suppress(OSError), os.scandir(path) as entries:
            found = list(entries)
            left += [path / entry.name for entry in found if entry.is_dir(follow_symlinks=False)]
            if any(entry.name == name for entry in found):
                yield path


def why(error: Exception) -> str:
    """`error` as text, with the file's name if it has one."""
    if isinstance(error, OSError) and error.strerror:
        return f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    return str(error)


def dump_json(value: Mapping[str, Any]) -> bytes:
    """Strict JSON: a number that is not finite is a ValueError."""
    return json.dumps(value, indent=2, allow_nan=False).encode() + b"\n"


def parse_json(data: bytes) -> Any:
    """The value of strict JSON `data`: finite numbers, text that can be encoded, at most `MAX_DEPTH` deep.

    Raises:
        ValueError: for anything else.
    """
    try:
        value = json.loads(data, parse_constant=_refuse_constant)
    except RecursionError as error:
        raise ValueError(str(error)) from None
    branches = [value]
    for _ in range(MAX_DEPTH):
        below: list[Any] = []
        for branch in branches:
            if isinstance(branch, dict):
                below += branch
                below += branch.values()
            elif isinstance(branch, list):
                below += branch
            elif isinstance(branch, str):
                branch.encode()  # a half of a surrogate pair is an UnicodeEncodeError, which is a ValueError
            elif isinstance(branch, float) and not math.isfinite(branch):
                raise ValueError("a number is too large")
        branches = below
    if branches:
        raise ValueError(f"nested more than {MAX_DEPTH} deep")
    return value


def printable(text: object) -> str:
    """`text` for a terminal: control characters are escaped, except line ends and tabs."""
    text = str(text)
    return (
        text
        if text.isprintable()
        else "".join(
            character if character.isprintable() or character in "\n\t" else repr(character)[1:-1] for character in text
        )
    )


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number in JSON")


@contextlib.contextmanager
def _folder(path: Path, root: Path | None) -> Iterator[int]:
    """A descriptor of folder `path`, opened from `root` name by name."""
    descriptor = os.open(root or path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        here = root or path
        for name in path.relative_to(here).parts:
            here /= name
            below = _enter(descriptor, name, here)
            os.close(descriptor)
            descriptor = below
        yield descriptor
    except OSError as error:
        # Errors about a name in a folder have only the name.
        if isinstance(error.filename, str) and os.sep not in error.filename:
            error.filename = str(path / error.filename)
        raise
    finally:
        os.close(descriptor)


def _enter(descriptor: int, name: str, path: Path) -> int:
    """A descriptor of the folder called `name` in another one; `path` is for the message."""
    try:
        return os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=descriptor)
    except NotADirectoryError:
        mode = os.stat(name, dir_fd=descriptor, follow_symlinks=False).st_mode
        if stat.S_ISREG(mode):
            raise NotADirectoryError(errno.ENOTDIR, "is a file, not a folder", str(path)) from None
        raise OSError(errno.ELOOP, "is a link" if stat.S_ISLNK(mode) else "is not a folder", str(path)) from None


def _open(path: Path, flags: int, root: Path | None) -> int:
    with _folder(path.parent, root) as folder:
        # Opening a device can have effects, so the kind is checked before, too.
        with contextlib.suppress(FileNotFoundError):
            _check_file(os.stat(path.name, dir_fd=folder, follow_symlinks=False), path)
        descriptor = os.open(path.name, flags | _FLAGS, 0o666, dir_fd=folder)
    try:
        _check_file(os.fstat(descriptor), path)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _create(name: str, folder: int) -> int:
    return os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | _FLAGS, 0o666, dir_fd=folder)


def _write_flushed(file: BinaryIO, data: bytes | Iterable[bytes]) -> None:
    file.writelines([data] if isinstance(data, bytes) else data)
    file.flush()
    os.fsync(file.fileno())


def _check_file(status: os.stat_result, path: Path) -> None:
    if stat.S_ISLNK(status.st_mode):
        raise OSError(errno.ELOOP, "is a link", str(path))
    if not stat.S_ISREG(status.st_mode):
        kind = next((kind for is_kind, kind in _KINDS if is_kind(status.st_mode)), "something else")
        raise OSError(errno.EINVAL, f"not a file, but {kind}", str(path))

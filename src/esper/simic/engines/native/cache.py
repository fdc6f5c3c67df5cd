"""A folder of compiled files that others cannot write: each is checked before it is used, and replaced as a whole."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import re
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_log = logging.getLogger(__name__)

SCRATCH_PREFIX = "esper-kernels-"
_DIGEST_SIZE = hashlib.sha256().digest_size
# Bytes. The kernels have about 1.5 million; what is much larger is something else, and is not read.
_LARGEST = 2**26
# Seconds after which a temporary file belongs to a process that was killed.
_ABANDONED = 3600.0


class Kept(NamedTuple):
    """Content that was checked, and the open file that it was read from."""

    content: bytes
    descriptor: int


class Cache:
    """Files in one folder. This user or root owns them, and nobody else may write them.

    Owner and mode keep others out. The checksum behind the content of each file finds damage; it is no signature.
    """

    def __init__(self, path: Path, folder: int) -> None:
        self.path, self._folder = path, folder

    def open(self, name: str) -> Kept:
        """Open and check a file; the caller closes the descriptor.

        Raises:
            FileNotFoundError: when there is none.
            OSError: when it is no regular file, others may have written it, or it is damaged.
        """
        # Without O_NONBLOCK a FIFO would wait for a writer.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(name, flags, dir_fd=self._folder)
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise OSError("it is a symbolic link") from None
            raise
        try:
            return Kept(_checked_content(name, descriptor), descriptor)
        except BaseException:
            os.close(descriptor)
            raise

    def write(self, name: str, content: bytes) -> None:
        """Replace whatever has this name. After a crash there is the old content or the new, never a part.

        Raises:
            OSError: when that fails; then no part of it is left.
        """
        temporary = f"{SCRATCH_PREFIX}{secrets.token_hex(4)}"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with contextlib.ExitStack() as stack:
            with open(os.open(temporary, flags, 0o644, dir_fd=self._folder), "wb") as file:
                stack.callback(self._remove, temporary)
                os.fchmod(file.fileno(), 0o644)  # whatever the umask
                file.write(content + _digest(name, content))
                file.flush()
                os.fsync(file.fileno())
            try:
                os.replace(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            except IsADirectoryError:
                shutil.rmtree(name, dir_fd=self._folder)
                os.replace(temporary, name, src_dir_fd=self._folder, dst_dir_fd=self._folder)
            stack.pop_all()
        # Some network file systems cannot sync a folder. A name that is lost costs a compilation.
        with contextlib.suppress(OSError):
            os.fsync(self._folder)

    @contextlib.contextmanager
    def lock(self, patience: float) -> Iterator[None]:
        """One process at a time, where the file system has locks. A process that dies releases its lock.

        After `patience` seconds it goes on without the lock.
        """
        # The folder itself is locked: a lock file would be one more file to check, and to leave behind.
        deadline = None
        with contextlib.suppress(OSError):
            while True:
                try:
                    fcntl.flock(self._folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if deadline is None:
                        deadline = time.monotonic() + patience
                        _log.info("waiting for another process that compiles into %s", self.path)
                    elif time.monotonic() > deadline:
                        break
                    time.sleep(0.05)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):
                fcntl.flock(self._folder, fcntl.LOCK_UN)

    def _remove(self, name: str) -> None:
        with contextlib.suppress(OSError):
            os.unlink(name, dir_fd=self._folder)


@contextlib.contextmanager
def open_cache(path: Path) -> Iterator[Cache]:
    """The cache at `path`, a folder that is made if it is missing.

    Raises:
        OSError: when there can be no such folder, or others may write it.
    """
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    try:
        folder = os.open(path, flags)
    except FileNotFoundError:
        path.parent.mkdir(0o700, parents=True, exist_ok=True)
        path.mkdir(0o700, exist_ok=True)
        folder = os.open(path, flags)
    try:
        reason = _writable_by_others(os.fstat(folder))
        if reason is not None:
            raise PermissionError(f"{path}: {reason}")
        yield Cache(path, folder)
    finally:
        os.close(folder)


def remove_abandoned(folder: Path, *prefixes: str) -> None:
    """Remove this user's temporary files of `folder` that processes left behind when they were killed."""
    names = re.compile(rf"({'|'.join(map(re.escape, prefixes))})[a-z0-9_]{{8}}")
    oldest = time.time() - _ABANDONED
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if not names.fullmatch(entry.name):
                continue
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                if status.st_uid != os.geteuid() or status.st_mtime > oldest:
                    continue
                if entry.is_dir(follow_symlinks=False):
                    shutil.rmtree(entry.path)
                else:
                    os.unlink(entry.path)


def mounted_noexec(folder: str) -> bool:
    """Whether libraries cannot be loaded from there."""
    return bool(os.statvfs(folder).f_flag & getattr(os, "ST_NOEXEC", 0))


def _checked_content(name: str, descriptor: int) -> bytes:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        raise OSError("it is no regular file")
    reason = _writable_by_others(status)
    if reason is not None:
        raise PermissionError(reason)
    if not _DIGEST_SIZE < status.st_size <= _LARGEST:
        raise OSError(f"it is damaged: it has {status.st_size} bytes")
    with open(descriptor, "rb", closefd=False) as file:
        read = file.read(_LARGEST)
    content, digest = read[:-_DIGEST_SIZE], read[-_DIGEST_SIZE:]
    if digest != _digest(name, content):
        raise OSError("it is damaged: its checksum is wrong")
    return content


def _digest(name: str, content: bytes) -> bytes:
    # With the name, so that one file does not pass for another.
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _writable_by_others(status: os.stat_result) -> str | None:
    if status.st_uid not in (0, os.geteuid()):
        return f"it belongs to the user with id {status.st_uid}"
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        return f"others may write it (mode {stat.S_IMODE(status.st_mode):o}); `chmod go-w` changes that"
    return None

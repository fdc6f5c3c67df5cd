"""A checkpoint: a folder with `state.safetensors`, `state.json`, and their checksums in `manifest.json`.

It is created by one rename, so a folder with its final name is complete, unless the disk failed or someone changed it;
the checksums detect that. Neither it nor its parent may be a link.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from esper.storage import files
from esper.storage.store import (
    MAX_JSON_BYTES,
    MAX_TENSOR_BYTES,
    CorruptError,
    StoreError,
    dump_tensors,
    parse_json,
    parse_tensors,
    read_bytes,
)
from esper.storage.tree import TreeError, merge, split

# Version of the state: raised when something in it is removed, or changes its meaning. In 1 the clock of schedules did
# not count undone updates.
SCHEMA = 2
MANIFEST, JSON, TENSORS = "manifest.json", "state.json", "state.safetensors"
_LIMITS = {JSON: MAX_JSON_BYTES, TENSORS: MAX_TENSOR_BYTES}
_MAX_MANIFEST_BYTES = 4096
# The number of updates before it, and how many checkpoints had that number already.
_NAME = re.compile(r"(\d{8,18})(?:\.(\d{1,9}))?")
_OLD_TEMPORARY = re.compile(rf"\.{_NAME.pattern}\.tmp")


class Stored(NamedTuple):
    """A checkpoint as it was written: the tree, and its schema version."""

    tree: dict[str, Any]
    schema: int


def save_checkpoint(path: Path, tree: Mapping[str, Any], *, schema: int = SCHEMA) -> None:
    """Write `tree` as the new folder `path`, all or nothing.

    Raises:
        StoreError: when it cannot be written, with the reason.
    """
    temporary, run = path.with_name(files.temporary_name(path.name)), path.parent.parent
    try:
        tensors, rest = split(tree)
        contents = {JSON: files.dump_json(rest), TENSORS: dump_tensors(tensors)}
    except (TypeError, ValueError) as error:
        raise StoreError(f"{path}: cannot be written: {error}") from None
    try:
        for name, data in contents.items():
            if len(data) > _LIMITS[name]:
                raise StoreError(f"{path / name}: {len(data):,} bytes; at most {_LIMITS[name]:,} can be read back")
        files.make_folder(temporary, new=True, root=run)
        for name, data in contents.items():
            files.write_new(temporary / name, data, root=run)
        prints = {name: _fingerprint(data) for name, data in contents.items()}
        files.write_new(temporary / MANIFEST, files.dump_json({"schema": schema, "files": prints}), root=run)
        files.flush_folder(temporary, root=run)
        files.rename(temporary, path.name, root=run)
        files.flush_folder(path.parent, root=run)
    except OSError as error:
        with contextlib.suppress(OSError):
            files.remove(temporary, root=run)
        raise StoreError(f"{path}: cannot be written: {error.strerror or error}") from None


def load_checkpoint(path: Path) -> dict[str, Any]:
    """The tree in folder `path`, whatever its schema; as `read_checkpoint`."""
    return read_checkpoint(path).tree


def read_checkpoint(path: Path, *, root: Path | None = None) -> Stored:
    """What is in folder `path`; tensors on the CPU. `root` is the folder of the run, by default two above.

    Memory use is bounded by `MAX_JSON_BYTES` and `MAX_TENSOR_BYTES`, and by the sizes of the files.

    Raises:
        CorruptError: when a file is missing, or not as it was written; when the checkpoint itself is a file.
        StoreError: when it is complete, but not readable by this version. Both name the file and what is wrong with it.
    """
    run = root or path.parent.parent
    try:
        files.names_in(path, root=run)
    except NotADirectoryError as error:
        raise CorruptError(files.why(error)) from None
    except OSError as error:
        raise StoreError(files.why(error)) from None
    schema, prints = _read_manifest(path / MANIFEST, run)
    contents = {}
    for name, fingerprint in prints.items():
        contents[name] = read_bytes(path / name, _LIMITS[name], root=run)
        if _fingerprint(contents[name]) != fingerprint:
            raise CorruptError(f"{path / name}: does not have its original size and checksum")
    rest = parse_json(contents.pop(JSON), path / JSON)
    try:
        return Stored(merge(parse_tensors(contents.pop(TENSORS), path / TENSORS), rest), schema)
    except TreeError as error:
        raise StoreError(f"{path / TENSORS}: {error}") from None


def checkpoints_in(parent: Path) -> list[Path]:
    """The checkpoints in folder `parent`, the newest first, complete or not.

    Raises:
        StoreError: when it is not a folder.
    """
    try:
        names = files.names_in(parent, root=parent.parent)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise StoreError(files.why(error)) from None
    found = filter(None, map(_NAME.fullmatch, names))
    return [parent / match[0] for match in sorted(found, key=_order, reverse=True)]


def new_checkpoint_path(parent: Path, number: int) -> Path:
    """A new name for the checkpoint after `number` updates, newer than all existing ones with that number."""
    taken = [_order(_NAME.fullmatch(path.name)) for path in checkpoints_in(parent)]
    same = [repeat for updates, repeat in taken if updates == number]
    return parent / (f"{number:08}.{max(same) + 1}" if same else f"{number:08}")


def set_aside(path: Path) -> Path:
    """Rename the broken checkpoint `path`, so that it is no longer the newest."""
    name, run = f"{path.name}.broken", path.parent.parent
    files.remove(path.with_name(name), root=run)
    return files.rename(path, name, root=run)


def prune(parent: Path, keep: int, newest: Path) -> None:
    """Remove all but the `keep` newest checkpoints in `parent`; `newest` is always kept."""
    for path in checkpoints_in(parent)[keep:]:
        if path != newest:
            # Renamed first: a half removed checkpoint must not look like one.
            run = parent.parent
            files.remove(files.rename(path, files.temporary_name(path.name), root=run), root=run)


def remove_leftovers(parent: Path) -> None:
    """Remove what a killed writer left in `parent`."""
    for name in files.names_in(parent, root=parent.parent):
        if files.is_temporary(name) or _OLD_TEMPORARY.fullmatch(name):
            files.remove(parent / name, root=parent.parent)


def _read_manifest(path: Path, run: Path) -> tuple[int, dict[str, Any]]:
    """The schema of a checkpoint, and the fingerprints of its files.

    It has no checksum itself: a file that is not a manifest is damaged, unless it is from a newer version.
    """
    data = read_bytes(path, _MAX_MANIFEST_BYTES, root=run)
    try:
        manifest = parse_json(data, path)
    except StoreError as error:
        raise CorruptError(str(error)) from None
    schema = manifest.get("schema")
    if type(schema) is not int or schema < 1:
        raise CorruptError(f"{path}: schema {schema!r:.60} is not a version")
    if schema > SCHEMA:
        raise StoreError(f"{path}: schema {schema!r:.60} is newer than the {SCHEMA} that this version reads; upgrade")
    prints = manifest.get("files")
    if not isinstance(prints, dict) or set(prints) != set(_LIMITS):
        raise CorruptError(f"{path}: must name the files {', '.join(_LIMITS)} and no others")
    return schema, prints


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def _order(match: re.Match[str] | None) -> tuple[int, int]:
    assert match is not None
    return int(match[1]), int(match[2] or 0)

"""What of a run is shared: its files by name, with their largest sizes. What can be pushed can be pulled."""

from __future__ import annotations

import re
import shutil
from collections.abc import Collection
from pathlib import Path

from esper.policies.policy import read_policy
from esper.runs.folder import BEST
from esper.runs.layers import MAX_FILE_BYTES, RECORD
from esper.storage import files
from esper.storage.store import MAX_JSON_BYTES, MAX_TENSOR_BYTES, StoreError

CARD, PICTURE, GIF, REPORT = "README.md", "training.png", "episode.gif", "report"
_POLICY = {"policy.json": MAX_JSON_BYTES, "policy.safetensors": MAX_TENSOR_BYTES}
# Without these it is no run that can be evaluated and reported.
NEEDED = (RECORD, "events.jsonl", *_POLICY)
_LIMITS = {
    CARD: MAX_FILE_BYTES,
    RECORD: MAX_FILE_BYTES,
    "events.jsonl": 4 * 2**30,
    **_POLICY,
    **{f"{BEST}/{name}": limit for name, limit in _POLICY.items()},
    PICTURE: 32 * 2**20,
    GIF: 256 * 2**20,
}
_OF_REPORT = re.compile(rf"{REPORT}/[a-z0-9-]{{1,40}}\.png", re.ASCII)
_MOST_OF_REPORT = 20


class HubError(Exception):
    """A run cannot be pushed or pulled; the message says which, and why."""


def shared(names: Collection[str]) -> dict[str, int]:
    """Those of `names` that are files of a shared run, each with its largest size in bytes."""
    pictures = sorted(filter(_OF_REPORT.fullmatch, names))[:_MOST_OF_REPORT]
    return {name: limit for name, limit in _LIMITS.items() if name in names} | dict.fromkeys(pictures, _LIMITS[PICTURE])


def shared_files(run_dir: Path) -> list[str]:
    """The files in `run_dir` that are shared, without the card.

    Raises:
        HubError: when one is missing, no regular file or too large; when the policy cannot be read.
    """
    try:
        inside = (f"{folder}/{name}" for folder in (BEST, REPORT) for name in _names_in(run_dir / folder, run_dir))
        found = shared({*files.names_in(run_dir), *inside})
        found.pop(CARD, None)
        if missing := [name for name in NEEDED if name not in found]:
            raise HubError(f"{run_dir}: has no {missing[0]}; give the folder of a run that has ended")
        check_sizes({name: files.size_of(run_dir / name, root=run_dir) for name in found}, str(run_dir))
        for folder in (run_dir, *([run_dir / BEST] if f"{BEST}/policy.json" in found else [])):
            read_policy(folder)
    except OSError as error:
        raise HubError(files.why(error)) from None
    except StoreError as error:
        raise HubError(str(error)) from None
    return list(found)


def _names_in(folder: Path, run_dir: Path) -> list[str]:
    return files.names_in(folder, root=run_dir) if files.is_there(folder, root=run_dir) else []


def check_sizes(sizes: dict[str, int], where: str) -> None:
    """Refuse `sizes`, in bytes by name, of a shared run if one is over its limit.

    Raises:
        HubError: naming the first; `where` it is, is for the message.
    """
    limits = shared(sizes)
    for name, size in sizes.items():
        if size > limits[name]:
            raise HubError(f"{where}: {name} has {size:,} bytes; at most {limits[name]:,} are shared")


def copy_shared(run_dir: Path, names: Collection[str], card: str, folder: Path) -> None:
    """Write `card` and the files `names` of `run_dir` into the new folder `folder`.

    Raises:
        OSError: when one cannot be read or written.
    """
    files.make_folder(folder, new=True)
    for parent in dict.fromkeys(Path(name).parent for name in names if "/" in name):
        files.make_folder(folder / parent, root=folder)
    files.write_new(folder / CARD, card.encode(errors="backslashreplace"), root=folder)
    for name in names:
        with (
            files.open_to_read(run_dir / name, root=run_dir) as source,
            files.open_new(folder / name, root=folder) as target,
        ):
            shutil.copyfileobj(source, target)

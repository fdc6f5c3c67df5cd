"""A run's folder, and the lock that lets one process at a time write to it."""

from __future__ import annotations

import errno
import fcntl
import itertools
import logging
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.runs.config import RunConfig
from esper.runs.layers import recorded
from esper.schedules.function import CUSTOM, is_function
from esper.settings.options import ConfigError
from esper.settings.values import spelled
from esper.simic.config import SCHEDULES
from esper.simic.nets.activations import ACTIVATIONS
from esper.storage import files
from esper.storage.trust import unnamed_import
from esper.system.shell import quoted

_log = logging.getLogger(__name__)

BEST = "best"
CHECKPOINTS = "checkpoints"
VIDEOS = "videos"
_POLICY: Mapping[str, Any] = {"policy.json": None, "policy.safetensors": None}
# What a run writes in its folder: None for a file, the contents for a folder.
_WRITTEN = {
    **dict.fromkeys((".lock", "config.json", "events.jsonl", "training.png")),
    **_POLICY,
    BEST: _POLICY,
    CHECKPOINTS: {},
    "tensorboard": {},
    VIDEOS: {},
}
# What a run has before its first checkpoint.
_BEGUN = frozenset({".lock", "config.json", "events.jsonl", "tensorboard", "wandb", "mlflow", CHECKPOINTS})


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """`path`, locked until `close` or the end of the process, however it ends."""

    path: Path
    lock: int | None

    @property
    def config(self) -> Path:
        return self.path / "config.json"

    @property
    def events(self) -> Path:
        return self.path / "events.jsonl"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        return self.path / CHECKPOINTS

    @property
    def best(self) -> Path:
        return self.path / BEST

    @property
    def picture(self) -> Path:
        return self.path / "training.png"

    def close(self) -> None:
        if self.lock is not None:
            os.close(self.lock)


def create_run_folder(config: RunConfig) -> RunFolder:
    """The folder of `config`, new, empty or of a run without a checkpoint, with `config` in it.

    Raises:
        ConfigError: when it is not empty, cannot be written, or is in use.
    """
    return create_folder(_path_for(config), recorded(config))


def create_folder(path: Path, settings: Mapping[str, Any]) -> RunFolder:
    """The folder `path`, as `create_run_folder`, with `settings` in it."""
    try:
        files.make_named_folder(path)
        folder = open_run_folder(path)
        try:
            _check_empty(path)
            # The first file: a run that is killed from here on can be resumed.
            files.write(folder.config, files.dump_json(settings))
        except BaseException:
            folder.close()
            raise
    except OSError as error:
        raise ConfigError("run_dir", str(path), f"cannot be written: {error.strerror}") from None
    return folder


def check_new_folder(config: RunConfig) -> None:
    """Refuse, without writing anything, most of what `create_run_folder` refuses.

    Raises:
        ConfigError: when the folder is not empty, cannot be written, or is in use.
    """
    path = _path_for(config)
    check_writable(path)
    if path.exists():
        check_not_in_use(path)
        _check_empty(path)


def check_writable(path: Path) -> None:
    """Refuse, without writing anything, a `path` in which this user can neither write nor make a folder.

    Raises:
        ConfigError: for such a path.
    """
    there = next(folder for folder in (path, *path.absolute().parents) if os.path.lexists(folder))
    if not there.is_dir():
        raise ConfigError("run_dir", str(path), f"cannot be written: {there} is no folder")
    if not os.access(there, os.W_OK | os.X_OK):
        raise ConfigError("run_dir", str(path), f"cannot be written: this user may not write in {there}")


def check_not_in_use(path: Path) -> None:
    """Refuse, without writing anything, a folder that another process uses.

    Raises:
        ConfigError: as `open_run_folder`.
    """
    if os.path.lexists(path / ".lock"):
        open_run_folder(path).close()


def _path_for(config: RunConfig) -> Path:
    return path_of_run(config.run_dir, config.environment.env, config.seed)


def path_of_run(run_dir: str | Path | None, env: str, seed: int | str) -> Path:
    """`run_dir`; by default a folder that is not there yet, named by environment, time and seed (or "seeds")."""
    if run_dir:
        return Path(run_dir)
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-{seed}"
    path = Path("runs") / env.strip("<>").replace("/", "-") / name
    # Two runs can begin within a second.
    others = (path.with_name(f"{name}-{number}") for number in itertools.count(2))
    return path if not os.path.lexists(path) else next(other for other in others if not os.path.lexists(other))


def _check_empty(path: Path) -> None:
    # Hidden files are the lock, and leftovers of a run that was killed before it began.
    try:
        names = files.names_in(path)
        checkpoints = files.names_in(path / CHECKPOINTS) if CHECKPOINTS in names else []
    except OSError as error:
        raise ConfigError("run_dir", str(path), f"cannot be read: {error.strerror}") from None
    # Killed before its first checkpoint, a run has nothing to lose. Without the lock the files are not of a run.
    if ".lock" in names and _BEGUN.issuperset(names) and all(name.startswith(".") for name in checkpoints):
        return
    if any(not name.startswith(".") for name in names):
        allowed = "has files in it; name a new or an empty folder, or resume with  esper ppo --resume  or esper.resume"
        raise ConfigError("run_dir", str(path), allowed)


def write_config(folder: RunFolder, config: RunConfig) -> None:
    """Store the settings for a resume without flags.

    Raises:
        OSError: when it cannot be written.
    """
    files.write(folder.config, files.dump_json(recorded(config)))


def open_run_folder(path: Path) -> RunFolder:
    """The folder `path`, which must exist.

    Raises:
        ConfigError: when another process uses it, it cannot be written, or it has a link where a run writes.
    """
    # The file is kept: if it were removed, one process could lock the old file and another a new one.
    try:
        files.check_files(path, _WRITTEN)
        lock = files.open_in_place(path / ".lock", create=True)
    except OSError as error:
        raise ConfigError("run_dir", str(path), f"cannot be written: {files.why(error)}") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise ConfigError("run_dir", str(path), "is in use by another process that trains in it") from None
    except OSError as error:
        os.close(lock)
        if error.errno not in (errno.ENOLCK, errno.ENOTSUP):
            raise
        _log.warning("%s: this file system has no locks; take care that only one process trains in it", path)
        return RunFolder(path=path, lock=None)
    return RunFolder(path=path, lock=lock)


def named_again(config: RunConfig) -> str:
    """The flags, after a space, that permit a command to import the modules that this run's files name."""
    names = {"env": config.environment.env, "encoder": spelled(config.ppo.network.encoder)}
    flags = [f" --{name} {quoted(value)}" for name, value in names.items() if ":" in value and value[0] != "<"]
    trust = unnamed_import({"env_kwargs": config.environment.env_kwargs}, {})
    return " --trust" if trust else "".join(flags)


def only_in_python(config: RunConfig) -> list[str]:
    """What a resume needs that only Python can give, as arguments of `esper.resume`."""
    encoder, activation = spelled(config.ppo.network.encoder), spelled(config.ppo.network.activation)
    parts = [
        *config.parts.given,
        *["encoder"] * encoder.startswith("<"),
        *["activation"] * (activation not in ACTIVATIONS),
    ]
    return ["env"] * config.environment.was_given + [f"{name}=..." for name in parts]


def begin_again(path: Path, config: RunConfig) -> str | None:
    """What trains as the run in `path` did, with another seed; None where its files do not have all of it."""
    schedules = {name: getattr(config.ppo, name) for name in SCHEDULES}
    if (
        only_in_python(config)
        or config.initial.was_given
        or any(str(schedule.decay) == CUSTOM for schedule in schedules.values())
    ):
        return None
    named = named_again(config)
    functions = {name: str(schedule.decay) for name, schedule in schedules.items() if is_function(schedule.decay)}
    if functions and named != " --trust":
        named += "".join(f" --{name.replace('_', '-')}-decay {quoted(decay)}" for name, decay in functions.items())
    if config.initial.init_from is not None and named != " --trust":
        named += f" --init-from {quoted(config.initial.init_from)}"
    return f"esper ppo --config {quoted(path / 'config.json')} --seed {config.seed + 1}{named}"


def resume_command(path: Path, config: RunConfig) -> str:
    """The command that resumes a run of `config` from `path`, its folder or a checkpoint; a call if only Python can."""
    if given := only_in_python(config):
        trust = ["trust=True"] if named_again(config) else []
        return f"esper.resume({', '.join([repr(str(path)), *given, *trust])})"
    return f"esper ppo --resume {quoted(path)}{named_again(config)}"

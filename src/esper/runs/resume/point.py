"""Where a run resumes: from a checkpoint, or from its beginning."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from esper.runs.checkpoint.folder import MANIFEST, SCHEMA, checkpoints_in, read_checkpoint
from esper.runs.config import RunConfig
from esper.runs.folder import CHECKPOINTS
from esper.runs.layers import SettingsError, file_layer, recorded_layer, resolve
from esper.runs.resume.functions import with_stored_functions
from esper.runs.resume.rules import Mode
from esper.runs.resume.upgrade import upgraded_settings
from esper.schedules.function import CUSTOM
from esper.settings.options import ConfigError
from esper.simic.config import SCHEDULES
from esper.storage import files
from esper.storage.store import CorruptError, StoreError


@dataclass(frozen=True, kw_only=True)
class ResumePoint:
    """A state to resume from.

    `run_dir` is the run's folder, None for a checkpoint outside of one. `checkpoint` and `state` are None for a run
    that was stopped before its first checkpoint: it restarts. `schema` is the version of the state. `broken` are newer
    checkpoints that are corrupt, with the reasons.
    """

    run_dir: Path | None
    checkpoint: Path | None
    state: Mapping[str, Any] | None
    config: RunConfig
    schema: int = SCHEMA
    broken: Sequence[tuple[Path, str]] = ()

    @property
    def source(self) -> Path:
        """The file or folder that the state is from."""
        source = self.checkpoint or self.run_dir
        assert source is not None
        return source

    def is_in_folder_of(self, config: RunConfig) -> bool:
        """Whether a run of `config` resumes in its own folder."""
        run_dir = self.run_dir
        return run_dir is not None and (config.run_dir is None or Path(config.run_dir).resolve() == run_dir.resolve())


@dataclass(frozen=True, kw_only=True)
class Resume:
    """How to resume: from where, under which schedules, and whether with fresh episodes in any case."""

    point: ResumePoint
    mode: Mode = "continue"
    fresh_episodes: bool = False

    @property
    def keeps_episodes(self) -> bool:
        """Whether the environments continue their episodes."""
        state = self.point.state
        return state is not None and state["training"]["environment"] is not None and not self.fresh_episodes


class ResumeError(Exception):
    """A run cannot be resumed as requested; the message says why."""


def find_resume_point(path: Path) -> ResumePoint:
    """The state to resume from in `path`: a run's newest checkpoint that is not corrupt, or the checkpoint itself.

    Raises:
        StoreError: when there is none, the named one is corrupt, or the newest cannot be read for another reason, as an
            older one could lose progress.
    """
    if is_checkpoint(path):
        return _point(path, path.parent.parent if path.parent.name == CHECKPOINTS else None, [])
    broken: list[tuple[Path, str]] = []
    for checkpoint in checkpoints_in(path / CHECKPOINTS):
        try:
            return _point(checkpoint, path, broken)
        except CorruptError as error:
            broken.append((checkpoint, str(error)))
    if broken:
        reasons = "".join(f"\n  {reason}" for _, reason in broken)
        raise StoreError(f"{path}: none of its checkpoints is complete:{reasons}")
    return _beginning(path)


def is_checkpoint(path: Path) -> bool:
    """Whether `path` is a checkpoint, not the folder of a run."""
    return files.is_there(path / MANIFEST) or path.parent.name == CHECKPOINTS


def _beginning(run_dir: Path) -> ResumePoint:
    """The start of a run that was killed before its first checkpoint."""
    config = run_dir / "config.json"
    if not files.is_there(config):
        what = "has neither a checkpoint nor a config.json" if run_dir.exists() else "No such file or directory"
        raise StoreError(f"{run_dir}: {what}")
    try:
        values = file_layer(config).values
        if custom := [name for name in SCHEDULES if values.get(f"{name}_decay") == CUSTOM]:
            raise StoreError(
                f"{run_dir}: was stopped before its first checkpoint, and its {custom[0]} is a function from Python, "
                f"which is not stored; to begin anew, call esper.train as before, with run_dir={str(run_dir)!r}"
            )
        settings = resolve([recorded_layer(values, str(config))])
        return ResumePoint(run_dir=run_dir, checkpoint=None, state=None, config=settings.config)
    except SettingsError as error:
        raise StoreError(f"{config}: {error}") from None


def _point(checkpoint: Path, run_dir: Path | None, broken: Sequence[tuple[Path, str]]) -> ResumePoint:
    state, schema = read_checkpoint(checkpoint, root=run_dir or checkpoint)
    try:
        settings = upgraded_settings(state.get("config"), schema)
        if not isinstance(settings, dict):
            raise ConfigError("config", settings, "must be the settings of the run")
        settings = with_stored_functions(settings, state.get("schedule"))
        config = resolve([recorded_layer(settings, "checkpoint")]).config
    except (SettingsError, ConfigError, AttributeError, LookupError, TypeError) as error:
        raise StoreError(f"{checkpoint}: {error}") from None
    return ResumePoint(
        run_dir=run_dir, checkpoint=checkpoint, state=state, config=config, schema=schema, broken=tuple(broken)
    )


def check_newest(point: ResumePoint) -> None:
    """Refuse to resume in a run's own folder from a checkpoint that is not its newest.

    Raises:
        ResumeError: naming the newer one.
    """
    if point.run_dir is None:
        return
    broken = [path for path, _ in point.broken]
    whole = [path for path in checkpoints_in(point.run_dir / CHECKPOINTS) if path not in broken]
    if whole and (point.checkpoint is None or whole[0].name != point.checkpoint.name):
        raise ResumeError(
            f"{point.source}: {whole[0].name} is newer, and would be overwritten; resume in another folder with "
            f"--run-dir, or from the newest with  --resume {point.run_dir}"
        )

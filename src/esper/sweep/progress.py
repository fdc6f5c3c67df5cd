"""The progress of each run of a sweep, read from its folder: a sweep has no other state."""

from __future__ import annotations

from esper.runs import begun
from esper.runs.begun import Progress
from esper.runs.folder import check_new_folder
from esper.settings.options import ConfigError
from esper.sweep.plan import Job, SweepError


def progress_of(job: Job) -> Progress:
    """The progress of `job`, from the last line of its record."""
    return begun.progress_of(job.config)


def check_same(job: Job) -> None:
    """Refuse an existing run in the folder of `job` that has other settings, or is behind a link; other files there.

    Raises:
        SweepError: naming the run and every difference; for a folder that cannot be written.
    """
    try:
        wrong = begun.other_settings(job.config, job.run_dir.parents[2])
        if wrong is None:
            check_new_folder(job.config)
    except ConfigError as error:
        raise SweepError(f"{job.run_dir}: {error.allowed}") from None
    except ValueError as error:
        raise SweepError(str(error)) from None
    if wrong:
        raise SweepError(
            f"{job.run_dir} exists already, with other settings: {'; '.join(wrong)}. Give the sweep another folder "
            "with --output"
        )

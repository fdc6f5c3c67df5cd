"""The picture of a run."""

from __future__ import annotations

import logging

from esper.runs.config import RunConfig
from esper.runs.folder import RunFolder
from esper.system.errors import describe

_log = logging.getLogger(__name__)


def draw_picture(config: RunConfig, folder: RunFolder) -> None:
    """Plot the record in `folder`; errors are only logged, as the run itself is complete."""
    # Imported late: importing matplotlib takes as long as a short run.
    from esper.analysis.plots import plot_run

    title = f"{config.environment.env}, seed {config.seed}"
    try:
        plot_run(folder.path, folder.picture, title=title)
    except Exception as error:
        _log.warning("there is no picture: %s", describe(error))

"""Videos of the policy during a run."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from importlib.util import find_spec

from esper.envs.watched import GivenUp
from esper.policies.evaluate import EvaluationStopped
from esper.policies.policy import Policy
from esper.policies.show import check_can_be_recorded, record_gif
from esper.runs.config import RunConfig
from esper.runs.folder import VIDEOS, RunFolder
from esper.settings.options import ConfigError
from esper.simic.vectorized import Training
from esper.storage import files
from esper.system.stopping import StopRequest
from esper.telemetry.events import Event, VideoRecorded

_log = logging.getLogger(__name__)


def check_videos(config: RunConfig) -> None:
    """Draw the first frame, if the run is to have videos.

    Raises:
        ConfigError: when the environment cannot be drawn.
        EnvError: when it raises.
    """
    if config.record_every is None:
        return
    environment = config.environment
    environment.check_more_can_be_made("record_every", config.record_every)
    try:
        check_can_be_recorded(environment, config.seed)
    except ConfigError as error:
        raise ConfigError("record_every", config.record_every, f"needs an environment to draw: {error}") from error


class Videos:
    """An episode of the most likely actions every `record_every` updates, always from the same initial state.

    It is in an environment of its own, which is closed after it, and does not change what is learned. An MP4 with the
    extra `video`, else a GIF.
    """

    def __init__(self, config: RunConfig, training: Training, folder: RunFolder, stop: StopRequest) -> None:
        self._config, self._training, self._folder, self._stop = config, training, folder, stop
        self._suffix = "gif" if find_spec("imageio_ffmpeg") is None else "mp4"

    @property
    def _name(self) -> str:
        return f"{VIDEOS}/update-{self._training.agent.train_steps:05}.{self._suffix}"

    def _is_due(self) -> bool:
        every = self._config.record_every
        return every is not None and self._training.agent.train_steps % every == 0

    def was_dropped(self) -> bool:
        """Whether the video after the latest update is due and not there."""
        begun = self._training.agent.train_steps > 0
        return begun and self._is_due() and not files.is_there(self._folder.path / self._name)

    def after_update(self, emit: Callable[[Event], None]) -> None:
        """Call `record` if a video is due."""
        if self._is_due():
            self.record(emit)

    def record(self, emit: Callable[[Event], None]) -> None:
        """Record an episode; dropped when a stop is requested.

        Raises:
            ConfigError: when the environment cannot be drawn any more.
            EnvError: when the environment raises.
            SinkError, OSError: when the video cannot be written.
        """
        started, agent = time.perf_counter(), self._training.agent
        files.make_folder(self._folder.path / VIDEOS)
        policy = Policy(network=agent.network, environment=self._config.environment)
        try:
            frames = record_gif(policy, self._folder.path / self._name, seed=self._config.seed, stop=self._stop)
        except (EvaluationStopped, GivenUp) as error:
            _log.warning("%s is dropped: %s", self._name, error)
            return
        emit(
            VideoRecorded(
                update=agent.train_steps - 1,
                env_steps=self._training.env_steps,
                video=self._name,
                frames=frames,
                seconds=time.perf_counter() - started,
            )
        )

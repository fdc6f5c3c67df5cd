"""The record of a run: one JSON object per line."""

from __future__ import annotations

import json
import time
from pathlib import Path

from esper.telemetry.events import Event, to_record


class JsonlSink:
    """Appends to `path`, a line at a time, so that a run that is killed leaves whole lines."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("a", encoding="utf-8", buffering=1)

    def emit(self, event: Event) -> None:
        record = to_record(event) | {"time": time.time()}
        self._file.write(json.dumps(record, allow_nan=False) + "\n")

    def close(self) -> None:
        self._file.close()

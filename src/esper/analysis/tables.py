"""The updates of a run as a table in one file: CSV, or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.analysis.record import read_record
from esper.settings.options import ConfigError
from esper.storage import files
from esper.telemetry.declared import whole_numbers
from esper.telemetry.events import UpdateCompleted

# Rows that are text at the same time.
_ROWS = 4096


def table_of(run_dir: Path) -> Mapping[str, NDArray[Any]]:
    """The updates of a run, a column per name, as those of `load_updates`, with quantiles of the ratio; read once.

    Raises:
        ReportError: as `read_record`.
    """
    record = read_record(run_dir)
    kind = "round_completed" if "loss" not in record.updates else "update_completed"
    columns = {"event": np.full(len(record.updates["update"]), kind, dtype=object), **record.updates}
    for name in whole_numbers(UpdateCompleted):
        if name in columns and not np.isnan(columns[name]).any():
            columns[name] = columns[name].astype(np.int64)
    return columns


def write_csv(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """A row for each update under a line of names; a number that was not computed is an empty cell.

    Raises:
        OSError: when it cannot be written.
    """
    files.write_named(path, _lines_of(columns))


def _lines_of(columns: Mapping[str, NDArray[Any]]) -> Iterator[bytes]:
    yield _csv([columns])
    for begin in range(0, len(next(iter(columns.values()))), _ROWS):
        yield _csv(zip(*(_cells(column[begin : begin + _ROWS]) for column in columns.values()), strict=True))


def _csv(rows: Iterable[Iterable[Any]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode(errors="backslashreplace")


def _cells(column: NDArray[Any]) -> list[Any]:
    # A float is written as the shortest text that is read back as the same.
    values: list[Any] = column.tolist()
    missing = column.dtype.kind == "f" and np.isnan(column).any()
    return ["" if value != value else value for value in values] if missing else values


def write_parquet(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """The same as a Parquet file, where such a number is null.

    Raises:
        ConfigError: without pyarrow, with what to install.
        OSError: when it cannot be written.
    """
    if find_spec("pyarrow") is None:
        raise ConfigError("parquet", str(path), "needs pyarrow: pip install 'esper-simic[parquet]'")
    import pyarrow
    import pyarrow.parquet

    def array(column: NDArray[Any]) -> Any:
        missing = np.isnan(column) if column.dtype.kind == "f" else None
        return pyarrow.array(column if column.dtype.kind in "biuf" else column.tolist(), mask=missing)

    data = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.table({name: array(column) for name, column in columns.items()}), data)
    files.write_named(path, data.getvalue())

"""The updates of a run as a table in one file: CSV, or Parquet."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from esper.settings.options import ConfigError
from esper.storage import files


def write_csv(columns: Mapping[str, NDArray[Any]], path: Path) -> None:
    """A row for each update under a line of names; a number that was not computed is an empty cell.

    Raises:
        OSError: when it cannot be written.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(columns)
    writer.writerows(zip(*map(_cells, columns.values()), strict=True))
    files.write(path, text.getvalue().encode(errors="backslashreplace"))


def _cells(column: NDArray[Any]) -> Iterator[Any]:
    # A float is written as the shortest text that is read back as the same.
    return ("" if value != value else value for value in column.tolist())


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
    files.write(path, data.getvalue())

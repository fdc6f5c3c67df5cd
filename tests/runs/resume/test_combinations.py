"""Some of the rows in which every feature meets every other; `pytest --all` has them all."""

from __future__ import annotations

import itertools
import random
from pathlib import Path

import pytest
from combinations import check, check_seeds
from covering import Row, cells, cover
from factors import FACTORS, allowed, rows

# Compiling takes half a minute a row: one of them is enough here.
FEW, COMPILED = 20, 1
# What some levels need.
PACKAGES = {"MLflow": ("mlflow",), "W&B": ("wandb",), "onnx": ("onnx", "onnxscript")}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "row" not in metafunc.fixturenames:
        return
    quick = rows(without={"engine": ("torch",)})
    compiled = [row for row in rows() if row["engine"] == "torch"]
    every = metafunc.config.getoption("--all")
    chosen = quick + compiled if every else quick[:FEW] + compiled[:COMPILED]
    metafunc.parametrize(("index", "row"), list(enumerate(chosen)), ids=[str(index) for index in range(len(chosen))])


def skip_without_extras(row: Row) -> None:
    for level in row.values():
        for name in PACKAGES.get(level, ()):
            pytest.importorskip(name)


# MLflow's, and those of what it imports.
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.slow
def test_a_run_that_is_ended_and_resumed_ends_as_one_left_alone(index: int, row: Row, tmp_path: Path) -> None:
    skip_without_extras(row)
    check(row, tmp_path, random.Random(index))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(2))
def test_two_seeds_in_one_program_end_as_each_alone(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    row = rng.choice(rows(without={"engine": ("torch",), "sinks": ("MLflow",)}))
    skip_without_extras(row)
    check_seeds(row, tmp_path, rng)


def test_every_level_is_in_a_quick_row() -> None:
    found = set().union(*(row.items() for row in rows(without={"engine": ("torch",)})[:FEW]))
    every = {(name, level) for name, levels in FACTORS.items() for level in levels}
    assert every - found == {("engine", "torch")}


def test_every_pair_that_can_be_is_in_a_row() -> None:
    found = set().union(*(cells(row, 2) for row in rows()))
    for (name, levels), (other, others) in itertools.combinations(FACTORS.items(), 2):
        for pair in itertools.product(levels, others):
            cell = dict(zip((name, other), pair, strict=True))
            assert frozenset(cell.items()) in found or not allowed(cell), cell


def test_what_cannot_be_is_in_none() -> None:
    factors = {"a": ("1", "2"), "b": ("1", "2", "3"), "c": ("1", "2")}
    found = cover(factors, lambda row: row.get("a") != "1" or row.get("b") != "3", strength=3)
    # 2 * 3 * 2 = 12 rows, but for the two with a = 1 and b = 3.
    assert len(found) == 10
    assert len({tuple(row.values()) for row in found}) == 10

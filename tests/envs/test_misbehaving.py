"""Whatever an environment does, its run trains, or ends with one message that names the copy and the call."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from misbehaving import PARTS, VALUES, Case, cases
from trial import Ended, try_

from esper.storage.files import printable


@pytest.fixture(autouse=True)
def quick_to_close(monkeypatch: pytest.MonkeyPatch) -> None:
    # Seconds are for people.
    monkeypatch.setattr("esper.envs.processes._SECONDS_TO_CLOSE", 0.5)
    monkeypatch.setattr("esper.envs.watched.SECONDS_TO_CLOSE", 2.0)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "case" in metafunc.fixturenames:
        metafunc.parametrize("case", cases() if metafunc.config.getoption("--all") else some_cases(), ids=str)


# What once was not named, ended with a traceback, or left something behind.
FOUND = (
    Case("native", "step", "raise", "StopIteration", "end"),
    Case("native", "step", "reward", "ragged lists", "after a reset"),
    Case("native", "step", "final_obs", "a generator", "end"),
    Case("sync", "step", "raise", "surrogates", "after a reset"),
    Case("sync", "step", "reward", "a whole number beyond all", "end"),
    Case("sync", "step", "observation", "beyond float32", "step 7"),
    Case("sync", "constructor", "raise", "EOFError", "copy 1"),
    Case("async", "reset", "raise", "ValueError", "at once"),
    Case("sync", "attributes", "attribute", "observation_space differs", "at once"),
    Case("async", "attributes", "attribute", "observation_space differs", "at once"),
    Case("async", "attributes", "attribute", "observation_space changes", "at once"),
    Case("sync", "attributes", "attribute", "action_space as large as memory", "at once"),
)


def some_cases() -> list[Case]:
    """These, and of each mode, call and part one at random."""
    chosen: dict[tuple[str, str, str], Case] = {}
    for case in random.Random(1).sample(cases(), len(cases())):
        chosen.setdefault((case.mode, case.call, case.part), case)
    return sorted({*chosen.values(), *FOUND}, key=str)


def test_it_trains_or_says_what_is_wrong(case: Case, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ended = try_(case, tmp_path / "run")
    said = capfd.readouterr().err
    assert [*_surprises(case, ended), *_said(case, ended, said), *_recorded(ended, said)] == [], said


def _surprises(case: Case, ended: Ended) -> Iterator[str]:
    if ended.hung:
        yield "it hung"
    if ended.left_behind:
        yield f"it left behind: {ended.left_behind}"
    if case.ends is not None and case.ends != (ended.status != 0):
        yield f"status {ended.status}, and it should {'end' if case.ends else 'train'}"
    if ended.status not in (0, *STATUS.get(case.call, (1,))):
        yield f"status {ended.status}"


# 2 where there is no run yet: docs/resume.md. A copy that cannot be made where another one could is no setting's fault.
STATUS = {"constructor": (1, 2), "attributes": (1, 2), "render": (2,), "load_state_dict": (2,)}
WHO = (
    r"environment \d\b|2 environments together|an environment \(of 2 together\)|state_dict\(\) of|Misbehaves-v0"
    "|the environment ask for more memory|the environment's 3 copies"
)
CALLED = {
    "constructor": "in its constructor|natively|ask for more memory",
    "reset": "on reset|reset returned|process of",
    "step": r"in a step|step returned|process of",
    "state_dict": "state_dict",
    "load_state_dict": "load_state_dict|cannot be restored",
    "action_masks": "action mask|on reset|in a step",
    "render": "drawn",
    "attributes": "",
}
# What is too large for float32, or not finite, is found where it is learned from.
UNDONE = "updates in a row were undone, the last one for: "
ALSO_SAID = re.compile(
    r"the last checkpoint is |there is no checkpoint yet|check the environment's observations"
    r"|environment \d (raised on close: |did not close within )|the environments (raised on close: |did not close)"
)


def _said(case: Case, ended: Ended, said: str) -> Iterator[str]:
    lines = said.splitlines()
    errors = [line for line in lines if re.match(r"esper (ppo|evaluate): error: ", line)]
    yield from (f"more is said: {line[:300]}" for line in lines if line not in errors and not ALSO_SAID.match(line))
    if len(errors) != (ended.status != 0):
        yield f"status {ended.status} with {len(errors)} messages"
    if any(len(line) > 1200 for line in lines):
        yield "a line without end"
    for message in errors:
        if UNDONE in message:
            continue
        if not re.search(WHO, message):
            yield "nobody is named"
        if case.when == "copy 1" and case.mode != "native" and "environment 1" not in message:
            yield "another copy is named"
        if not re.search(CALLED[case.call], message):
            yield "no call is named"
        if "space differs" in case.kind and "environment 1" not in message:
            yield "not the copy is named"
        returned = case.part in VALUES and case.call in PARTS and "exits" not in case.kind
        if returned and not re.search("break(s?) Gymnasium's rules: ", message):
            yield "no rule is named"


def _recorded(ended: Ended, said: str) -> Iterator[str]:
    if ended.last is None:
        if ended.status == 0:
            yield "no record"
        return
    status = {0: ("completed",), 1: ("failed", "diverged"), 2: ("completed",)}[ended.status]
    if ended.last["event"] != "run_finished" or ended.last["status"] not in status:
        yield f"status {ended.status} with the record's end {ended.last}"
    elif ended.last["status"] == "failed" and printable(ended.last["cause"]).split("\n")[0] not in said:
        yield f"the record has another cause: {ended.last['cause']}"

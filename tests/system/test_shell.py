"""What is pasted into a shell is what was meant."""

from __future__ import annotations

import io
import os
import subprocess
import sys

import pytest

from esper.system.shell import joined, quoted

WORDS = ["runs/a", "my runs", "it's", "caf\xe9 1", "back\\slash \xe9'", "\u4e16\u754c", "line\nend", "\x1b[31m"]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii", "latin-1"])
def test_bash_reads_the_words_again(monkeypatch: pytest.MonkeyPatch, encoding: str) -> None:
    words = [*WORDS, os.fsdecode(b"not utf-8 \xff")]
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding))
    command = joined(words)
    assert command.isprintable()
    shown = command.encode(encoding).decode(encoding)
    read = subprocess.run(["bash", "-c", f"printf '%s\\0' {shown}"], capture_output=True, check=True).stdout
    assert read.split(b"\0")[:-1] == [os.fsencode(word) for word in words]


def test_what_is_no_name_of_a_file_can_be_shown() -> None:
    assert quoted("\ud800").startswith("$'\\355")


def test_what_can_be_shown_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), "utf-8"))
    assert (quoted("runs/a"), quoted("caf\xe9")) == ("runs/a", "'caf\xe9'")

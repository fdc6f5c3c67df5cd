"""The check of the tests on a GPU, without one."""

from __future__ import annotations

import warnings

import pytest
import torch

from synchronisation import synchronisation


@pytest.fixture
def modes(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    """The modes that a pretended torch was in; it warns the first time, as the real one does."""
    seen: list[object] = [0]

    def set_mode(mode: object) -> None:
        seen.append(mode)
        if len(seen) == 2:
            warnings.warn("Synchronization debug mode is a prototype feature", stacklevel=1)

    monkeypatch.setattr(torch.cuda, "get_sync_debug_mode", lambda: seen[-1])
    monkeypatch.setattr(torch.cuda, "set_sync_debug_mode", set_mode)
    return seen


def test_the_mode_is_what_it_was_also_after_an_error_and_within_another_block(modes: list[object]) -> None:
    def fails() -> None:
        with synchronisation("error"):
            with synchronisation("default"):
                pass
            raise RuntimeError("a synchronizing operation")

    with pytest.raises(RuntimeError, match="a synchronizing operation"):
        fails()
    assert modes == [0, "error", "default", "error", 0]

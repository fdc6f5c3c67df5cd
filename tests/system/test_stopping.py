"""What signals do to a request to stop, and what becomes of calls that do not return."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest

from esper.system import stopping
from esper.system.stopping import Overdue, StopRequest, stop_request


@pytest.fixture
def stop() -> Iterator[StopRequest]:
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with stop_request(quiet=True) as request:
        request.begin()
        yield request
    signal.signal(signal.SIGHUP, before)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)
    time.sleep(0.01)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_is_a_request(stop: StopRequest, number: signal.Signals) -> None:
    assert not stop
    send(number)
    assert stop.cause == number.name


def test_another_interrupt_is_at_once(stop: StopRequest) -> None:
    send(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt):
        send(signal.SIGINT)
    assert (stop.at_once, stop.cause) == (True, "SIGTERM")


def test_a_terminal_that_closes_sends_more_than_one_hang_up(stop: StopRequest) -> None:
    send(signal.SIGHUP)
    send(signal.SIGHUP)
    assert stop.cause == "SIGHUP"


def test_afterwards_signals_are_whose_they_were() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    with stop_request(quiet=True) as request:
        request.begin()
        send(signal.SIGTERM)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_call_that_hangs_is_given_up_after_its_limit(stop: StopRequest) -> None:
    with pytest.raises(Overdue):
        stop.call(0.1, time.sleep, 1000)
    assert stop.gave_up


def test_a_call_without_a_limit_is_given_up_only_when_a_stop_was_requested(
    stop: StopRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stopping, "SECONDS_AFTER_STOP", 0.1)
    # Longer than any look at the calls is away.
    assert stop.call(None, lambda: time.sleep(1.0)) is None
    assert not stop.gave_up
    stop.set_deadline(0.0)
    with pytest.raises(Overdue):
        stop.call(None, time.sleep, 1000)


def test_a_call_that_catches_what_gives_it_up_is_interrupted_once(stop: StopRequest) -> None:
    def stubborn() -> str:
        try:
            time.sleep(1000)
        except BaseException:
            time.sleep(1.0)
        return "came back"

    assert stop.call(0.1, stubborn) == "came back"
    assert stop.gave_up

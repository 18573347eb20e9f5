"""A command that runs until stopped."""

import os
import signal
import threading

import pytest

from configstore.cli.stopping import Stopping


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_the_work(number):
    asked = threading.Event()

    def work():
        os.kill(os.getpid(), number)
        asked.wait(20)

    with Stopping() as stopping:
        assert stopping.run(work, asked.set)
    assert asked.is_set()


def test_a_signal_before_the_work_is_not_lost():
    asked = threading.Event()
    with Stopping() as stopping:
        os.kill(os.getpid(), signal.SIGTERM)
        assert stopping.run(lambda: asked.wait(20), asked.set)


def test_work_that_ends_by_itself_was_not_stopped():
    with Stopping() as stopping:
        assert not stopping.run(lambda: None, lambda: pytest.fail("stopped what had ended"))


def test_what_the_work_raises_comes_out():
    def work():
        raise LookupError("gone")

    with Stopping() as stopping, pytest.raises(LookupError, match="gone"):
        stopping.run(work, lambda: None)


def test_an_error_of_work_that_was_told_to_stop_is_no_error():
    asked = threading.Event()

    def work():
        os.kill(os.getpid(), signal.SIGTERM)
        asked.wait(20)
        raise LookupError("the connection was closed")

    with Stopping() as stopping:
        assert stopping.run(work, asked.set)


def test_the_signals_are_given_back():
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with Stopping():
        pass
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before

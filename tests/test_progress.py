"""How far a long piece of work is, as a person reads it on a terminal and in a log."""

import io
import os
import pty
import sys

import pytest

from configstore import progress
from configstore.progress import Pace, Progress, words


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(
    ("done", "total", "seconds", "said"),
    [
        (500, 2000, 5.0, "500 of 2000 written, about 15 s left, 100 a second"),
        (1, 200, 2.0, "1 of 200 written, about 7 min left, 0.5 a second"),
        (2, 40_000, 1.0, "2 of 40000 written, about 5.5 h left, 2.0 a second"),
        (2000, 2000, 5.0, "2000 of 2000 written, 400 a second"),
        (300, None, 3.0, "300 written, 100 a second"),
        (0, 10, 0.0, "0 of 10 written, 0.0 a second"),
    ],
)
def test_count_rate_and_what_is_left_are_said(done, total, seconds, said):
    assert words("written", done, total, seconds) == said


def test_nothing_is_said_of_what_is_quickly_done_and_then_a_line_every_few_seconds():
    clock, said = Clock(), []
    pace = Pace(said.append, "written", 1000, clock=clock)
    for tenth in range(200):
        clock.now = tenth / 10
        pace.step()
    assert len(said) == 4  # at 0.5, 5.5, 10.5 and 15.5 s
    assert said[1].startswith("56 of 1000 written, about 2 min left, 10 a second")


def drawn(stream, monkeypatch):
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(progress, "QUIET", 0.0)
    with Progress("written", 4) as far:
        far.at(1)


def test_in_a_log_it_is_a_line(monkeypatch):
    stream = io.StringIO()
    drawn(stream, monkeypatch)
    assert stream.getvalue().startswith("configstore: 1 of 4 written, about ")
    assert stream.getvalue().endswith("\n")


def test_on_a_terminal_it_is_one_line_in_place_that_goes_away(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    master, slave = pty.openpty()
    with open(slave, "w", encoding="utf-8") as stream:
        drawn(stream, monkeypatch)
        seen = os.read(master, 4096)
    os.close(master)
    assert seen.startswith(b"\r\x1b[K1 of 4 written, about ")
    assert seen.endswith(b"\r\x1b[K")
    assert b"\n" not in seen

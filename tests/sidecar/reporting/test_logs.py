"""Log lines: their form, their length, and that nobody waits for whoever reads them."""

import fcntl
import json
import logging
import os
import subprocess
import sys
import time
from datetime import datetime, timedelta

import pytest

from sidecar.reporting.logs import LINE, QUEUE, Lines, _JsonLines, _TextLines
from tests.harness.waiting import wait_until

F_SETPIPE_SZ = 1031


def record(**fields):
    return logging.makeLogRecord({"levelname": "INFO", "levelno": 20, "msg": "mirrored", **fields})


@pytest.fixture
def pipe():
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    yield reader, writer
    os.close(reader)
    os.close(writer)


def test_a_pipe_that_nobody_reads_costs_lines_but_no_time(pipe):
    reader, writer = pipe
    lines = Lines(writer, lambda lost: f"lost {lost}")
    begun, put = time.monotonic(), 0
    while not lines.dropped and put * 1000 < 2 * QUEUE:
        lines.put("x" * 999)
        put += 1
    assert put * 1000 > QUEUE
    assert time.monotonic() - begun < 30
    lines.put("x" * 999)
    assert lines.dropped == 2
    lines.flush(0.01)  # does not wait for ever, either
    text = b""
    while b"lost 2\n" not in text:
        text += os.read(reader, 65536)
    lines.put("heard again")
    wait_until(lambda: b"heard again" in os.read(reader, 65536))
    assert text.count(b"x" * 999 + b"\n") == put - 1


def test_what_is_queued_is_written_before_the_end():
    script = (
        "import logging\nfrom sidecar.reporting import logs\n"
        "with logs.configured('info', 'text'):\n"
        "    for number in range(500): logging.info('line %d', number)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=True)
    assert [line.split()[-1] for line in done.stderr.splitlines()] == [str(number) for number in range(500)]


@pytest.mark.parametrize("form", [_JsonLines(), _TextLines()], ids=["json", "text"])
def test_no_line_is_longer_than_a_log_driver_takes(form):
    names = [f"a/{'long-' * 40}{number}" for number in range(5000)]
    line = form.format(record(pushed=names, reason="ä" * 100_000, path="\x1b" * 50_000))
    assert len(line.encode()) <= LINE
    assert "and 4980 more" in line


def test_a_list_names_twenty_and_counts_the_rest():
    line = json.loads(_JsonLines().format(record(pushed=[f"f{number}" for number in range(23)])))
    assert line["pushed"] == [f"f{number}" for number in range(20)] + ["… and 3 more"]
    assert json.loads(_JsonLines().format(record(pushed=["one", "two"])))["pushed"] == ["one", "two"]


def test_of_an_exception_the_end_is_kept():
    def fail():
        raise ValueError("x" * 20_000 + "the point")

    try:
        fail()
    except ValueError:
        line = _TextLines().format(record(exc_info=sys.exc_info()))
    assert "the point" in line
    assert len(line) <= LINE


def test_times_carry_their_zone():
    stamp = _TextLines().format(record()).split()[0]
    assert stamp.endswith("Z")
    assert datetime.fromisoformat(stamp).utcoffset() == timedelta(0)


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("program", ["sidecar", "configstore"])
def test_a_start_with_closed_standard_files_reads_and_writes_nowhere_else(closed, program, tmp_path):
    taken = tmp_path / "config.toml"
    taken.write_text("unknown = 1\n")
    words = "run --config config.toml" if program == "sidecar" else "get ../bad"
    command = f'"$0" -m {program} {words} {closed}; echo "exit $?" > code; '
    subprocess.run(["sh", "-c", command, sys.executable], cwd=tmp_path, timeout=30, check=False,
                   env=os.environ | {"PYTHONPATH": os.getcwd()}, capture_output=True)  # fmt: skip
    assert (tmp_path / "code").read_text() == ("exit 2\n" if program == "sidecar" else "exit 5\n")
    assert taken.read_text() == "unknown = 1\n"

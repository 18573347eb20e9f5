#!/usr/bin/env python3
"""configstore-client: holds leases and waits for changes, in an application's container.

One file that needs Python 3.8 or newer and nothing else. The sidecar puts it beside its control socket, in a
volume that both containers share; it speaks HTTP and JSON with the sidecar there. Exit codes are those of
`configstore`: 1 not done in time, or it differs; 2 usage; 3 the lease has another holder, or was lost; 4 the
sidecar or the store does not answer; 5 refused. `hold` ends with its command's exit code when nothing else failed.
"""

from __future__ import annotations

import argparse
import contextlib
import glob
import http.client
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import time
from typing import Any, Callable, Dict, Sequence

VERSION = "unplaced"
"""The version of the sidecar that installed this file, which writes it here."""

TTL = 30
"""Seconds of a lease's TTL unless `--ttl` says otherwise. The sidecar applies it."""

MAX_TTL = 3600.0
"""Seconds of the longest TTL of a lease."""

BRING_UP = 60.0
"""Seconds beyond the wait for a lease in which the sidecar brings the mirrored directories up to date."""

START_UP = 60.0
"""Seconds for which a sidecar that does not answer yet is waited for, or as long as `--wait` allows."""

PATIENCE = 10.0
"""Seconds for an answer that the sidecar gives at once."""

START = 0.55
"""Share of the TTL that must be left when a command is started."""

STOP = 0.4
"""Share of the TTL that is left when a command gets SIGTERM because the lease could not be renewed."""

KILL = 0.15
"""Share of the TTL that is left when it gets SIGKILL: before another replica can have the lease."""

GRACE = 2.0
"""Seconds between SIGTERM and SIGKILL when the lease is lost already."""

REST = 0.1
"""Seconds between two searches for processes of a command that go on after its first process was told to end."""

REST_GRACE = 10.0
"""Seconds after which these processes get SIGKILL."""

MARGIN = 5.0
"""Seconds beyond the TTL in which the sidecar answers a release."""

SILENCE = 3.0
"""Seconds without an answer after which the client says what it waits for."""

CHECKS = 10
"""How often within a TTL the client asks how long the lease lasts."""

MAX_ANSWER = 1 << 20
"""Bytes of the longest answer that is read."""

# The limits of an answer: objects and lists within each other, digits of a whole number, the largest number.
MAX_DEPTH = 32
MAX_DIGITS = 20
MOST = 2.0**63

LONG_POLL = 30.0
"""Seconds for which one request waits for a change."""

LONGEST_RETRY = 60.0
"""Seconds between two tries of a command that fails, at most."""

_STOPS = {signal.SIGINT, signal.SIGQUIT, signal.SIGTERM}
_PASSED_ON = [*_STOPS, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2]
_PR_SET_PDEATHSIG = 1


class ClientError(Exception):
    """An error with a message for an operator, and the exit code."""

    def __init__(self, message: str, code: int = 1) -> None:
        super().__init__(message)
        self.code = code


def boottime() -> float:
    """Return the seconds of CLOCK_BOOTTIME, which counts suspend and which setting the time does not change."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


Answer = Dict[str, Any]
"""The JSON object in an answer of the sidecar."""


# An answer is checked as one from a stranger: its size, nesting and types, and characters that control a terminal.


def read_answer(text: bytes) -> Answer:
    """Return the JSON object of an answer. Raises ValueError for anything else."""
    if len(text) > MAX_ANSWER:
        raise ValueError("it is too long")
    depth = 0
    for bracket in re.findall(rb"[\[\]{}]", re.sub(rb'"[^"\\]*(?:\\.[^"\\]*)*"', b"", text, flags=re.DOTALL)):
        depth += 1 if bracket in b"[{" else -1
        if depth > MAX_DEPTH:
            raise ValueError("it is nested too deep")
    found = json.loads(text.decode(), parse_int=_whole_number, parse_constant=_whole_number)
    if not isinstance(found, dict):
        raise ValueError("it is no object")  # noqa: TRY004  # as every other answer that is none
    return found


def _whole_number(digits: str) -> int:
    if len(digits) > MAX_DIGITS:
        raise ValueError("a number in it is too large")
    return int(digits)


def words_of(answer: Answer, name: str, longest: int = 4096) -> str:
    """Return a text of an answer, printable and cut. Raises ValueError."""
    found = answer.get(name)
    if not isinstance(found, str):
        raise ValueError(f"it has no {name}")  # noqa: TRY004  # as above
    return printable(found[:longest])


def number_of(answer: Answer, name: str, most: float, least: float = 0.0) -> float:
    """Return a number of an answer, from `least` to `most`. Raises ValueError."""
    found = answer.get(name)
    if isinstance(found, bool) or not isinstance(found, (int, float)) or not least <= found <= most:
        raise ValueError(f"it has no {name}")
    return found


def printable(text: str) -> str:
    """Return text that is safe for a terminal: characters that are not printable are escaped."""
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)


# Running a command under a lease


class Limit:
    """For how long a command may run.

    why: the reason for which it must not run any longer, None while it may. doubt: the reason to give when the
    time runs out. ttl: in seconds; the margins are shares of it. news: a socket that becomes readable when it is
    time to `check`.
    """

    ttl = 0.0
    news: socket.socket | None = None
    why: str | None = None
    doubt = ""

    def left(self) -> float | None:
        """Return the seconds until it must have ended; None for no limit."""
        return None

    def may_start(self) -> bool:
        """Return whether enough time is left to start the command."""
        left = self.left()
        return self.why is None and (left is None or left >= START * self.ttl)

    def check(self) -> None:
        """Ask again how long the command may run; may take a share of the TTL."""


def supervise(
    command: Sequence[str], limit: Limit, environment: dict[str, str] | None = None
) -> tuple[int, list[int]]:
    """Run a command in a process group of its own as long as its limit allows.

    1. Signals to this process are passed on to the group.
    2. When the time runs out, or `limit.why` is set, the group gets SIGTERM and then SIGKILL before the limit is
       reached; `limit.why` then has the reason.
    3. A command that was told to end has ended when every process of its group has: another could still write.
    4. The command dies when this process dies.

    Returns the command's exit code (128 + n for a signal) and the signals that came in.
    """
    reader, writer = os.pipe()
    for end in (reader, writer):
        os.set_blocking(end, False)
    came: list[int] = []
    process: subprocess.Popen[bytes] | None = None

    def note(number: int, _frame: object) -> None:
        came.append(number)
        if process is not None:
            _send(process, number)

    before: dict[int, Any] = {number: signal.signal(number, note) for number in _PASSED_ON}
    before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    try:
        # Without PATH in its environment Python may not know its own path.
        python = sys.executable or os.readlink("/proc/self/exe")
        launcher = [python, os.path.abspath(__file__), "exec", str(os.getpid()), "--"]
        process = subprocess.Popen(launcher + list(command), env=environment)
        for number in came:
            _send(process, number)
        _watch_over(process, limit, reader, came)
    finally:
        if process is not None and process.poll() is None:
            _send(process, signal.SIGKILL)
            process.wait()
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)
        _take_terminal()
    code = process.returncode
    return (code if code >= 0 else 128 - code), came


def _watch_over(process: subprocess.Popen[bytes], limit: Limit, reader: int, came: list[int]) -> None:
    """Wait until the command has ended; end it when its time is over."""
    kill_at: float | None = None
    rest_until: float | None = None
    period = limit.ttl / CHECKS if limit.ttl else LONG_POLL
    check_at = boottime() + period

    def told_to_end() -> bool:
        return kill_at is not None or not _STOPS.isdisjoint(came)

    while process.poll() is None or (told_to_end() and _runs_still(process.pid)):
        left = limit.left()
        now = boottime()
        if kill_at is None and (limit.why or (left is not None and left <= STOP * limit.ttl)):
            _send(process, signal.SIGTERM)
            kill_at = now + (GRACE if limit.why or left is None else max(0.0, left - KILL * limit.ttl))
            limit.why = limit.why or limit.doubt
        if process.returncode is not None and rest_until is None:
            rest_until = now + REST_GRACE
        if now >= min(kill_at or now + 1, rest_until or now + 1):
            _send(process, signal.SIGKILL)
            process.wait()
            return
        due = check_at - now if kill_at is None else kill_at - now
        if left is not None and kill_at is None:
            due = min(due, left - STOP * limit.ttl)
        if process.returncode is not None:
            due = min(due, REST)
        sources: list[int | socket.socket] = [reader] if limit.news is None else [reader, limit.news]
        ready, _, _ = select.select(sources, [], [], max(0.0, due))
        _drain(reader)
        if limit.news in ready:
            limit.news, check_at = None, now
        if kill_at is None and boottime() >= check_at and (process.poll() is None or told_to_end()):
            check_at = boottime() + period
            limit.check()


def _drain(reader: int) -> None:
    try:
        while os.read(reader, 512):
            pass
    except BlockingIOError:
        pass


def _send(process: subprocess.Popen[bytes], number: int) -> None:
    """Send a signal to the command's process group, or to it alone while it has none yet."""
    try:
        os.killpg(process.pid, number)
    except ProcessLookupError:
        process.send_signal(number)
    except PermissionError:
        pass  # it changed its user, and this process may not signal it


def _runs_still(group: int) -> bool:
    """Return whether a process of the group runs, zombies excepted."""
    for status in glob.iglob("/proc/[0-9]*/stat"):
        try:
            with open(status, "rb") as file:
                state, _, of = file.read().rpartition(b")")[2].split()[:3]
        except OSError:
            continue  # it has just ended
        if int(of) == group and state not in (b"Z", b"X"):
            return True
    return False


def _take_terminal() -> None:
    """Make this process's group the terminal's foreground group again, where there is a terminal."""
    try:
        before = signal.signal(signal.SIGTTOU, signal.SIG_IGN)
        try:
            os.tcsetpgrp(0, os.getpgrp())
        finally:
            signal.signal(signal.SIGTTOU, before)
    except (OSError, ValueError):
        pass


def launch(parent: int, command: list[str]) -> int:
    """Become the command, in a process group of its own that dies when the parent dies."""
    import ctypes  # needed here alone, before execve

    on_terminal = os.isatty(0) and os.tcgetpgrp(0) == os.getpgrp()
    os.setpgid(0, 0)
    if on_terminal:
        _take_terminal()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        return 128 + signal.SIGKILL
    try:
        os.execvp(command[0], command)  # noqa: S606  # the purpose of this program
    except OSError as error:
        say(f"{command[0]}: cannot be run: {error.strerror}")
        return 127 if isinstance(error, FileNotFoundError) else 126


# Speaking with the sidecar


class Patient(socket.socket):
    """A socket whose timeout is for everything that is read from it, not for each single read."""

    end: float | None = None

    def recv_into(self, *arguments: Any, **named: Any) -> int:  # noqa: ANN401  # as the base class has it
        """Read what has arrived, within the time that is left."""
        if self.end is not None:
            self.settimeout(max(0.001, self.end - boottime()))
        return super().recv_into(*arguments, **named)


class SidecarConnection(http.client.HTTPConnection):
    """HTTP over a Unix socket; `timeout` is for the whole answer."""

    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self.path = path
        self.channel: Patient | None = None  # http.client hands `sock` on to the answer

    def connect(self) -> None:
        """Connect."""
        self.sock = self.channel = channel = Patient(socket.AF_UNIX, socket.SOCK_STREAM)
        channel.settimeout(self.timeout)
        channel.end = None if self.timeout is None else boottime() + self.timeout
        channel.connect(self.path)


class Sidecar:
    """The sidecar behind a control socket."""

    def __init__(self, path: str) -> None:
        self.path = path

    def ask(
        self,
        method: str,
        target: str,
        body: object = None,
        timeout: float = PATIENCE,
        silent: Callable[[], None] | None = None,
    ) -> Answer:
        """Return the answer to a request; `silent` is called once after SILENCE seconds without one.

        Raises ClientError.
        """
        connection, answer = self.open(method, target, body, timeout, silent)
        try:
            with answer:
                return read_answer(answer.read(MAX_ANSWER + 1))
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise self.unusable(error) from error
        finally:
            connection.close()

    def unusable(self, error: Exception) -> ClientError:
        """Return the error for an answer that is incomplete or wrong."""
        return ClientError(f"{self.path}: the sidecar's answer broke off, or cannot be used: {error}", 4)

    def number(self, answer: Answer, name: str, most: float = MOST, least: float = 0.0) -> float:
        """Return a number of an answer, from `least` to `most`. Raises ClientError."""
        try:
            return number_of(answer, name, most, least)
        except ValueError as error:
            raise self.unusable(error) from error

    def open(
        self,
        method: str,
        target: str,
        body: object = None,
        timeout: float | None = PATIENCE,
        silent: Callable[[], None] | None = None,
    ) -> tuple[SidecarConnection, http.client.HTTPResponse]:
        """Return the open connection and the head of its answer. Raises ClientError."""
        connection = SidecarConnection(self.path, timeout)
        try:
            text = None if body is None else json.dumps(body)
            connection.request(method, target, text, {"Content-Type": "application/json"})
            if silent and not select.select([connection.sock], [], [], SILENCE)[0]:
                silent()
            answer = connection.getresponse()
            if answer.status == 200:
                return connection, answer
            with answer:
                failure = _refusal(read_answer(answer.read(MAX_ANSWER + 1)))
        except (OSError, ValueError, http.client.HTTPException) as error:
            words = "permission denied" if isinstance(error, PermissionError) else str(error)
            failure = ClientError(f"{self.path}: no answer from the sidecar: {words}", 4)
        connection.close()
        raise failure


def _refusal(answer: Answer) -> ClientError:
    """Return the error that an answer reports. Raises ValueError."""
    return ClientError(words_of(answer, "error"), int(number_of(answer, "code", 5)) or 1)


class Hold(Limit):
    """The limit of a command that runs under a lease which the sidecar holds.

    The deadline is counted from before each question, so that a slow answer never makes it later than it is.
    """

    def __init__(self, sidecar: Sidecar, name: str, held: Answer) -> None:
        self.sidecar, self.name = sidecar, name
        self.ttl = sidecar.number(held, "ttl", MAX_TTL)
        self.token = int(sidecar.number(held, "token"))
        self.id = held.get("id")
        if not isinstance(self.id, str) or not re.fullmatch(r"[0-9A-Za-z_-]{1,64}", self.id):
            raise sidecar.unusable(ValueError("it has no id"))
        self.doubt = f"lease {name} was not renewed in time"
        self.deadline = boottime()
        self.check()

    def left(self) -> float:
        """Return the seconds for which the sidecar surely holds the lease."""
        return self.deadline - boottime()

    def check(self) -> None:
        """Ask the sidecar how long the lease lasts."""
        sent = boottime()
        try:
            answer = self.sidecar.ask("GET", f"/v1/hold/{self.id}", timeout=self.ttl / CHECKS)
            left = self.sidecar.number(answer, "left", self.ttl, -MOST)
        except ClientError as failure:
            self.doubt = f"lease {self.name} could not be kept: {failure}"
            if failure.code == 3:
                self.why = str(failure)
        else:
            self.deadline = max(self.deadline, sent + left)


def hold(
    sidecar: Sidecar,
    name: str,
    command: Sequence[str],
    *,
    mapping: str | None = None,
    ttl: float | None = None,
    wait: float | None = None,
) -> int:
    """Run a command while the sidecar holds a lease; return its exit code. Raises ClientError.

    The mirrored files are brought up to date before the command starts, and what it changed is committed before
    this returns.
    """
    refuse_within_itself(name)
    asked = {"lease": name, "command": os.path.basename(command[0]), "mapping": mapping, "ttl": ttl, "wait": wait}
    connection, answer = _ask_to_hold(sidecar, asked, wait)
    limit = None
    try:
        held = _until_held(answer, name)
        limit = Hold(sidecar, name, held)
        limit.news = connection.channel  # the sidecar writes to it once more, when the lease is lost
        environment = environment_under(name, limit.token)
        if held.get("unfinished"):
            unfinished = printable(str(held["unfinished"])[:4096])
            say(f"lease {name}: its last holder began this and did not report its end: {unfinished}")
            environment["CONFIGSTORE_UNFINISHED"] = unfinished
        return run_under(limit, command, environment, lambda code: _give_back(sidecar, limit, code))
    except ClientError:
        _report_end(sidecar, limit)
        raise
    finally:
        answer.close()  # closes the connection, which ends the hold
        connection.close()


def refuse_within_itself(name: str) -> None:
    """Raise ClientError in a command that runs under the lease already: it would wait for itself for ever."""
    if name in os.environ.get("CONFIGSTORE_LEASES", "").split():
        raise ClientError(
            f"lease {name}: this command runs under it already ($CONFIGSTORE_LEASES), and would wait for itself;"
            " run it without another hold",
            2,
        )


def environment_under(name: str, token: int) -> dict[str, str]:
    """Return the environment of a command that runs under a lease."""
    leases = f"{os.environ.get('CONFIGSTORE_LEASES', '')} {name}".strip()
    return dict(os.environ, CONFIGSTORE_LEASE=name, CONFIGSTORE_TOKEN=str(token), CONFIGSTORE_LEASES=leases)


def _ask_to_hold(
    sidecar: Sidecar, asked: Answer, wait: float | None
) -> tuple[SidecarConnection, http.client.HTTPResponse]:
    """Ask for a lease, and wait for a sidecar that is still starting."""
    end = boottime() + min(START_UP, START_UP if wait is None else wait)
    said = False
    while True:
        try:
            return sidecar.open("POST", "/v1/hold", asked, None if wait is None else wait + BRING_UP)
        except ClientError as failure:
            if failure.code != 4 or boottime() >= end:
                raise
            if not said:
                say(f"{failure}; waiting for it")
                said = True
            time.sleep(0.1)


def run_under(
    limit: Limit, command: Sequence[str], environment: dict[str, str], give_back: Callable[[int | None], None]
) -> int:
    """Run a command under a limit and give the lease back; return the exit code. Raises ClientError.

    give_back: commits and releases; takes the command's exit code, None when it was not started. May raise
    ClientError.
    """
    while not limit.may_start():
        left = limit.left()
        if limit.why or (left is not None and left <= 0):
            give_back(None)
            raise ClientError(f"{command[0]} was not started: {limit.why or limit.doubt}", 3)
        time.sleep(limit.ttl / CHECKS)
        limit.check()
    code, _ = supervise(command, limit, environment)
    if limit.why:
        words = f"{limit.why}; {command[0]} was stopped (exit code {code}), and nothing more is committed"
        raise ClientError(words, 3)
    give_back(code)
    return code


def _until_held(answer: http.client.HTTPResponse, name: str) -> Answer:
    """Read the sidecar's messages until it holds the lease; return the one that says so. Raises ClientError."""
    said = ""
    while True:
        try:
            line = answer.readline(MAX_ANSWER)
            event = read_answer(line) if line else {"event": "end"}
            if event.get("event") == "error":
                raise _refusal(event)
            holder = words_of(event, "holder") if event.get("event") == "waiting" else ""
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ClientError(f"lease {name}: waiting for it broke off: {error}", 4) from error
        if event.get("event") == "held":
            return event
        if event.get("event") == "end":
            raise ClientError(f"lease {name}: the sidecar ended while it waited", 4)
        if holder != said:
            said = holder
            say(f"lease {name}: waiting for {holder}")


def _give_back(sidecar: Sidecar, limit: Hold, code: int | None) -> None:
    """Have the sidecar commit the changes and release the lease. code: None for a command that was not started."""
    patience = max(PATIENCE, limit.ttl) + MARGIN

    def say_why() -> None:
        say(f"lease {limit.name}: {_held_up(sidecar)}; waiting up to {patience - SILENCE:.0f} s more")

    try:
        sidecar.ask("POST", f"/v1/hold/{limit.id}/release", {"exit": code}, patience, say_why)
    except ClientError as failure:
        if code is not None:
            raise ClientError(f"{failure} (the command ended with exit code {code})", failure.code) from None


def _report_end(sidecar: Sidecar, limit: Hold | None) -> None:
    """Tell the sidecar that the command of a lost lease has ended, so that later changes are not taken for its."""
    if limit is not None and limit.why:
        with contextlib.suppress(ClientError):  # the lost lease is the error to report
            sidecar.ask("POST", f"/v1/hold/{limit.id}/release", {"exit": 128 + signal.SIGTERM}, timeout=1.0)


def _held_up(sidecar: Sidecar) -> str:
    """Return a text about what a commit waits for."""
    try:
        mappings = sidecar.ask("GET", "/v1/status")["mappings"]
        reasons = [str(each["waiting_for"]) for each in mappings if each.get("waiting_for")]
    except (ClientError, KeyError, TypeError, AttributeError):
        reasons = []
    return "the changes are not committed yet" + (f": {printable(reasons[0][:500])}" if reasons else "")


def on_change(sidecar: Sidecar, mapping: str, command: Sequence[str], timeout: float | None = None) -> int:
    """Run a command after sets were applied to a mapping, once for all that came meanwhile; try failures again.

    Returns 0 on SIGTERM and SIGINT.
    """
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, _leave)
    seen = _changes(sidecar, mapping, None, 0.0)
    retry, failed = 1.0, False
    while True:
        now = _changes(sidecar, mapping, seen, retry if failed else LONG_POLL)
        if now == seen and not failed:
            continue
        if now["session"] != seen["session"] and not now["count"] and not failed:
            seen = now  # the sidecar was restarted and has applied nothing since
            continue
        seen = now
        limit = Timeout(timeout)
        code, came = supervise(command, limit)
        if signal.SIGTERM in came or signal.SIGINT in came:
            return 0
        failed = code != 0
        if failed:
            why = limit.why or f"exit code {code}"
            say(f"{mapping} changed, but {command[0]} failed ({why}); trying again in {retry:.0f} s")
        retry = min(2 * retry, LONGEST_RETRY) if failed else 1.0


def _leave(_number: int, _frame: object) -> None:
    raise SystemExit(0)


class Timeout(Limit):
    """A limit on how long a command may take."""

    def __init__(self, seconds: float | None) -> None:
        self.end = None if seconds is None else boottime() + seconds
        self.seconds = seconds

    def left(self) -> float | None:
        """Return the seconds until it must have ended."""
        if self.end is None:
            return None
        if boottime() >= self.end:
            self.why = f"it took longer than {self.seconds:g} s"
        return max(0.001, self.end - boottime())


def _changes(sidecar: Sidecar, mapping: str, seen: Answer | None, patience: float) -> Answer:
    """Return how often sets were applied to a mapping: once that differs from `seen`, or after `patience` s."""
    said = False
    while True:
        try:
            asked = {"mapping": mapping, "after": seen, "timeout": patience}
            now = sidecar.ask("POST", "/v1/changes", asked, timeout=patience + PATIENCE)
            return {"session": str(now.get("session"))[:64], "count": int(sidecar.number(now, "count"))}
        except ClientError as failure:
            if failure.code in {2, 5}:
                raise
            if not said:
                say(f"{failure}; trying again")
                said = True
            time.sleep(1)


def say(message: object) -> None:
    """Print a message on stderr."""
    print(f"configstore-client: {printable(str(message))}", file=sys.stderr, flush=True)


# The command line


def duration(text: str) -> float:
    """Read a duration such as 500ms, 30s, 5m, or a number of seconds; an argparse type."""
    for unit, seconds in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("", 1.0)):
        if unit and not text.endswith(unit):
            continue
        try:
            found = float(text[: len(text) - len(unit)]) * seconds
        except ValueError:
            continue
        if 0 <= found <= 1e6:
            return found
    raise argparse.ArgumentTypeError("expected a duration such as 30s, 5m or 500ms")


def parser() -> argparse.ArgumentParser:
    """Return the command line's parser."""
    beside = os.path.join(os.path.dirname(os.path.abspath(__file__)), "control.sock")
    default = os.environ.get("CONFIGSTORE_CONTROL_SOCKET") or beside
    top = argparse.ArgumentParser(
        prog="configstore-client", description="Hold leases and wait for changes, through the configstore sidecar."
    )
    top.add_argument("--socket", default=default, metavar="PATH", help=f"control socket (default: {default})")
    top.add_argument("--version", action="version", version=f"configstore-client {VERSION}")
    commands = top.add_subparsers(dest="verb", metavar="VERB")
    commands.required = True

    def verb(name: str, text: str, runs: str = "") -> argparse.ArgumentParser:
        usage = f"configstore-client {name} [OPTIONS] {runs} -- COMMAND [ARGUMENT ...]" if runs else None
        return commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.", usage=usage)

    one = verb("hold", "run -- COMMAND while holding a lease, and commit what it changed", runs="NAME")
    one.add_argument("name", metavar="NAME", help="name of the lease")
    text = "mapping to bring up to date first (default: all with this lease)"
    one.add_argument("--mapping", metavar="MAPPING", help=text)
    _add_duration(one, "--ttl", f"time after which a dead holder loses the lease (default: {TTL}s)")
    patience = one.add_mutually_exclusive_group()
    _add_duration(patience, "--wait", "wait for the lease at most so long (default: without end)")
    text = "fail at once when the lease is held"
    patience.add_argument("--no-wait", dest="wait", action="store_const", const=0.0, help=text)
    changed = verb("on-change", "run -- COMMAND after each set of changes that was applied here", runs="MAPPING")
    wait = verb("wait", "wait until a mapping's changes are applied")
    flush = verb("flush", "commit the local changes of a mapping now, and print the revision")
    for one in (changed, wait, flush):
        one.add_argument("mapping", metavar="MAPPING", help="name of the mapping")
    _add_duration(changed, "--timeout", "stop the command after so long (default: never)")
    text = "by this replica (default), or by all"
    wait.add_argument("--applied", choices=["here", "all"], default="here", help=text)
    text = "up to this store revision (default: the newest of the mapping)"
    wait.add_argument("--revision", type=int, metavar="N", help=text)
    for one in (wait, flush):
        _add_duration(one, "--timeout", "wait at most so long (default: 60s)", default=60.0)
    verb("status", "print the state of the sidecar's mappings, as JSON")
    return top


def _add_duration(
    one: argparse._ActionsContainer,  # the type has no public name
    option: str,
    text: str,
    default: float | None = None,
) -> None:
    one.add_argument(option, type=duration, metavar="DURATION", help=text, default=default)


def main(arguments: list[str]) -> int:
    """Run the command line and return the exit code."""
    if arguments[:1] == ["exec"]:
        return launch(int(arguments[1]), arguments[3:])
    own, command = arguments, []
    if "--" in arguments:
        own, command = arguments[: arguments.index("--")], arguments[arguments.index("--") + 1 :]
    options = parser()
    args = options.parse_args(own)
    if bool(command) != (args.verb in ("hold", "on-change")):
        options.error("expected -- COMMAND…" if not command else f"{args.verb} takes no command")
    try:
        return _run(args, command)
    except ClientError as failure:
        say(failure)
        return failure.code
    except KeyboardInterrupt:
        return 130


def _run(args: argparse.Namespace, command: list[str]) -> int:
    sidecar = Sidecar(args.socket)
    if args.verb == "hold":
        return hold(sidecar, args.name, command, mapping=args.mapping, ttl=args.ttl, wait=args.wait)
    if args.verb == "on-change":
        return on_change(sidecar, args.mapping, command, args.timeout)
    if args.verb == "status":
        print(json.dumps(sidecar.ask("GET", "/v1/status"), indent=2))  # which escapes all but printable ASCII
        return 0
    asked = {"mapping": args.mapping, "timeout": args.timeout}
    if args.verb == "flush":
        answer = sidecar.ask("POST", "/v1/flush", asked, timeout=args.timeout + PATIENCE)
        print(int(sidecar.number(answer, "revision")))
        return 0
    asked.update(applied=args.applied, revision=args.revision)
    sidecar.ask("POST", "/v1/wait", asked, timeout=args.timeout + PATIENCE)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

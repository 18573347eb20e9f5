"""What runs when files have changed: a command, or a signal to a process.

Argument lists only, never a shell. Hooks of one mapping run one at a time in a thread of their own, the latest
change wins, and what failed is visible and tried again. They also run once at the start: a run that died may have
applied a set and not have come to them.
"""

import contextlib
import logging
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, cast

import msgspec

from configstore.mapping_settings import AS_IT_IS, OwnerOverride
from configstore.model.path import printable
from configstore.model.seal import Policy
from sidecar.mapping import Mapping
from sidecar.process import children
from sidecar.programs.privileges import User, start_without_rights

log = logging.getLogger(__name__)

TIMEOUT = 60.0
"""Seconds that a hook may take."""

RETRY, LONGEST_RETRY = 1.0, 60.0
"""Seconds until a hook that failed is tried again; doubled each time."""

OUTPUT = 2000
"""Bytes of the end of a command's output that are kept for the log."""

LAST_LINE = 200
"""Characters of the last line that are part of a failure's words."""

_GRACE = 2.0
_COMM = 15  # bytes of a process's name that the kernel keeps


class HookResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. failure: in words, None when it did well. output: its end, safe to print.

    said: the last line of the output, where it failed, as a part of words.
    judged: it came to an end of its own, or took too long; a signal says nothing about what it was to look at.
    """

    failure: str | None
    output: str = ""
    said: str = ""
    judged: bool = True

    def words(self, mapping: Mapping) -> str | None:
        """Return the failure as it is told outside of the log, and so in the store as well.

        What a command said may quote a file's content, which is sealed there.
        """
        if self.failure and self.said and mapping.seal not in {None, Policy.OFF}:
            return f"{self.failure}; the sidecar's log has its output"
        return self.failure and f"{self.failure}{self.said}"


def run(
    command: Sequence[str],
    *,
    cwd: str,
    more: dict[str, str],
    timeout: float = TIMEOUT,
    run_as: OwnerOverride = AS_IT_IS,
) -> HookResult:
    """Run a command to its end, at most `timeout` seconds; then its process group is stopped.

    It gets our environment without our own settings, which may hold a password, and `more`; of our rights it gets
    none. The programs that were installed with us are found, too, wherever that is. run_as: the user that it runs
    as, where one is set.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))
    }
    ours = os.path.dirname(sys.executable)
    environment["PATH"] = os.pathsep.join([*filter(None, [environment.get("PATH", os.defpath)]), ours])

    def start(user: User) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            list(command),
            user=user.uid,
            group=user.gid,
            extra_groups=user.groups,
            cwd=cwd,
            env=environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    try:
        with (
            children.started(lambda: start_without_rights(start, run_as)) as process,
            cast("IO[bytes]", process.stdout) as pipe,
        ):
            output, late = _follow(process, pipe.fileno(), time.monotonic() + timeout)
    except OSError as error:
        return HookResult(failure=f"{command[0]}: cannot be run: {error.strerror}")
    lines = output.decode("utf-8", "backslashreplace").strip().splitlines()
    text = printable("\n".join(lines))
    failure = f"took longer than {timeout:g} s" if late else _ended_badly(process.returncode)
    if failure is None:
        return HookResult(failure=None, output=text)
    said = f": {printable(lines[-1].strip())[-LAST_LINE:]}" if lines else ""
    judged = late or process.returncode >= 0
    return HookResult(failure=f"{command[0]}: {failure}", output=text, said=said, judged=judged)


def _ended_badly(code: int) -> str | None:
    """Return how a command failed, in words, or None."""
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}" if code else None


def _follow(process: "subprocess.Popen[bytes]", pipe: int, end: float) -> tuple[bytes, bool]:
    """Wait for a command's end, stopping it when it is too late; returns the end of its output.

    What it left running may go on writing; nobody waits for that.
    """
    os.set_blocking(pipe, False)
    ended = os.pidfd_open(process.pid)
    output, stage = b"", 0
    watched = select.poll()  # `select.select` knows no descriptor above 1,023
    for descriptor in (ended, pipe):
        watched.register(descriptor, select.POLLIN)
    try:
        while True:
            ready = [descriptor for descriptor, _ in watched.poll(1000 * max(0.0, end - time.monotonic()))]
            if pipe in ready:
                chunk = _read(pipe)
                if not chunk:
                    watched.unregister(pipe)
                output = (output + chunk)[-OUTPUT:]
            if ended in ready:
                if pipe not in ready or time.monotonic() > end:
                    return output, stage > 0
                end = min(end, time.monotonic() + _GRACE)
            if time.monotonic() >= end:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGTERM if stage == 0 else signal.SIGKILL)
                stage += 1
                end = time.monotonic() + _GRACE
    finally:
        os.close(ended)


def _read(pipe: int) -> bytes:
    with contextlib.suppress(BlockingIOError):
        return os.read(pipe, 65536)
    return b""


def send_signal(number: signal.Signals, name: str, processes: str = "/proc") -> HookResult:
    """Send a signal to all processes of a name whose parent has another one, such as nginx's master."""
    found = dict(_named(name, processes))
    top = [pid for pid, parent in found.items() if parent not in found]
    for pid in top:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            return HookResult(
                failure=f"no right to signal {name} (process {pid}): run the sidecar as its user, or as root"
            )
    if not top:
        log.warning("there is no process to signal", extra={"name_of_process": name, "signal": number.name})
    return HookResult(failure=None)


def _named(name: str, processes: str) -> Iterable[tuple[int, int]]:
    """Yield the processes of a name, each with its parent."""
    wanted = name.encode()[:_COMM]
    for pid in filter(str.isdecimal, os.listdir(processes)):
        with contextlib.suppress(OSError, ValueError, IndexError), open(f"{processes}/{pid}/stat", "rb") as file:
            head, _, tail = file.read().rpartition(b")")  # a name may hold spaces and parentheses
            if head.partition(b"(")[2] == wanted and not tail.startswith(b" Z"):
                yield int(pid), int(tail.split()[1])


class Hooks:
    """The hooks of one mapping, in a thread of their own."""

    def __init__(self, mapping: Mapping, told: Callable[[], None]) -> None:
        """`told` is called when `failure` changed."""
        self.failure: str | None = None
        self._mapping = mapping
        self._told = told
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"hooks:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._mapping.on_change or self._mapping.signal:
            self._thread.start()

    def changed(self) -> None:
        """Say that a set was applied; from any thread."""
        self._due.set()

    def close(self) -> None:
        """Run no more. One that runs is left to end by itself."""
        self._stop.set()
        self._due.set()

    def _serve(self) -> None:
        retry: float | None = None
        while True:
            self._due.wait(retry)
            self._due.clear()
            if self._stop.is_set():
                return
            failed = self._run()
            retry = min(2 * retry if retry else RETRY, LONGEST_RETRY) if failed else None

    def _run(self) -> bool:
        """Run what is due; returns whether it failed."""
        mapping = self._mapping
        outcome = HookResult(failure=None)
        if mapping.on_change:
            more = {"CONFIGSTORE_MAPPING": mapping.name, "CONFIGSTORE_PATH": mapping.path}
            outcome = run(mapping.on_change, cwd="/", more=more, run_as=mapping.run_as)
        if mapping.signal and not outcome.failure:
            number, _, name = mapping.signal.partition(":")
            outcome = send_signal(signal.Signals[f"SIG{number}"], name)
        words = {"mapping": mapping.name, "output": outcome.output}
        if outcome.failure:
            log.error(
                "a hook failed; it is tried again", extra={**words, "reason": f"{outcome.failure}{outcome.said}"}
            )
        else:
            log.info("hook done", extra=words)
        if outcome.words(mapping) != self.failure:
            self.failure = outcome.words(mapping)
            self._told()
        return outcome.failure is not None

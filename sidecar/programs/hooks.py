"""Hooks: the command that runs, or the signal that is sent, after files have changed.

Commands are argument lists, never a shell. The hooks of a mapping run one at a time, in a thread of their own. A
change during a run causes one further run, however many changes there are; a failure is visible and tried again.
They also run once at the start, since a sidecar that died may have applied a set before its hooks ran.
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
from collections.abc import Callable, Sequence
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
"""Seconds until a failed hook is tried again; doubled after each failure, up to the second."""

OUTPUT = 2000
"""Bytes of a command's output that the log gets, from its end."""

LAST_LINE = 200
"""Characters of the output's last line that a failure's text quotes."""

_GRACE = 2.0  # seconds between SIGTERM and SIGKILL
_COMM = 15  # bytes of a process's name that the kernel keeps (prctl(2), PR_SET_NAME)


class HookResult(msgspec.Struct, frozen=True, kw_only=True):
    """How a command ended. failure: a text, None after success. output: its end, safe to print.

    said: of a failed command the last line of the output, to be appended to `failure`. judged: whether it ended by
    itself or took too long; a command that a signal ended has judged nothing.
    """

    failure: str | None
    output: str = ""
    said: str = ""
    judged: bool = True

    def reported(self, mapping: Mapping) -> str | None:
        """Return the failure as it is reported outside of the log, and so in the store as well.

        The output of a command may quote a file's content, which must not be written to the store unsealed.
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
    """Run a command for at most `timeout` seconds, after which its process group is stopped.

    It gets the sidecar's environment without settings, which may hold a password, and `more`; it gets none of the
    sidecar's rights. The directory of the sidecar's own programs is added to its PATH. run_as: the user that it
    runs as, where one is set.
    """
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))
    }
    folders = [environment.get("PATH", os.defpath), os.path.dirname(sys.executable)]
    environment["PATH"] = os.pathsep.join(filter(None, folders))

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
    """Return how a command failed, or None."""
    if code < 0:
        return f"was ended by signal {-code}"
    return f"ended with exit code {code}" if code else None


def _follow(process: "subprocess.Popen[bytes]", pipe: int, end: float) -> tuple[bytes, bool]:
    """Wait for a command's end, and stop it at `end`; returns the end of its output, and whether it was stopped.

    A process that the command left running may go on writing; its output is not waited for.
    """
    os.set_blocking(pipe, False)
    ended = os.pidfd_open(process.pid)
    output, stage = b"", 0
    watched = select.poll()  # `select.select` takes no descriptor above 1,023
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


def send_signal(number: signal.Signals, name: str) -> HookResult:
    """Send a signal to all processes of a name whose parent has another name, such as nginx's master."""
    wanted = name.encode()[:_COMM]
    found = {each.pid: each.parent for each in children.processes() if each.name == wanted and not each.zombie}
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


class Hooks:
    """The hooks of one mapping, in a thread of their own."""

    def __init__(self, mapping: Mapping, failure_changed: Callable[[], None]) -> None:
        """Take a mapping, and what is called when `failure` changed."""
        self.failure: str | None = None
        self._mapping = mapping
        self._failure_changed = failure_changed
        self._due = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, name=f"hooks:{mapping.name}", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        if self._mapping.on_change or self._mapping.signal:
            self._thread.start()

    def changed(self) -> None:
        """Note that a set was applied; from any thread."""
        self._due.set()

    def close(self) -> None:
        """Run no more hooks; one that runs ends by itself."""
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
        """Run the hooks; returns whether one failed."""
        mapping = self._mapping
        outcome = HookResult(failure=None)
        if mapping.on_change:
            more = {"CONFIGSTORE_MAPPING": mapping.name, "CONFIGSTORE_PATH": mapping.path}
            outcome = run(mapping.on_change, cwd="/", more=more, run_as=mapping.run_as)
        if mapping.signal and not outcome.failure:
            number, _, name = mapping.signal.partition(":")
            outcome = send_signal(signal.Signals[f"SIG{number}"], name)
        fields = {"mapping": mapping.name, "output": outcome.output}
        if outcome.failure:
            log.error(
                "a hook failed; it is tried again", extra={**fields, "reason": f"{outcome.failure}{outcome.said}"}
            )
        else:
            log.info("hook done", extra=fields)
        if outcome.reported(mapping) != self.failure:
            self.failure = outcome.reported(mapping)
            self._failure_changed()
        return outcome.failure is not None

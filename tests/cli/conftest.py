"""Runs the command: in this process for speed, or as a process of its own where that matters."""

import io
import json
import os
import subprocess
import sys
from dataclasses import dataclass

import pytest

from configstore.cli import main
from tests.harness.named import a_tree


@dataclass(frozen=True)
class Done:
    """What a command said, and its exit code."""

    code: int
    out: bytes
    err: str

    def json(self):
        return json.loads(self.out)


@pytest.fixture
def environment(etcd, kv_root):
    """Return the variables that lead to the shared etcd and to a root of the test's own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))}
    return kept | {"CONFIGSTORE_ENDPOINTS": etcd.endpoint, "CONFIGSTORE_ROOT": kv_root}


@pytest.fixture
def offline(monkeypatch, capfdbinary):
    """Return a function that runs the command in this process, where no store is needed."""

    def run(*words, stdin=b"", **variables):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        for name, value in variables.items():
            monkeypatch.setenv(name, value)
        capfdbinary.readouterr()
        code = main(words)
        out, err = capfdbinary.readouterr()
        return Done(code, out, err.decode())

    return run


@pytest.fixture
def run(offline, environment, monkeypatch):
    """Return a function that runs the command in this process against the shared etcd."""
    for name in list(os.environ):
        if name not in environment:
            monkeypatch.delenv(name)
    for name in ("CONFIGSTORE_ENDPOINTS", "CONFIGSTORE_ROOT"):
        monkeypatch.setenv(name, environment[name])
    return offline


@pytest.fixture
def start(environment):
    """Return a function that starts the command as a process; what still runs in the end is killed."""
    running = []

    def start(*words, **options):
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
        process = subprocess.Popen([sys.executable, "-m", "configstore", *words], env=environment, **pipes)
        running.append(process)
        return process

    yield start
    for process in running:
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream and not stream.closed:
                stream.close()


@pytest.fixture
def tree(kv, kv_root):
    """Return the tree that the commands of this test look at."""
    return a_tree(kv, kv_root, replica="r1", host="h1", now="2026-01-01T00:00:00Z")

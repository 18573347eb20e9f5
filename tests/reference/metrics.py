"""The figures of `/metrics`, as a sidecar that runs serves them."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from configstore.embedded import free_ports
from tests.certificates import Authority
from tests.reference.markdown import MADE, code, plain, sentence, table
from tests.waiting import wait_until

SETTINGS = """\
[store]
endpoints = ["https://127.0.0.1:{store}"]
cacert = "{folder}/ca.pem"
cert = "{client.cert}"
key = "{client.key}"
[[mapping]]
name = "certs"
path = "{folder}/certs"
lease = "certs"
[state]
directory = "{folder}/state"
[control]
socket = "{folder}/control.sock"
[health]
listen = "127.0.0.1:{health}"
"""
PAGE = """\
# Metrics

What `/metrics` of a sidecar serves, in Prometheus' text format (version 0.0.4), at the address of
`[health] listen` ([settings](../settings.md#the-rest)): by default for this host alone. A scrape never asks the
store. Times are seconds; those that end in `_timestamp_seconds` count from 1970. A figure with the label `mapping`
is served for each mapping.

{table}
"""


def page() -> str:
    """Return the page."""
    return f"{MADE}\n\n{PAGE.format(table=table(['name', 'type', 'labels', 'meaning'], rows(served())))}"


def rows(text: str) -> list[list[str]]:
    """Return the rows of the figures in an answer of `/metrics`, in its order."""
    kinds = dict(re.findall(r"^# TYPE (\S+) (\S+)$", text, re.MULTILINE))
    found = []
    for name, words in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        samples = re.findall(rf"^{name}(?:_bucket|_sum|_count)?\{{(.*)\}} ", text, re.MULTILINE)
        labels = dict.fromkeys(label for sample in samples for label in re.findall(r'(\w+)="', sample))
        shown = ", ".join(code(label) for label in labels)
        found.append([code(name), kinds[name], shown, sentence(plain(words))])
    return found


def served() -> str:
    """Return what a sidecar serves that has TLS, a mapping and a lease, and that reaches no store."""
    with tempfile.TemporaryDirectory() as folder, _sidecar(Path(folder)) as (process, port):
        answer = []

        def answered() -> bool:
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                address = f"http://127.0.0.1:{port}/metrics"
                answer.append(urllib.request.urlopen(address, timeout=10).read().decode())
            return bool(answer) or process.poll() is not None

        wait_until(answered, 60, what="an answer of /metrics")
        if not answer:
            raise RuntimeError(f"the sidecar ended: {(Path(folder) / 'log').read_text()}")
        return answer[0]


@contextlib.contextmanager
def _sidecar(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    store, health = free_ports(2)
    client = Authority(folder).issue("client")
    (folder / "certs").mkdir()
    settings = folder / "sidecar.toml"
    settings.write_text(SETTINGS.format(folder=folder, client=client, store=store, health=health))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))
    }
    command = [sys.executable, "-m", "sidecar", "run", "--config", settings]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield process, health
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()

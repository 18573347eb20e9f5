"""A replica for tests: a real sidecar process and the directory that it mirrors."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

from configstore.embedded import free_ports
from tests.harness import zygote
from tests.harness.trees import Look, tree
from tests.harness.waiting import PATIENCE, wait_until

ENVIRONMENT = {name: os.environ[name] for name in os.environ if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))}

CLIENTS_PYTHON = os.environ.get("CONFIGSTORE_TEST_CLIENTS_PYTHON", sys.executable)
"""Set it to run the drop-in client on another version, such as 3.8."""


def seldom(policy: str) -> str:
    """Return a mapping's settings, with full looks so rare that nothing is right by them alone."""
    return policy if "rescan" in policy else f'rescan = "1h"\n{policy}'


def answer_of(url: str) -> tuple[int, str]:
    """Return the status and the text that a server answers; status 0 when nobody does."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as answer:
        with answer:
            return answer.code, answer.read().decode()
    except OSError as error:
        return 0, str(error)


class Running:
    """A sidecar process with its log, its health endpoint, and a folder that it shares with applications."""

    def __init__(self, name: str, base: Path) -> None:
        self.name = name
        self.log = base / f"{name}.log"
        self.health = f"127.0.0.1:{free_ports(1)[0]}"
        self.shared = Path(tempfile.mkdtemp(prefix="cs-"))  # short, as a socket's path must be
        self.process: subprocess.Popen[bytes] | zygote.Forked | None = None
        self.environment = ENVIRONMENT
        self.anew = False  # whether it is started by a new interpreter: where memory or the start itself counts
        self.under: tuple[str, ...] = ()  # a command that runs the sidecar, with fewer rights or resources

    def arguments(self) -> list[str]:
        """Return the arguments of the sidecar."""
        return ["run"]

    def start(self) -> Self:
        """Start `run`."""
        with self.log.open("ab") as log:
            if self.under or self.anew:
                command = [*self.under, sys.executable, "-m", "sidecar", *self.arguments()]
                self.process = subprocess.Popen(command, stderr=log, env=self.environment)
            else:
                self.process = zygote.start("sidecar", self.arguments(), self.environment, log)
        return self

    def ask(self, path: str) -> tuple[int, str]:
        """Return what the health endpoint answers; status 0 when nobody does."""
        return answer_of(f"http://{self.health}{path}")

    def ready(self, service: str = "") -> Self:
        """Wait until it, or one service of it, is ready."""
        path = f"/readyz?service={service}" if service else "/readyz"

        def is_ready() -> bool:
            assert self.process is None or self.process.poll() is None, f"{self.name} has ended: {self.words()}"
            return self.ask(path)[0] == 200

        wait_until(is_ready, 40, what=lambda: f"{self.name} {service} to be ready: {self.words()}")
        return self

    def words(self) -> str:
        """Return its log as it is."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal, wait for the end, and return the exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code, self.process = self.process.wait(PATIENCE), None
        return code

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end(signal.SIGKILL)
        shutil.rmtree(self.shared, ignore_errors=True)


class Replica(Running):
    """One sidecar with one mapping, `data`, whose subtree lies under a root of the test's own.

    policy: more lines of the mapping in TOML. Ends the process on leaving.
    """

    def __init__(
        self, name: str, base: Path, endpoints: list[str], root: str, policy: str = "", more: str = ""
    ) -> None:
        super().__init__(name, base)
        self.folder = base / name
        self.folder.mkdir()
        self.state = base / f"{name}-state"
        self._forgotten = 0
        self.settings = base / f"{name}.toml"
        self.settings.write_text(
            f'[store]\nendpoints = {json.dumps(endpoints)}\nroot = "{root}"\ntimeout = "3s"\n'
            f'[state]\ndirectory = "{self.state}"\n[control]\nsocket = "{self.shared}/control.sock"\n'
            f'[health]\nlisten = "{self.health}"\n[log]\nlevel = "info"\nformat = "json"\n'
            f"{self.mappings(policy)}\n{more}\n"
        )

    def arguments(self) -> list[str]:
        """Return the arguments of the sidecar."""
        return ["run", "--replica", self.name, "--config", str(self.settings)]

    def mappings(self, policy: str) -> str:
        """Return the settings of its mappings."""
        return f'[[mapping]]\nname = "data"\npath = "{self.folder}"\n{seldom(policy)}'

    def command(self, verb: str, *options: str) -> subprocess.CompletedProcess[str]:
        """Run `init` or `plan` to its end."""
        return zygote.run_text("sidecar", [verb, "--config", str(self.settings), *options], self.environment)

    def metric(self, name: str) -> float:
        """Return one of the mapping's figures."""
        lines = self.ask("/metrics")[1].splitlines()
        return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"configstore_{name}{{"))

    def lines(self) -> list[dict[str, object]]:
        """Return what it has logged since `forget_lines`."""
        lines = [json.loads(line) for line in self.words().splitlines() if line.startswith("{")]
        return lines[self._forgotten :]

    def forget_lines(self) -> None:
        """Leave out of `lines` what it has logged so far."""
        self._forgotten += len(self.lines())

    def tree(self) -> dict[str, Look | None]:
        """Return what lies in the mirrored directory."""
        return tree(self.folder)

    def has_agreed(self) -> bool:
        """Tell whether all that was placed is in the baseline, too: what a kill leaves undecided is nothing."""
        journals = list(self.state.glob("*/intent"))
        return bool(journals) and not any(journal.stat().st_size for journal in journals)

    def client(self, *arguments: str, **how: Any) -> subprocess.Popen[str]:
        """Start the drop-in client that the sidecar has placed."""
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": ENVIRONMENT}
        return subprocess.Popen(
            [CLIENTS_PYTHON, str(self.shared / "configstore-client"), *arguments], **pipes | how
        )

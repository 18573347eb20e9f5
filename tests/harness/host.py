"""A sidecar of a whole host for tests and for the benchmark, with folders that stand for its services' volumes."""

import os
import subprocess
import sys
from pathlib import Path

from configstore.client import Sidecar
from configstore.presets import combined
from tests.harness.replica import ENVIRONMENT, Running


class Host(Running):
    """A sidecar of some services, of all by default: a folder and a control socket for each."""

    def __init__(self, name: str, endpoint: str, root: str, base: Path, preset: str = "mailu") -> None:
        super().__init__(name, base)
        self.local = base / name
        self.environment = {
            **ENVIRONMENT,
            "CONFIGSTORE_ENDPOINTS": endpoint,
            "CONFIGSTORE_ROOT": root,
            "CONFIGSTORE_PRESET": preset,
            "CONFIGSTORE_LOCAL": str(self.local),
            "CONFIGSTORE_STATE": str(base / f"{name}-state"),
            "CONFIGSTORE_CONTROL_SOCKET": f"{self.shared}/control.sock",
            "CONFIGSTORE_HEALTH_LISTEN": self.health,
            "CONFIGSTORE_REPLICA": name,
        }
        for each in combined.mappings_of(combined.names_in(preset)):
            (self.shared / each.service).mkdir(mode=0o700, exist_ok=True)
            mapping = each.mapping
            if mapping.own:  # others on this machine have it, too
                own = base / f"{name}-{mapping.name}"
                own.mkdir()
                self.set(mapping.name, path=str(own))
            else:
                self.folder(each.service, mapping.path).mkdir(parents=True, exist_ok=True)
            if mapping.owner:  # root, which a test need not be
                self.set(mapping.name, owner=f"{os.getuid()}:{os.getgid()}")

    def folder(self, service: str, path: str) -> Path:
        """Return where a directory of a service's container lies."""
        return self.local / service / path.strip("/")

    def set(self, mapping: str, **keys: str) -> None:
        """Set keys of a mapping, before the start."""
        for key, value in keys.items():
            self.environment[f"CONFIGSTORE_MAPPING_{mapping.upper().replace('-', '_')}_{key.upper()}"] = value

    @property
    def running(self) -> "subprocess.Popen[bytes]":
        """Its process, a new interpreter's (`anew`), after `start`."""
        assert isinstance(self.process, subprocess.Popen)
        return self.process

    def says(self, service: str = "") -> tuple[int, str]:
        """Return what /readyz says, of one service if it is named."""
        return self.ask(f"/readyz?service={service}" if service else "/readyz")

    def control(self, service: str) -> Sidecar:
        """Return a client at a service's socket."""
        return Sidecar(str(self.shared / service / "control.sock"))

    def client(self, service: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run the client that a service finds beside its socket."""
        command = [sys.executable, str(self.shared / service / "configstore-client"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)

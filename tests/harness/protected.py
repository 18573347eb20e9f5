"""An etcd with TLS and access control, as `configstore access apply` makes it, and those who have certificates."""

import contextlib
import datetime as dt
import os
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from configstore.access import certificates, layout
from configstore.access.formats import etcd_flags
from configstore.embedded import LOOPBACK, EmbeddedEtcd
from configstore.presets.services import of_presets
from configstore.store.etcd import EtcdKv
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT
from tests.harness.servers import connect

PRESETS = ("mailu", "mailu/certs-source")


class Protected:
    """The etcd, and how each of its users reaches it. `root`: the operator; else a service's name."""

    def __init__(self, server: EmbeddedEtcd, tls: Path) -> None:
        self.server = server
        self.endpoint = server.endpoint
        self.tls = tls

    def files(self, who: str) -> layout.ClientFiles:
        """Return somebody's certificate files."""
        if who == "root":
            return layout.operator_files(str(self.tls))
        return layout.client_files(str(self.tls), who, f"mailu-{who}")

    def kv(self, who: str) -> EtcdKv:
        """Return a connection as somebody."""
        files = self.files(who)
        return connect(self.endpoint, cacert=files.cacert, cert=files.cert, key=files.key)

    def environment(self, who: str) -> dict[str, str]:
        """Return the variables that make a sidecar or a command somebody's."""
        files = self.files(who)
        return ENVIRONMENT | {
            "CONFIGSTORE_ENDPOINTS": self.endpoint,
            "CONFIGSTORE_CACERT": files.cacert,
            "CONFIGSTORE_CERT": files.cert,
            "CONFIGSTORE_KEY": files.key,
        }

    def run(self, *words: str, who: str = "root", code: int = 0, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command as somebody; fails the test unless it exits with `code`."""
        done = zygote.run_text("configstore", [*words], self.environment(who) | more)
        assert done.returncode == code, (words, done.returncode, done.stdout, done.stderr)
        return done

    def apply(self, *words: str, presets: Sequence[str] = PRESETS, code: int = 0) -> str:
        """Run `access apply`, and return what it says."""
        named = [word for preset in presets for word in ("--preset", preset)]
        done = self.run("access", "apply", "--out", str(self.tls), *named, *words, code=code)
        return done.stdout + done.stderr


def make_certificates(tls: Path, presets: Sequence[str] = PRESETS) -> None:
    """Make all certificates below a folder."""
    services = {service.name: service.user for service in of_presets(presets)}
    certificates.ensure(str(tls), services, server_names=[LOOPBACK], now=dt.datetime.now(dt.UTC))


def client_flags(tls: Path) -> list[str]:
    """Return etcd's options for its clients' side."""
    return [flag for flag in etcd_flags(str(tls)) if "peer" not in flag]


@contextlib.contextmanager
def unprotected(binary: Path, folder: Path) -> Iterator[Protected]:
    """Run an etcd with certificates, and no users yet."""
    tls = folder / "tls"
    make_certificates(tls)
    with EmbeddedEtcd(binary=binary, folder=folder / "etcd", tls_arguments=client_flags(tls)) as server:
        yield Protected(server, tls)


@contextlib.contextmanager
def protected(binary: Path, folder: Path) -> Iterator[Protected]:
    """Run an etcd with all of Mailu's services as its users, access control on, and all subtrees made."""
    with unprotected(binary, folder) as found:
        found.apply()
        found.run("bootstrap", "--preset", "mailu", "--yes")
        yield found


def is_root() -> bool:
    """Tell whether the tests run as root, who may give files to others."""
    return os.geteuid() == 0

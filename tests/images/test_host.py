"""docs/deploy/host on a real engine: the guide for compose with its differences, one sidecar for all services."""

import json
import re

import pytest

from tests.images.conftest import PROJECT
from tests.images.test_compose import MAILU, SERVICES, GuidedHost, never_without_files, wrappers_are_found
from tests.waiting import wait_until

pytestmark = [pytest.mark.xdist_group("engine"), pytest.mark.timeout(600), pytest.mark.guides]

PAGE = (PROJECT / "docs/deploy/host/README.md").read_text()


class OneSidecar(GuidedHost):
    """A host whose operator follows the guide, and does what the page of docs/deploy/host says is different."""

    def type(self, line: str, timeout: float = 150) -> str:
        """Type a line of the guide, as the page changes it."""
        said = super().type(line.replace("--preset mailu --out", "--preset mailu --service host --out"), timeout)
        if line.startswith("sed "):
            (files,) = re.findall(r"^ +(COMPOSE_FILE=.*)$", PAGE, re.MULTILINE)
            with (self.folder / ".env").open("a") as settings:
                settings.write(f"{files}\n")
        return said

    def all_run(self) -> None:
        """Wait until all services run, and the sidecar is healthy."""
        for service in (*SERVICES, "host-sidecar"):
            wait_until(lambda service=service: self.running(service), 60, what=service)


@pytest.fixture
def host(engine, image, clone, tmp_path):
    """Return a host on which Mailu runs, without configstore as yet."""
    host = OneSidecar(engine, tmp_path, clone)
    for path, content in MAILU.items():
        (host.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (host.folder / path).write_text(f"{content}\n")
    try:
        host.compose("up", "-d")
        yield host
    finally:
        host.down()


def test_one_sidecar_brings_all_services_their_files_and_holds_none_up_for_another(host):
    engine = host.engine
    host.moves_in()
    host.all_run()
    never_without_files(host, starts=1)
    assert host.sees_that_it_works() == "seen"
    wrappers_are_found(host)
    shown = json.loads(host.compose("run", "--rm", "-T", "--no-deps", "configstore", "replicas", "--json"))
    assert len({one["replica"] for one in shown}) == 1
    assert host.sh("fetchmail", "ls /run/configstore").split() == ["configstore-client", "control.sock"]
    host.write_key("example.org", "key")
    wait_until(lambda: host.stored("dkim/example.org.dkim.key") == "key", 20, what="a key in the store")

    # A service that fills its tmpfs, and takes away its control socket, takes both from nobody else.
    full = "dd if=/dev/zero of=/overrides-full bs=1k count=1; rm -f /run/configstore/control.sock"
    engine("exec", "-u0", host.container("imap"), "sh", "-c", full)
    health = ("exec", host.container("host-sidecar"), "configstore-sidecar", "health")
    assert "overrides-nginx: ok" in engine(*health, "--service", "front")
    assert engine.run(*health, "--live").returncode == 0

    # After a reboot all is filled before a service starts.
    engine.restart()
    never_without_files(host, starts=2)
    host.all_run()

"""docs/deploy/host on a real engine: the guide for compose with its differences, one sidecar for all services."""

import json
import re

import pytest

from tests.harness.waiting import wait_until
from tests.images.conftest import PROJECT
from tests.images.test_compose import SERVICES, GuidedHost, mailu_on, never_without_files, wrappers_are_found

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
    with mailu_on(OneSidecar(engine, tmp_path, clone)) as host:
        yield host


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

    # A service that fills its tmpfs and takes its control socket away takes them from nobody else.
    full = "dd if=/dev/zero of=/dkim/full bs=1M 2>/dev/null; rm /run/configstore/control.sock"
    engine("exec", "-u0", host.container("admin"), "sh", "-c", full)
    health = ("exec", host.container("host-sidecar"), "configstore-sidecar", "health")
    for path, content in (("dkim/more.dkim.key", "more"), ("overrides/nginx/more.txt", "more")):
        host.compose(f"run --rm -T --no-deps configstore put {path} <<<{content}")
    seen = ("exec", host.container("front"), "cat", "/overrides/more.txt")
    wait_until(lambda: engine.run(*seen).stdout.strip() == "more", 20, what="a file in front")
    wait_until(lambda: "dkim (admin): ok: degraded" in engine.run(*health).stdout, 20, what="a full tmpfs")
    assert "degraded" not in engine(*health, "--service", "front")
    assert engine.run(*health, "--live").returncode == 0
    engine("exec", "-u0", host.container("admin"), "rm", "/dkim/full")
    wait_until(lambda: "more.dkim.key" in set(host.keys()), 20, what="the key that had no room")

    # After a reboot all is filled before a service starts.
    engine.restart()
    never_without_files(host, starts=2)
    host.all_run()

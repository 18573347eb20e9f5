"""Certificates under a sidecar that runs: they end, are renewed as files, roll over, and nothing is restarted."""

import datetime as dt
import json
import os
import shutil

import pytest
from cryptography import x509

from configstore.access import issuing, layout
from configstore.access.certificates import ensure
from configstore.embedded import LOOPBACK, EmbeddedEtcd
from configstore.model.keys import Keys
from tests.e2e.faults import says
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import connect
from tests.harness.waiting import wait_until

SERVICES = {"front": "mailu-front"}
DAY = dt.timedelta(days=1)


class Folder:
    """Mounted as it is, as with compose: what is renewed comes by a rename."""

    def __init__(self, source, mounted):
        self.source = source
        self.path = source

    def bring(self):
        """Have the sidecar see what lies in the source."""


class Kubelet(Folder):
    """A Secret as Kubernetes mounts it: all files are links through one, which is exchanged."""

    def __init__(self, source, mounted):
        self.source, self.path = source, mounted
        self._count = 0
        mounted.mkdir()
        self.bring()
        for file in os.listdir(source):
            (mounted / file).symlink_to(f"..data/{file}")

    def bring(self):
        self._count += 1
        folder = self.path / f"..{self._count}"
        shutil.copytree(self.source, folder)
        (self.path / "..new").symlink_to(folder.name)
        (self.path / "..new").rename(self.path / "..data")
        if self._count > 1:
            shutil.rmtree(self.path / f"..{self._count - 1}")


class Installation:
    """An etcd and a sidecar with certificates of `ensure`."""

    def __init__(self, base, kind, binary):
        self.tls = base / "tls"
        self.make()
        self.mount = kind(self.tls / "front", base / "mounted")
        server = self.tls / "server"
        self.etcd = EmbeddedEtcd(
            binary=binary,
            folder=base / "etcd",
            tls_arguments=(
                f"--cert-file={server}/server.pem",
                f"--key-file={server}/server.key",
                f"--trusted-ca-file={server}/ca.pem",
                "--client-cert-auth",
            ),
        )
        self.base = base

    def make(self, **options):
        now = dt.datetime.now(dt.UTC)
        return {
            each.name: each
            for each in ensure(str(self.tls), SERVICES, server_names=[LOOPBACK], now=now, **options)
        }

    def operator(self):
        files = layout.operator_files(str(self.tls))
        return {"cacert": files.cacert, "cert": files.cert, "key": files.key}

    def has(self, path):
        with connect(self.etcd.endpoint, **self.operator()) as kv:
            return bool(kv.range(Keys().file(path)).items)

    def command(self, *words):
        options = [f"--{name}={value}" for name, value in self.operator().items()]
        return zygote.run_text("configstore", [*words, f"--endpoints={self.etcd.endpoint}", *options], ENVIRONMENT)

    def age(self, age):
        """Have the sidecar's certificate be one that was made so long ago, for the same key."""
        file = self.tls / "front/mailu-front"
        key = issuing.read_key(file.with_suffix(".key").read_bytes(), "")
        signing = x509.load_pem_x509_certificate((self.tls / "ca.pem").read_bytes())
        signing_key = issuing.read_key((self.tls / "ca.key").read_bytes(), "")
        old = issuing.issue(
            "mailu-front", key, issuing.CLIENT, (), signing=signing, signing_key=signing_key,
            now=dt.datetime.now(dt.UTC) - age,
        )  # fmt: skip
        new = file.with_suffix(".new")
        new.write_bytes(issuing.certificate_pem(old))
        new.rename(file.with_suffix(".pem"))
        self.mount.bring()

    def __enter__(self):
        self.etcd.start()
        made = self.command("mkdir", "data")
        assert made.returncode == 0, made.stderr
        self.one = Replica("one", self.base, [self.etcd.endpoint], "/configstore")
        files = {"cacert": "ca.pem", "cert": "mailu-front.pem", "key": "mailu-front.key"}
        lines = "".join(f"{key} = {json.dumps(str(self.mount.path / file))}\n" for key, file in files.items())
        self.one.settings.write_text(self.one.settings.read_text().replace("[store]\n", f"[store]\n{lines}"))
        self.one.start().ready()
        return self

    def __exit__(self, *_):
        self.one.end()
        self.etcd.close()

    def arrives(self, name):
        (self.one.folder / name).write_text(name)
        wait_until(lambda: self.has(f"data/{name}"), 60, what=f"{name} in the store: {self.one.words()[-500:]}")


def mounted_as(kind):
    return pytest.mark.parametrize("installed", [kind], ids=[kind.__name__.lower()], indirect=True)


@pytest.fixture
def installed(request, tmp_path, binary_named):
    with Installation(tmp_path, request.param, binary_named("wheel")) as found:
        yield found


@mounted_as(Kubelet)
def test_a_certificate_that_ends_is_told_renewed_and_read_again_by_who_runs(installed):
    one, process = installed.one, installed.one.process
    installed.arrives("a")

    installed.age(800 * DAY)
    words = "(cert) ends in 25 days: renew it, by `configstore access apply`"
    wait_until(lambda: words in one.ask("/readyz")[1], 60, what=one.ask("/readyz")[1])
    told = installed.command("status")
    assert says("a sidecar's certificate about to end", told.stdout), told.stdout
    assert told.returncode == 1

    installed.age(900 * DAY)
    installed.etcd.restart()  # no connection that was made before is left
    (one.folder / "b").write_text("b")
    wait_until(lambda: one.metric("waiting") == 1 and "has ended" in one.ask("/readyz")[1], 60)
    assert not installed.has("data/b"), "etcd takes nobody whose certificate has ended"

    assert installed.make()["mailu-front"].state == "renewed"
    installed.mount.bring()
    wait_until(lambda: installed.has("data/b"), 60)
    wait_until(lambda: one.metric("waiting") == 0 and "(cert)" not in one.ask("/readyz")[1], 60)
    assert one.process is process
    assert process.poll() is None


@mounted_as(Folder)
def test_another_authority_comes_in_three_steps_and_the_sidecar_goes_on(installed):
    """As the words of each step say: first the files, then etcd's members, which read authorities at a start."""
    one, process = installed.one, installed.one.process
    authorities = [(installed.mount.path / "ca.pem").read_bytes()]
    for number in (1, 2, 3):
        said = installed.make(roll_over=True)["ca"].why
        assert f"step {number} of 3" in said
        installed.arrives(f"before-{number}")  # the server's files are new, the sidecar's are not
        installed.mount.bring()
        installed.arrives(f"between-{number}")
        installed.etcd.restart()
        installed.arrives(f"after-{number}")
        authorities.append((installed.mount.path / "ca.pem").read_bytes())
    assert authorities[0] not in authorities[3]
    assert authorities[0] in authorities[2]
    assert one.process is process
    assert process.poll() is None

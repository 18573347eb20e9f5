"""A service whose certificate was stolen, against the rights that `configstore access apply` gave it.

Every attempt is made at a real etcd, as `front` (it reads certificates, and writes those of letsencrypt) and as
`antispam` (it only reads). What etcd has no rights for is tried as well, and told: docs/threat-model.md has the
same table.
"""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest

from configstore.access.formats import etcd_flags
from configstore.embedded import LOOPBACK, free_ports
from configstore.errors import LeaseGoneError, PermissionDeniedError
from configstore.model.grants import Grant, Right
from configstore.store.api import CreateRevision, Delete, Put
from configstore.store.etcd.stubs import Stub, rpc
from tests.attacks.test_network import REFUSED, ask
from tests.harness.protected import make_certificates, protected
from tests.harness.waiting import wait_until

pytestmark = pytest.mark.xdist_group("stolen certificate")

HERE = Path(__file__).parents[2]
ROOT = "/configstore"

ALL = Grant(b"\0", b"\0", Right.READWRITE)

VICTIMS = {"front": "dkim/example.org.dkim.key", "antispam": "fetchmail/fetchids"}
"""What each thief is after."""

READ_ONLY = {"front": "certs/cert.pem", "antispam": "overrides/rspamd/options.inc"}
"""What it may read, and not write."""


@dataclass
class Thief:
    """Who tries: as whom, what it is after, and whose lease and report they are."""

    name: str
    kv: Any
    lease: int
    empty: int

    @property
    def path(self) -> str:
        return VICTIMS[self.name]

    @property
    def mapping(self) -> str:
        return self.path.partition("/")[0]

    @property
    def connection(self):
        return self.kv._calls.connections.current()

    def key(self, family: str, rest: str = "") -> bytes:
        return f"{ROOT}/{family}/{self.path}{rest}".encode()

    def read_only(self, family: str, rest: str = "") -> bytes:
        return f"{ROOT}/{family}/{READ_ONLY[self.name]}{rest}".encode()

    def place(self, lease: int) -> bytes:
        return f"{ROOT}/leases/admin-start/{lease:x}".encode()

    def read(self, key, end=None):
        return self.kv.range(key, end)

    def write(self, key, *, lease=0):
        return self.kv.txn((), (Put(key, b"forged", lease),))

    def delete(self, key):
        return self.kv.txn((), (Delete(key),))

    def watch(self, key):
        watch = self.kv.watch(key, key + b"\0", start_revision=1)
        try:
            return next(iter(watch))
        finally:
            watch.close()

    def call(self, stub, name, request):
        try:
            answer = getattr(getattr(self.connection, stub), name)(request, timeout=5)
            return list(answer) if name == "Snapshot" else answer
        except grpc.RpcError as error:
            if "permission denied" in error.details():
                raise PermissionDeniedError(str(error)) from error
            raise

    def member(self, name, request):
        stub = Stub(self.connection.channel, "Cluster")
        try:
            return getattr(stub, name)(request, timeout=5)
        except grpc.RpcError as error:
            if "permission denied" in error.details():
                raise PermissionDeniedError(str(error)) from error
            raise


def below(top):
    """Return the range of all that lies below a directory of keys."""
    return f"{ROOT}/{top}/".encode(), f"{ROOT}/{top}0".encode()


REFUSED_BY_ETCD = {
    # reading
    "reads another's file": lambda t: t.read(t.key("files")),
    "lists another's subtree": lambda t: t.read(*below(f"files/{t.mapping}")),
    "lists all files": lambda t: t.read(*below("files")),
    "watches another's file": lambda t: t.watch(t.key("files")),
    "reads another's large content": lambda t: t.read(t.key("chunks", "//"), t.key("chunks", "/0")),
    "reads what another's file was": lambda t: t.read(t.key("past", "//"), t.key("past", "/0")),
    "reads another's losing sides": lambda t: t.read(t.key("conflicts", "//"), t.key("conflicts", "/0")),
    "reads by a comparison": lambda t: t.kv.txn((CreateRevision(t.key("files"), 0),), ()),
    # writing
    "writes another's file": lambda t: t.write(t.key("files")),
    "deletes another's record": lambda t: t.delete(t.key("files")),
    "writes a file that it only reads": lambda t: t.write(t.read_only("files")),
    "writes history of a file that it only reads": lambda t: t.write(t.read_only("past", "//1")),
    "forges another's large content": lambda t: t.write(t.key("chunks", "//00")),
    "removes another's history": lambda t: t.delete(t.key("past", f"//{1:020d}")),
    "plants a losing side for another": lambda t: t.write(t.key("conflicts", "//x")),
    "writes beside its own subtree": lambda t: t.write(f"{ROOT}/files/{t.mapping}-x/a".encode()),
    "writes outside the root key": lambda t: t.write(b"/elsewhere"),
    # forging
    "forges another's report": lambda t: t.write(f"{ROOT}/replicas/{t.mapping}/r".encode()),
    "has another's replica expected": lambda t: t.write(f"{ROOT}/replicas/{t.mapping}//r".encode()),
    "forgets another's replica": lambda t: t.delete(f"{ROOT}/replicas/{t.mapping}//r".encode()),
    "makes a person's request": lambda t: t.write(f"{ROOT}/requests/x".encode()),
    "removes a person's request": lambda t: t.delete(f"{ROOT}/requests/x".encode()),
    "writes where the doctor tries": lambda t: t.write(f"{ROOT}/doctor/x".encode()),
    # leases
    "sees the queue of another's lease": lambda t: t.read(*below("leases/admin-start")),
    "queues for another's lease": lambda t: t.write(t.place(t.empty), lease=t.empty),
    "removes another's place in a queue": lambda t: t.delete(t.place(t.lease)),
    "rewrites what another began": lambda t: t.write(f"{ROOT}/intents/admin-start".encode()),
    "revokes an etcd lease that holds another's key": lambda t: t.kv.lease_revoke(t.lease),
    # users, members, maintenance
    "lists users": lambda t: t.kv.accounts.users(),
    "lists roles and their rights": lambda t: t.kv.accounts.roles(),
    "makes a user": lambda t: t.kv.accounts.add_user("thief", "password"),
    "removes a user": lambda t: t.kv.accounts.delete_user("mailu-imap"),
    "gives itself the role root": lambda t: t.kv.accounts.give_role(f"mailu-{t.name}", "root"),
    "widens its own role": lambda t: t.kv.accounts.grant(f"mailu-{t.name}", ALL),
    "switches access control off": lambda t: t.kv.accounts.disable(),
    "takes a snapshot": lambda t: t.call("maintenance", "Snapshot", rpc.SnapshotRequest()),
    "defragments a member": lambda t: t.call("maintenance", "Defragment", rpc.DefragmentRequest()),
    "adds a member": lambda t: t.member("MemberAdd", rpc.MemberAddRequest(peerURLs=["http://127.0.0.1:1"])),
    "removes a member": lambda t: t.member("MemberRemove", rpc.MemberRemoveRequest(ID=1)),
}  # fmt: skip
"""What is tried, and must be refused."""

ALLOWED_BY_ETCD = {
    "grants etcd leases": lambda t: t.kv.lease_revoke(t.kv.lease_grant(60)),
    "lists the numbers of all etcd leases": lambda t: t.call("lease", "LeaseLeases", rpc.LeaseLeasesRequest()),
    "hangs a key of its own on another's etcd lease": lambda t: t.write(f"{ROOT}/asks/x".encode(), lease=t.lease),
    "keeps another's etcd lease alive": lambda t: t.kv.lease_keepalive(t.lease),
    "revokes another's etcd lease that holds no key yet": lambda t: t.kv.lease_revoke(t.empty),
    "reads the reports of all replicas": lambda t: t.read(*below("replicas")),
    "reads what a person asks": lambda t: t.read(*below("requests")),
    "asks others for reports": lambda t: t.write(f"{ROOT}/asks/x".encode()),
    "removes others' asks for reports": lambda t: t.delete(f"{ROOT}/asks/x".encode()),
    "reads its own role": lambda t: t.call("auth", "RoleGet", rpc.AuthRoleGetRequest(role=f"mailu-{t.name}")),
    "asks a member for its version and size": lambda t: t.kv.status(),
}  # fmt: skip
"""What etcd has no rights for, or a service needs."""


@pytest.fixture(scope="module", params=["wheel", "debian"])
def store(request, binary_named, tmp_path_factory):
    """Return an etcd with all of Mailu's services as users, and something of each to be stolen."""
    with protected(binary_named(request.param), tmp_path_factory.mktemp("attacks")) as found:
        with found.kv("root") as kv:
            for path in (*VICTIMS.values(), *READ_ONLY.values()):
                for family, rest in (
                    ("files", ""),
                    ("chunks", "//00"),
                    ("past", f"//{1:020d}"),
                    ("conflicts", "//1"),
                ):
                    kv.txn((), (Put(f"{ROOT}/{family}/{path}{rest}".encode(), b"precious"),))
        yield found


@pytest.fixture(params=VICTIMS)
def thief(request, store):
    """Return who has a service's certificate; admin holds a lease meanwhile."""
    with store.kv("admin") as admin, store.kv(request.param) as kv:
        lease, empty = admin.lease_grant(60), admin.lease_grant(60)
        key = f"{ROOT}/leases/admin-start/{lease:x}".encode()
        admin.txn((), (Put(key, b"admin", lease),))
        yield Thief(request.param, kv, lease, empty)
        for each in (lease, empty):
            try:
                admin.lease_revoke(each)
            except Exception as error:  # noqa: BLE001 - it was stolen
                assert "lease" in str(error)  # noqa: PT017


def contents(store):
    """Return all that lies in the store, and who may do what."""
    with store.kv("root") as kv:
        items = {item.key: item.value for item in kv.range(b"\0", b"\0").items}
        return {key: value for key, value in items.items() if b"/leases/" not in key}, kv.accounts.roles()


def test_a_stolen_certificate_reads_writes_and_forges_nothing_of_the_others(thief, store):
    before = contents(store)
    got_through = []
    for what, attempt in REFUSED_BY_ETCD.items():
        try:
            attempt(thief)
        except PermissionDeniedError:
            continue
        got_through.append(what)
    assert got_through == []
    assert contents(store) == before
    with store.kv("root") as kv:
        assert kv.range(f"{ROOT}/leases/admin-start/{thief.lease:x}".encode()).items, "the lease is still held"
        assert kv.accounts.enabled()


def test_what_etcd_has_no_rights_for_is_known(thief):
    for what, attempt in ALLOWED_BY_ETCD.items():
        try:
            attempt(thief)
        except PermissionDeniedError as error:
            pytest.fail(f"{what}: is refused by now: the table may say so ({error})")


def test_a_lease_that_a_thief_keeps_alive_is_broken_by_a_person(thief, store):
    own = f"{ROOT}/replicas/overrides-{'nginx' if thief.name == 'front' else 'rspamd'}/x".encode()
    thief.write(own, lease=thief.lease)
    with store.kv("admin") as admin, pytest.raises(PermissionDeniedError):
        admin.lease_revoke(thief.lease)  # for the sake of the thief's key on it
    thief.kv.lease_keepalive(thief.lease)
    store.run("leases", "break", "admin-start", "--yes")
    with store.kv("root") as kv:
        assert not kv.range(own).items
    with pytest.raises(LeaseGoneError):
        thief.kv.lease_keepalive(thief.lease)


def test_the_threat_model_has_the_same_table():
    page = (HERE / "docs/threat-model.md").read_text()
    rows = dict(re.findall(r"^\| (?:it )?([^|]+) \| (refused|allowed)[^|]* \|$", page, re.MULTILINE))
    assert rows == dict.fromkeys(REFUSED_BY_ETCD, "refused") | dict.fromkeys(ALLOWED_BY_ETCD, "allowed") | {
        "talks to the members' own port": "refused"
    }


def test_no_client_talks_to_the_members_own_port(binary_named, tmp_path):
    tls = tmp_path / "tls"
    make_certificates(tls)
    client, peer = (f"https://{LOOPBACK}:{port}" for port in free_ports(2))
    command = [
        str(binary_named("debian")), "--name=a", f"--data-dir={tmp_path / 'data'}", f"--initial-cluster=a={peer}",
        f"--initial-advertise-peer-urls={peer}", f"--listen-peer-urls={peer}", f"--advertise-client-urls={client}",
        f"--listen-client-urls={client}", *etcd_flags(str(tls)),
    ]  # fmt: skip
    log = tmp_path / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(command, stderr=said, stdout=said)
    try:
        wait_until(lambda: b"ready to serve client requests" in log.read_bytes(), 30, what="a member that serves")
        for stolen in ("front/mailu-front", "operator/operator", "server/server", None):
            with pytest.raises(OSError, match=REFUSED):
                ask(f"{peer}/members", tls, stolen)
        assert ask(f"{client}/version", tls, "front/mailu-front", "ca")
    finally:
        process.kill()
        process.wait()

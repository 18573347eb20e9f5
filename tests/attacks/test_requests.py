"""What a service's user of etcd can make replicas do: report, and nothing that is a person's to decide.

Over a real etcd with access control on and just the rights of docs/store-layout.md.
"""

import os
import pwd

import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.errors import PermissionDeniedError
from configstore.model.keys import Keys
from configstore.model.replica import Ask, MappingState, Request, Take, Verb, encode
from configstore.store.api import CreateRevision, Delete, Put
from configstore.store.replicas import everyone
from configstore.store.store import Store
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import connect, run_etcdctl
from tests.harness.waiting import wait_until

PASSWORD = "correct horse"  # of a server that lives for these tests
MANY = [f"{number:02}" for number in range(20)]
ROOT = "/configstore"
RIGHTS = (
    ("readwrite", "files/data", "files/data0"),
    ("readwrite", "chunks/data/", "chunks/data0"),
    ("readwrite", "past/data/", "past/data0"),
    ("readwrite", "conflicts/data/", "conflicts/data0"),
    ("readwrite", "replicas/data/", "replicas/data0"),
    ("read", "replicas/", "replicas0"),
    ("readwrite", "asks/", "asks0"),
    ("read", "requests/", "requests0"),
)
"""What a service needs for its subtree `data`."""


@pytest.fixture(scope="module")
def guarded(binary_named):
    """An etcd in which `svc` has a service's rights, and `ann`, a person, all below the root key."""
    with EmbeddedEtcd(binary=binary_named("debian")) as server:
        for arguments in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "person"),
            ("role", "grant-permission", "person", "readwrite", f"{ROOT}/", f"{ROOT}0"),
            ("role", "add", "service"),
            *(
                ("role", "grant-permission", "service", right, f"{ROOT}/{start}", f"{ROOT}/{end}")
                for right, start, end in RIGHTS
            ),
            *(("user", "add", f"{name}:{PASSWORD}") for name in ("ann", "svc")),
            ("user", "grant-role", "ann", "person"),
            ("user", "grant-role", "svc", "service"),
            ("auth", "enable"),
        ):
            run_etcdctl(server.endpoint, *arguments)
        yield server


@pytest.fixture
def person(guarded, tmp_path):
    """Return a function that runs the command as `ann` and returns what it prints."""
    password = tmp_path / "password"
    password.write_text(PASSWORD)
    login = {"CONFIGSTORE_ENDPOINTS": guarded.endpoint, "CONFIGSTORE_USER": "ann"}

    def run(*words, code=0):
        environment = ENVIRONMENT | login | {"CONFIGSTORE_PASSWORD_FILE": str(password)}
        done = zygote.run_text("configstore", [*words], environment)
        looks = {1} if words[:1] == ("status",) else set()  # something needs a look
        assert done.returncode in {code} | looks, done.stderr
        return done.stdout

    run("mkdir", "data")
    yield run
    run("rm", "-r", "--yes", "data")


@pytest.fixture
def service(guarded, tmp_path, person):
    """Return a function that makes a sidecar of `data` as `svc`; all end with the test."""
    secret = tmp_path / "secret"
    secret.write_text(PASSWORD)
    made = []

    def make(name, id_=None):
        one = Replica(name, tmp_path, [guarded.endpoint], ROOT)
        one.environment = one.environment | {
            "CONFIGSTORE_USER": "svc",
            "CONFIGSTORE_PASSWORD_FILE": str(secret),
        }
        if id_:
            one.name = id_  # under which it runs
        made.append(one)
        return one.start().ready()

    yield make
    for each in made:
        each.__exit__()


@pytest.fixture
def svc(guarded):
    """Return the store as whoever has the service's credentials."""
    with connect(guarded.endpoint, user="svc", password=PASSWORD) as kv:
        yield kv


@pytest.fixture
def halted(service, svc):
    """Return a replica that refused a mass delete, and why."""
    one = service("one")
    for name in MANY:
        (one.folder / name).write_text(name)
    wait_until(lambda: len(records(svc)) == len(MANY))
    for name in MANY:
        (one.folder / name).unlink()
    wait_until(lambda: one.metric("halted") == 1)
    return one, wait_until(lambda: reason(svc))


def records(kv):
    start, end = Keys(ROOT).files_below("data")
    return [item.key for item in kv.range(start, end).items if b'"kind":"file"' in item.value]


def report(kv, replica="one"):
    return everyone(Store(kv, Keys(ROOT))).live[Keys(ROOT).replica("data", replica)][0]


def reason(kv):
    found = report(kv)
    return found.reason if found.state is MappingState.HALTED else None


def forged(why, **fields):
    return encode(
        Request(
            id="forged", verb=Verb.RESUME, by="root@host", mapping="data", take=Take.LOCAL, reason=why, **fields
        )
    )


def test_a_services_rights_suffice_to_mirror_report_and_wait_for_all(service, person):
    one, two = service("one"), service("two")
    (one.folder / "a").write_bytes(b"x" * 200_000)
    (one.folder / "b").write_text("b")
    for words in (("flush", "data"), ("wait", "data", "--applied", "all")):
        client = one.client(*words)
        said = client.communicate(timeout=90)
        assert client.returncode == 0, said
    assert (two.folder / "a").stat().st_size == 200_000
    (two.folder / "b").unlink()
    wait_until(lambda: not (one.folder / "b").exists())
    assert "2 of 2" in person("status"), "each answers who asks"
    for each in (one, two):
        assert "PERMISSION_DENIED" not in each.words()
        assert each.ask("/readyz") == (200, "data: ok: ready\n")


def test_a_services_rights_suffice_to_notice_a_doubled_id(service):
    one = service("one")
    other = service("other", "one")
    for each in (one, other):
        wait_until(lambda each=each: "has the same replica id" in each.ask("/readyz")[1], 30)


def test_a_service_cannot_forge_a_persons_choice(halted, svc):
    one, why = halted
    key = Keys(ROOT).request("forged")
    with pytest.raises(PermissionDeniedError):
        svc.txn((CreateRevision(key, 0),), (Put(key, forged(why)),))
    with pytest.raises(PermissionDeniedError):
        svc.txn((), (Delete(key),))
    assert one.metric("halted") == 1


def test_a_choice_among_the_asks_is_ignored_and_said(halted, svc):
    one, why = halted
    keys = Keys(ROOT)
    for number, text in enumerate((forged(why), forged(why).replace(b'"resume"', b'"report"'))):
        key = keys.ask(f"forged-{number}")
        svc.txn((), (Put(key, text, svc.lease_grant(60)),))
        wait_until(lambda: "what is no ask for a report is ignored" in one.words())
    cycles = one.metric("cycles_total")
    ask = Ask(id="after")
    before = svc.txn((), (Put(keys.ask(ask.id), encode(ask), svc.lease_grant(60)),)).revision
    wait_until(
        lambda: everyone(Store(svc, keys)).live[keys.replica("data", "one")][1] > before, what="it to report"
    )
    (one.folder / "more").write_text("more")
    wait_until(lambda: one.metric("cycles_total") > cycles, what="a cycle to have seen all that was asked")
    assert reason(svc) == why
    assert len(records(svc)) == len(MANY)
    assert "by a person's choice" not in one.words()


def test_who_chose_is_told_in_the_log_and_in_status(halted, svc, person):
    one, why = halted
    assert "last choice" not in person("status")
    person("resume", "data", "--take", "store")
    wait_until(lambda: len(list(one.folder.glob("[0-9]*"))) == len(MANY))
    (line,) = [each for each in one.lines() if "by a person's choice" in str(each)]
    assert line["by"].startswith(f"{_user()}@")
    assert line["by"].endswith(" (etcd user ann)")
    assert (line["take"], line["reason"]) == ("store", why)
    shown = wait_until(lambda: next((each for each in person("status").splitlines() if "choice" in each), None))
    assert f"last choice: resume --take store, by {line['by']}, 20" in shown
    person("flush", "data")
    wait_until(
        lambda: any("flushed as a person asked" in str(each) and each["by"] == line["by"] for each in one.lines())
    )


def test_what_a_person_is_called_reaches_no_terminal_raw(halted, guarded, person):
    one, why = halted
    text = encode(
        Request(id="x", verb=Verb.RESUME, by="\x1b[2Jann\r\n", mapping="data", take=Take.STORE, reason=why)
    )
    with connect(guarded.endpoint, user="ann", password=PASSWORD) as kv:
        kv.txn((), (Put(Keys(ROOT).request("x"), text, kv.lease_grant(60)),))
    wait_until(lambda: one.metric("halted") == 0)
    shown = wait_until(lambda: (found := person("status")) and "last choice" in found and found)
    assert r"by \x1b[2Jann\r\n, " in shown
    assert "\x1b" not in shown + one.words()


def _user():
    return pwd.getpwuid(os.getuid()).pw_name

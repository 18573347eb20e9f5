"""Critical sections through the control socket: one writer at a time, everything it wrote committed, fenced."""

import itertools
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configstore.model.keys import Keys
from configstore.store.api import Put
from configstore.store.lease_queue import queue
from configstore.store.store import Store
from tests.harness.replica import CLIENTS_PYTHON, ENVIRONMENT
from tests.harness.servers import Proxy
from tests.harness.waiting import freeze, wait_until

GUARDED = 'lease = "job"\nsettle = "20ms"'


@pytest.fixture
def guarded(replica):
    """Return two running replicas of a mapping that a lease guards."""
    one, two = replica("one", GUARDED).start(), replica("two", GUARDED).start()
    return one.ready(), two.ready()


@pytest.fixture
def held(kv, kv_root):
    """Return a function that tells who is in the lease's queue, the holder first."""
    return lambda: [place.contender.replica for place in queue(Store(kv, Keys(kv_root)), "job")]


def outcome(process, timeout=60):
    """Return exit code, output and complaints of a client."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def appending(replica, text):
    """Return a command that appends to the shared file."""
    return ["sh", "-c", f"printf '{text}' >> {replica.folder}/file"]


def test_what_a_command_wrote_is_committed_when_hold_returns(guarded, configstore):
    one, two = guarded
    assert outcome(one.client("hold", "job", "--", *appending(one, "1"))) == (0, "", "")
    assert configstore("get", "data/file") == b"1"
    assert outcome(two.client("hold", "job", "--", *appending(two, "2"))) == (0, "", "")
    assert configstore("get", "data/file") == b"12"


def test_the_commands_exit_code_and_output_come_back(guarded):
    one, _ = guarded
    code, out, err = outcome(one.client("hold", "job", "--", "sh", "-c", "echo out; echo err >&2; exit 7"))
    assert (code, out, err) == (7, "out\n", "err\n")
    assert outcome(one.client("hold", "job", "--", "sh", "-c", "kill -9 $$"))[0] == 128 + 9
    assert outcome(one.client("hold", "job", "--", "/no/such/program"))[0] == 127


def test_a_command_is_told_of_its_lease(guarded, kv, kv_root, held):
    one, _ = guarded
    code, out, _ = outcome(
        one.client("hold", "job", "--", "sh", "-c", "echo $CONFIGSTORE_LEASE $CONFIGSTORE_TOKEN")
    )
    assert code == 0
    assert out.startswith("job ")
    assert int(out.split()[1]) > 0
    assert held() == []


def test_without_patience_the_holder_is_named(guarded, held):
    one, two = guarded
    first = one.client("hold", "job", "--", "sleep", "60")
    wait_until(held)
    code, _, err = outcome(two.client("hold", "job", "--no-wait", "--", "true"))
    assert code == 3
    assert "lease job is held by one on " in err
    assert "for sleep" in err
    first.terminate()
    assert outcome(first)[0] == 128 + signal.SIGTERM


def test_a_waiter_follows_at_the_release_and_sees_what_was_written(guarded, held):
    one, two = guarded
    gate = one.folder.parent / "gate"
    os.mkfifo(gate)
    first = one.client("hold", "job", "--", "sh", "-c", f"cat {gate}; printf new > {one.folder}/file")
    wait_until(held)
    second = two.client("hold", "job", "--", "cat", str(two.folder / "file"))
    wait_until(lambda: held() == ["one", "two"])
    gate.write_text("")
    assert outcome(first)[0] == 0
    code, out, err = outcome(second)
    assert (code, out) == (0, "new")
    assert "waiting for one on" in err


def test_an_edit_without_the_lease_stays_and_is_reported_until_the_lease_is_held(guarded, configstore):
    one, two = guarded
    (one.folder / "file").write_text("without")
    wait_until(lambda: one.metric("problems") == 1)
    assert "without the lease job" in one.words()
    configstore("get", "data/file", code=1)
    assert outcome(one.client("hold", "job", "--", "true"))[0] == 0
    assert configstore("get", "data/file") == b"without"
    wait_until((two.folder / "file").exists)
    wait_until(lambda: one.metric("problems") == 0)


def test_an_edit_without_the_lease_is_kept_when_the_store_overtakes_it(guarded, configstore):
    one, two = guarded
    outcome(one.client("hold", "job", "--", *appending(one, "agreed")))
    wait_until((two.folder / "file").exists)
    (two.folder / "file").write_text("without the lease")
    wait_until(lambda: two.metric("problems") == 1)
    outcome(one.client("hold", "job", "--", *appending(one, " on")))
    wait_until(lambda: (two.folder / "file").read_text() == "agreed on")
    (row,) = json.loads(configstore("conflicts", "--json"))
    assert configstore("conflicts", row["path"], "--show", row["id"]) == b"without the lease"


def committed(replica, name, text):
    """Have a replica commit a file under the lease."""
    script = f"printf '{text}' > '{replica.folder}/{name}'"
    assert outcome(replica.client("hold", "job", "--", "sh", "-c", script))[0] == 0


@pytest.fixture
def at_rest(kv, kv_root):
    """Return a function that waits until a replica knows who held the lease, while nothing lies there unsent."""

    def wait(replica):
        (intent,) = kv.range(Keys(kv_root).intent("job")).items
        (log,) = replica.state.glob("*/baseline")

        def clean_at():
            lines = (
                json.loads(line) for line in log.read_text().splitlines() if line.startswith('{"line":"clean"')
            )
            return max((line["at"] for line in lines), default=0)

        wait_until(lambda: clean_at() >= intent.mod_revision, 30, what=f"{replica.name} to be at rest")

    return wait


def content_of(path):
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None


def kept(configstore):
    """Return what is kept as conflicts: contents, by path."""
    rows = json.loads(configstore("conflicts", "--json"))
    return {row["path"]: configstore("conflicts", row["path"], "--show", row["id"]) for row in rows}


def test_what_a_stale_holder_wrote_is_not_smuggled_in_under_a_later_hold(guarded, configstore, tmp_path, at_rest):
    one, two = guarded
    committed(one, "cert", "first")
    wait_until((two.folder / "cert").exists)
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = (
        f"echo runs; read x < {gate}; printf stale > {one.folder}/cert; printf new > {one.folder}/new; sleep 60"
    )
    stale = one.client("hold", "job", "--ttl", "4", "--", "sh", "-c", script)
    assert stale.stdout.readline() == "runs\n"
    freeze(stale)
    committed(two, "key", "of the successor")
    configstore("put", "data/later", content=b"so that the end of that hold is known, too")
    wait_until((one.folder / "later").exists)
    cycles = one.metric("cycles_total")
    wait_until(lambda: one.metric("cycles_total") > cycles + 1)
    gate.write_text("go\n")
    wait_until((one.folder / "new").exists)
    refused, _, err = outcome(one.client("hold", "job", "--wait", "1s", "--", "true"))
    assert (refused, "may still run" in err) == (3, True)
    stale.send_signal(signal.SIGCONT)
    assert outcome(stale)[0] == 3
    assert outcome(one.client("hold", "job", "--", "cat", str(one.folder / "cert"))) == (0, "first", "")
    assert configstore("get", "data/cert") == b"first"
    assert kept(configstore) == {"data/cert": b"stale", "data/new": b"new"}
    assert not (one.folder / "new").exists()
    configstore("get", "data/new", code=1)
    at_rest(one)
    (one.folder / "cert").write_text("of a person, later")
    assert outcome(one.client("hold", "job", "--", "true"))[0] == 0
    assert configstore("get", "data/cert") == b"of a person, later"


def test_nor_is_what_a_killed_clients_command_left_running_smuggled_in(guarded, configstore, tmp_path):
    one, _ = guarded
    committed(one, "cert", "first")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    script = (
        f"setsid sh -c 'read x < {gate}; printf stale > {one.folder}/cert' >&- 2>&- & echo runs; exec sleep 600"
    )
    killed = one.client("hold", "job", "--ttl", "300", "--", "sh", "-c", script)
    assert killed.stdout.readline() == "runs\n"
    killed.kill()
    killed.communicate()
    wait_until(lambda: one.metric("lease_held") == 0, what="the sidecar to see that the client is gone")
    configstore("put", "data/later", content=b"so that everything is looked at once more")
    wait_until((one.folder / "later").exists)
    cycles = one.metric("cycles_total")
    wait_until(lambda: one.metric("cycles_total") > cycles + 1)
    gate.write_text("go\n")
    wait_until(lambda: (one.folder / "cert").read_text() == "stale")
    configstore("leases", "break", "job", "--yes")
    code, out, _ = outcome(one.client("hold", "job", "--", "cat", str(one.folder / "cert")))
    assert (code, out, configstore("get", "data/cert")) == (0, "first", b"first")
    assert kept(configstore) == {"data/cert": b"stale"}


def test_nor_under_the_hold_that_already_waits_behind_it(guarded, configstore, held):
    one, _ = guarded
    committed(one, "cert", "first")
    script = f"trap 'sleep 1; printf stale > {one.folder}/cert; exit' TERM; echo runs; while :; do sleep 0.1; done"
    stale = one.client("hold", "job", "--", "sh", "-c", script)
    assert stale.stdout.readline() == "runs\n"
    waiting = one.client("hold", "job", "--", "cat", str(one.folder / "cert"))
    wait_until(lambda: len(held()) == 2)
    configstore("leases", "break", "job", "--yes")
    code, out, err = outcome(waiting)
    assert (code, out) == (0, "first"), err
    assert outcome(stale)[0] == 3
    assert configstore("get", "data/cert") == b"first"
    assert kept(configstore) == {"data/cert": b"stale"}


def test_a_broken_lease_stops_its_command_at_once_however_long_its_ttl(guarded, configstore):
    one, _ = guarded
    holder = one.client("hold", "job", "--ttl", "3600", "--", "sh", "-c", "echo runs; exec sleep 600")
    assert holder.stdout.readline() == "runs\n"
    configstore("leases", "break", "job", "--yes")
    code, _, err = outcome(holder, 100)
    assert (code, "lease job is lost" in err) == (3, True), err


def test_what_is_newer_in_the_store_does_not_wait_for_an_edit_without_the_lease(guarded, configstore):
    one, _ = guarded
    committed(one, "file", "agreed")
    (one.folder / "file").write_text("without the lease")
    wait_until(lambda: one.metric("problems") == 1)
    configstore("rm", "data/file")
    wait_until(lambda: not (one.folder / "file").exists())
    assert outcome(one.client("hold", "job", "--", "true"))[0] == 0
    assert kept(configstore) == {"data/file": b"without the lease"}


def test_many_new_directories_give_way_without_looking_like_a_mass_delete(guarded, configstore):
    one, two = guarded
    for number in range(30):
        (one.folder / f"d{number}").mkdir()
    wait_until(lambda: one.metric("problems") == 30)
    committed(two, "file", "x")
    code, _, err = outcome(one.client("hold", "job", "--", "true"))
    assert code == 0, err
    assert sorted(path.name for path in one.folder.iterdir() if path.name != ".configstore") == ["file"]


@pytest.mark.parametrize("restarted", [False, True])
def test_an_edit_without_the_lease_gives_way_when_another_held_it_since(guarded, configstore, restarted):
    one, two = guarded
    committed(one, "file", "agreed")
    wait_until((two.folder / "file").exists)
    (two.folder / "file").write_text("without the lease")
    wait_until(lambda: two.metric("problems") == 1)
    if restarted:
        two.end(signal.SIGKILL)
    committed(one, "other", "x")
    if restarted:
        two.start().ready()
    committed(two, "third", "y")
    assert configstore("get", "data/file") == b"agreed"
    assert (two.folder / "file").read_text() == "agreed"
    assert kept(configstore) == {"data/file": b"without the lease"}


def test_an_edit_without_the_lease_travels_when_others_held_it_before_only(guarded, configstore, at_rest):
    one, two = guarded
    committed(one, "file", "agreed")
    committed(two, "other", "x")

    def travels(text):
        at_rest(one)
        (one.folder / "file").write_text(text)
        wait_until(lambda: one.metric("problems") == 1)
        assert outcome(one.client("hold", "job", "--", "true"))[0] == 0
        assert configstore("get", "data/file") == text.encode()

    travels("without the lease")
    one.end(signal.SIGTERM)
    one.start().ready()
    travels("after a restart")
    assert kept(configstore) == {}


REFUSED = {
    "a FIFO": ("rm -f x; mkfifo x", "x: "),
    "a hard link": ("rm x; printf y > ../outside; ln ../outside x", "x: "),
    "a name that is no text": ("printf y > \"$(printf 'x\\377')\"", r"$'x\xff': "),
    "what the check refuses": ("printf BAD2 > x", "x: "),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_committed_is_named_and_never_exit_code_0(replica, configstore, what):
    one = replica("one", f'{GUARDED}\ncheck = ["sh", "-c", "! grep -rq BAD --exclude-dir=.configstore ."]')
    one.start().ready()
    committed(one, "y", "good")
    (one.folder / "x").write_text("BAD1")
    wait_until(lambda: one.metric("problems") == 1)
    script, named = REFUSED[what]
    code, _, err = outcome(one.client("hold", "job", "--", "sh", "-c", f"cd {one.folder}; {script}; exit 1"))
    assert (code, "not all of it is committed" in err, named in err) == (5, True, True), err
    assert "ended with exit code 1" in err
    configstore("get", "data/x", code=1)
    code, _, err = outcome(one.client("hold", "job", "--", "sh", "-c", "exit 1"))
    assert (code, err) == (1, ""), "what was not changed under this hold is nothing to complain of"


@pytest.mark.parametrize("change", ["printf mine > {}", "rm {}"])
def test_what_loses_to_a_write_past_the_lease_is_no_success_however_often(guarded, configstore, tmp_path, change):
    one, _ = guarded
    committed(one, "file", "agreed")
    gate = tmp_path / "gate"
    os.mkfifo(gate)
    before = content_of(one.folder / "file")
    for turn in ("first", "second"):
        script = f"echo runs; read x < {gate}; {change.format(one.folder / 'file')}"
        holder = one.client("hold", "job", "--", "sh", "-c", script)
        assert holder.stdout.readline() == "runs\n"
        freeze(one.process)  # so that both change it before it has seen any of that
        configstore("put", "data/file", content=f"of a person, {turn}".encode())
        gate.write_text("go\n")
        wait_until(lambda before=before: content_of(one.folder / "file") != before)
        one.process.send_signal(signal.SIGCONT)
        code, _, err = outcome(holder)
        assert (code, "file: the store's version came in meanwhile" in err) == (3, True), err
        assert configstore("get", "data/file") == f"of a person, {turn}".encode()
        before = content_of(one.folder / "file")
    assert kept(configstore) == ({} if "rm" in change else {"data/file": b"mine"})


def test_a_hold_does_not_begin_on_what_is_older_than_the_last_holders_commit(guarded, configstore, kv, kv_root):
    one, two = guarded
    committed(one, "file", "1")
    wait_until((two.folder / "file").exists)
    (two.folder / "file").unlink()
    os.mkfifo(two.folder / "file")
    wait_until(lambda: two.metric("problems") == 1)
    committed(one, "file", "2")
    code, out, err = outcome(two.client("hold", "job", "--", "echo", "ran"))
    assert (code, out) == (5, "")
    assert "does not show what the lease's last holder committed" in err
    assert "file: " in err
    (two.folder / "file").unlink()
    wait_until((two.folder / "file").is_file)
    kv.txn((), (Put(Keys(kv_root).file("data/file"), b"no record"),))
    code, out, err = outcome(two.client("hold", "job", "--", "echo", "ran"))
    assert (code, out, "file: " in err) == (5, "", True), err


def test_a_lease_within_itself_is_refused_and_another_one_is_not(guarded, configstore, kv_root, etcd):
    one, _ = guarded
    inner = f"{CLIENTS_PYTHON} {one.shared}/configstore-client hold job -- echo inner"
    code, out, err = outcome(
        one.client("hold", "job", "--", "sh", "-c", f"{inner}; echo $?; echo $CONFIGSTORE_LEASES")
    )
    assert (code, out, "would wait for itself" in err) == (0, "2\njob\n", True)
    command = f"{sys.executable} -m configstore --endpoints {etcd.endpoint} --root {kv_root} run --lease"
    nested = f"{command} other -- {command} job --no-wait -- true"
    code, _, err = outcome(one.client("hold", "job", "--", "sh", "-c", nested))
    assert (code, "would wait for itself" in err) == (2, True), err


def test_a_sidecar_that_was_started_anew_ends_the_hold_with_a_code_of_ours(guarded, configstore):
    one, _ = guarded
    holder = one.client("hold", "job", "--ttl", "4", "--", "sh", "-c", "echo runs; sleep 60")
    assert holder.stdout.readline() == "runs\n"
    one.end(signal.SIGKILL)
    one.start()
    code, _, err = outcome(holder)
    assert (code, "sh was stopped" in err) == (3, True), err


def test_the_client_works_with_an_empty_environment(guarded, configstore):
    one, _ = guarded
    client = f"{CLIENTS_PYTHON} {one.shared}/configstore-client"
    script = f"exec env -i {client} hold job -- /bin/sh -c 'printf x > {one.folder}/file'"
    assert subprocess.run(["sh", "-c", script], env=ENVIRONMENT, timeout=60, check=False).returncode == 0
    assert configstore("get", "data/file") == b"x"


def test_with_etcd_away_at_the_end_it_says_so_and_for_how_long_it_waits(replica, etcd, configstore):
    with Proxy(int(etcd.endpoint.rpartition(":")[2])) as proxy:
        one = replica("one", GUARDED, endpoint=proxy.endpoint).start().ready()
        script = f"echo runs; read x; printf x > {one.folder}/file"
        holder = one.client("hold", "job", "--ttl", "60", "--", "sh", "-c", script, stdin=subprocess.PIPE)
        assert holder.stdout.readline() == "runs\n"
        proxy.cut()
        holder.stdin.write("go\n")
        holder.stdin.flush()
        told = holder.stderr.readline()
        assert "lease job: the changes are not committed yet" in told
        assert "waiting up to" in told
        proxy.heal()
        assert outcome(holder)[0] == 0
        assert configstore("get", "data/file") == b"x"
        one.end()


def test_a_lease_that_somebody_ends_stops_the_command(guarded, held, configstore):
    one, _ = guarded
    holder = one.client("hold", "job", "--ttl", "4", "--", "sh", "-c", "trap '' TERM; sleep 600 & wait; wait")
    wait_until(held)
    configstore("leases", "break", "job", "--yes")
    code, _, err = outcome(holder, 90)
    assert code == 3
    assert "lease job is lost" in err
    assert "was stopped" in err


def beside(script):
    """Return a command whose first process dies of SIGTERM at once, beside one that runs a script of its own."""
    return ["sh", "-c", f"sh -c '{script}' & wait"]


def test_nothing_that_the_command_left_behind_outlives_a_lost_lease(guarded, held, configstore, tmp_path):
    one, _ = guarded
    mark = tmp_path / "pid"
    stubborn = f'trap "" TERM; echo $$ > {mark}; while :; do sleep 0.1; done'
    holder = one.client("hold", "job", "--ttl", "4", "--", *beside(stubborn), stdout=subprocess.DEVNULL)
    wait_until(lambda: mark.exists() and mark.read_text())
    configstore("leases", "break", "job", "--yes")
    assert outcome(holder, 90)[0] == 3
    wait_until(lambda: not Path(f"/proc/{mark.read_text().strip()}/cmdline").exists())


def test_a_command_that_is_told_to_end_has_ended_when_all_its_processes_have(guarded, held, configstore):
    one, _ = guarded
    tidying = f'trap "sleep 1; printf last > {one.folder}/file; exit" TERM; echo runs; while :; do sleep 0.1; done'
    holder = one.client("hold", "job", "--ttl", "4", "--", *beside(tidying))
    assert holder.stdout.readline() == "runs\n"
    holder.terminate()
    assert outcome(holder, 90)[0] == 128 + signal.SIGTERM
    assert configstore("get", "data/file") == b"last"


def test_a_killed_client_takes_its_command_along_and_the_next_waits_out_the_ttl(guarded, held, tmp_path):
    one, two = guarded
    mark = tmp_path / "pid"
    first = one.client("hold", "job", "--ttl", "4", "--", "sh", "-c", f"echo $$ > {mark}; exec sleep 60")
    wait_until(lambda: mark.exists() and mark.read_text())
    first.kill()
    first.communicate()
    wait_until(lambda: not Path(f"/proc/{mark.read_text().strip()}/cmdline").exists())
    assert held() == ["one"]  # whatever else it started might still run
    code, out, err = outcome(two.client("hold", "job", "--", "sh", "-c", 'echo "$CONFIGSTORE_UNFINISHED"'))
    assert code == 0
    assert out.startswith("sh, begun ")
    assert "did not report its end" in err


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL], ids=["frozen", "killed"])
def test_a_frozen_or_dead_sidecar_stops_the_command_before_the_lease_is_anothers(guarded, held, number, tmp_path):
    one, two = guarded
    ticks = tmp_path / "ticks"
    tick = f"open({str(ticks)!r}, 'a').write(f'{{time.time()}}\\n'); select.select([], [], [], 0.01)"
    ticking = f"import select, time\nwhile True: {tick}"
    first = one.client("hold", "job", "--ttl", "4", "--", sys.executable, "-c", ticking)
    wait_until(ticks.exists)
    one.process.send_signal(number)
    second = two.client("hold", "job", "--", sys.executable, "-c", "import time; print(time.time())")
    code, out, _ = outcome(second)
    assert code == 0
    assert float(ticks.read_text().split()[-1]) < float(out)
    code, _, err = outcome(first)
    assert code == 3
    assert "could not be kept" in err
    if number == signal.SIGSTOP:
        one.process.send_signal(signal.SIGCONT)
        (one.folder / "file").write_text("too late")
        wait_until(lambda: one.metric("problems") == 1)


def test_a_frozen_client_loses_the_lease_and_stops_its_command_when_it_wakes_up(guarded, held):
    one, two = guarded
    first = one.client("hold", "job", "--ttl", "4", "--", "sleep", "60")
    wait_until(held)
    freeze(first)
    assert outcome(two.client("hold", "job", "--", "true"))[0] == 0
    first.send_signal(signal.SIGCONT)
    code, _, err = outcome(first)
    assert code == 3
    # By its own reckoning, or by what the sidecar says, whichever it came to first.
    assert "was not renewed in time" in err or "its client was silent" in err


def test_a_stopped_sidecar_lets_the_command_end_and_commits_what_it_wrote(guarded, held, configstore):
    one, _ = guarded
    script = f"trap 'printf last > {one.folder}/file; exit 0' TERM; echo runs; while :; do sleep 0.1; done"
    client = one.client("hold", "job", "--", "sh", "-c", script)
    assert client.stdout.readline() == "runs\n"
    one.process.terminate()
    client.terminate()
    assert outcome(client)[0] == 0
    assert one.process.wait(90) == 0
    one.process = None
    assert configstore("get", "data/file") == b"last"
    assert held() == []


def test_a_lease_that_guards_nothing_here_is_refused(guarded):
    one, _ = guarded
    code, _, err = outcome(one.client("hold", "jobb", "--", "true"))
    assert code == 2
    assert "there are job" in err
    code, _, err = outcome(one.client("hold", "job", "--mapping", "other", "--", "true"))
    assert (code, "there are data" in err) == (2, True)
    for name in ("", "a/b", "job\n"):
        code, _, err = outcome(one.client("hold", name, "--", "true"))
        assert (code, "lease: expected a name" in err) == (2, True)


def test_flush_wait_and_status(guarded, replica, configstore):
    one, two = guarded
    code, out, _ = outcome(one.client("flush", "data"))
    assert code == 0
    for each in (one, two):
        assert outcome(each.client("wait", "data", "--applied", "all"))[0] == 0
    code, out, _ = outcome(two.client("status"))
    assert json.loads(out)["mappings"][0]["lease"] == "job"
    freeze(two.process)
    configstore("put", "data/hand", content=b"x")
    code, _, err = outcome(one.client("wait", "data", "--applied", "all", "--timeout", "1s"))
    two.process.send_signal(signal.SIGCONT)
    assert code == 1
    assert "not applied yet by two on" in err
    assert outcome(one.client("wait", "data", "--applied", "all"))[0] == 0
    assert (two.folder / "hand").read_text() == "x"


def test_wait_and_flush_without_a_socket_ask_the_live_replicas_through_the_store(guarded, replica, configstore):
    one, two = guarded
    wait_until(lambda: len(json.loads(configstore("replicas", "--json"))) == 2)
    before = int(configstore("flush", "data", "--socket", ""))
    other = replica(
        "three", 'delete_settle = "1h"', f'[[mapping]]\nname = "plain"\nstore = "plain"\npath = "{one.folder}-3"'
    )
    Path(f"{one.folder}-3").mkdir()
    configstore("mkdir", "plain")
    other.start().ready()
    Path(f"{one.folder}-3/file").write_text("x")
    assert int(configstore("flush", "plain", "--socket", "")) > before
    assert configstore("get", "plain/file") == b"x"
    configstore("wait", "data", "--socket", "")
    freeze(two.process)
    configstore("put", "data/hand", content=b"x")
    configstore("wait", "data", "--socket", "", "--patience", "1s", code=1)
    configstore("flush", "data", "--socket", "", "--patience", "1s", code=4)
    two.process.send_signal(signal.SIGCONT)
    configstore("wait", "data", "--socket", "")
    assert (two.folder / "hand").read_text() == "x"
    configstore("wait", "other", "--socket", "", code=1)
    configstore("flush", "other", "--socket", "", code=1)
    configstore("wait", "data", "--socket", "", "--applied", "here", code=2)


def test_a_revision_to_which_the_store_has_not_come_is_not_applied(replica, configstore, kv):
    one = replica("one").start().ready()
    now = kv.range(b"any").revision

    def wait(revision, *patience):
        return one.client("wait", "data", "--revision", str(revision), "--timeout", *patience)

    code, _, err = outcome(wait(now + 1000, "1s"))
    assert (code, f"revision {now + 1000} is not applied yet" in err) == (1, True)
    wait_until(lambda: json.loads(configstore("replicas", "--json")))
    far = ("wait", "data", "--socket", "", "--revision", str(now + 1000), "--patience", "1s")
    configstore(*far, code=1)
    next_one = kv.range(b"any").revision + 1
    waiting = wait(next_one, "30s")
    configstore("mkdir", "other")
    assert kv.range(b"any").revision >= next_one
    assert outcome(waiting)[0] == 0
    assert outcome(wait(next_one, "30s"))[0] == 0
    configstore("wait", "data", "--socket", "", "--revision", str(next_one))


def test_on_change_runs_after_each_set_and_again_when_it_failed(guarded, configstore, tmp_path):
    one, _ = guarded
    log = tmp_path / "log"
    script = f"cat {one.folder}/hand >> {log}; echo >> {log}; test -e {tmp_path}/works"
    watching = one.client("on-change", "data", "--", "sh", "-c", script)
    sets = itertools.count()

    def watches():
        configstore("put", "data/hand", content=b"first %d" % next(sets))
        return log.exists()

    wait_until(watches, what="it to have begun")
    last = f"first {next(sets) - 1}\n"
    wait_until(lambda: log.read_text().count(last) >= 3)  # of its set, perhaps of the one before, and again
    (tmp_path / "works").touch()
    configstore("put", "data/hand", content=b"second")
    wait_until(lambda: "second" in log.read_text())
    watching.terminate()
    code, _, err = outcome(watching)
    assert code == 0
    assert "failed (exit code 1)" in err


def test_run_holds_the_lease_in_etcd_itself_and_a_person_can_break_it(etcd, kv_root, held, configstore):
    command = [sys.executable, "-m", "configstore", "run", "--endpoints", etcd.endpoint, "--root", kv_root]
    command += ["--lease", "job", "--ttl", "4", "--", "sh", "-c", "echo $CONFIGSTORE_LEASE; exec sleep 60"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env=ENVIRONMENT, **pipes) as process:
        assert process.stdout.readline() == "job\n"
        assert held() == ["cli"]
        (row,) = json.loads(configstore("leases", "--json"))
        assert (row["lease"], row["holder"]["command"], row["waiting"]) == ("job", "sh", [])
        configstore("run", "--lease", "job", "--no-wait", "--", "true", code=3)
        configstore("leases", "break", "job", "--yes")
        code, _, said = outcome(process, 90)
    assert (code, "lease job is lost" in said, said.count("lost"), said.count("\n")) == (3, True, 1, 1)
    assert configstore("run", "--lease", "job", "--", "echo", "free") == b"free\n"
    configstore("run", "--lease", "job", "--", "sh", "-c", "exit 9", code=9)


def test_nothing_counts_as_applied_while_the_subtree_does_not_exist(replica, configstore):
    configstore("rm", "-r", "data")
    one = replica("one").start()
    wait_until((one.shared / "configstore-client").exists)
    code, _, err = outcome(one.client("wait", "data", "--timeout", "1s"))
    assert (code, "the subtree data was deleted" in err) == (1, True)
    configstore("mkdir", "data")
    assert outcome(one.client("wait", "data", "--timeout", "30s"))[0] == 0

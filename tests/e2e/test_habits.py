"""What a container does to its sidecar: logs that nobody reads, signals, process 1, one id for two."""

import fcntl
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.harness.waiting import wait_until

F_SETPIPE_SZ = 1031


def start(replica, *, prefix=(), **how):
    command = [
        sys.executable,
        "-m",
        "sidecar",
        "run",
        "--replica",
        replica.name,
        "--config",
        str(replica.settings),
    ]
    replica.process = subprocess.Popen([*prefix, *command], env=replica.environment, **how)
    return replica


def test_a_log_that_nobody_reads_holds_neither_the_mirror_nor_the_end_up(replica):
    one, two = replica("one"), replica("two").start().ready()
    reader, writer = os.pipe()
    fcntl.fcntl(writer, F_SETPIPE_SZ, 4096)
    start(one, stderr=writer).ready()
    os.close(writer)
    names = [f"{'x' * 200}-{number}" for number in range(19)]
    for number in range(1000):
        pushed = total(one, "pushed_total") + len(names)  # before the first of them can be
        for name in names:
            (one.folder / name).write_text(str(number))
        wait_until(lambda pushed=pushed: total(one, "pushed_total") >= pushed, 20)
        if total(one, "log_dropped_total"):
            break
    assert total(one, "log_dropped_total")
    (one.folder / "last").write_text("end")
    wait_until((two.folder / "last").exists, 20)
    assert one.ask("/livez")[0] == 200
    one.process.terminate()
    assert one.process.wait(90) == 0
    one.process = None
    os.close(reader)


def total(replica, name):
    lines = replica.ask("/metrics")[1].splitlines()
    return next(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"configstore_{name}"))


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2])
def test_a_signal_that_is_no_order_to_end_does_not_end_it(pair, number):
    one, two = pair
    one.process.send_signal(number)
    wait_until(lambda: any(line.get("signal") == number.name for line in one.lines()))
    (one.folder / "a").write_text("x")
    wait_until((two.folder / "a").exists)
    assert one.end() == 0


def test_the_log_level_is_another_at_a_signal_and_the_usual_one_at_another(pair):
    one, two = pair

    def levels():
        return {line["level"] for line in one.lines()}

    assert "debug" not in levels()
    one.process.send_signal(signal.SIGUSR1)
    wait_until(lambda: any(line.get("log_level") == "debug" for line in one.lines()))
    one.process.send_signal(signal.SIGHUP)  # and what is ignored is ignored still
    (two.folder / "a").write_text("x")
    wait_until(lambda: "debug" in levels())
    one.process.send_signal(signal.SIGUSR2)
    wait_until(lambda: any(line.get("log_level") == "info" for line in one.lines()))
    assert one.end() == 0
    assert all(line["time"].endswith("Z") for line in one.lines())


def test_quit_ends_it_in_good_order(pair):
    one, two = pair
    (one.folder / "a").write_text("x")
    assert one.end(signal.SIGQUIT) == 0
    wait_until((two.folder / "a").exists)


@pytest.mark.skipif(os.geteuid() != 0, reason="a PID namespace needs root")
def test_as_process_1_it_reaps_what_a_hook_leaves_behind_and_knows_the_hooks_own_exit_code(replica, configstore):
    script = "setsid sleep 0.1 & setsid sleep 0.2 & echo line one; echo the reason; exit 3"
    one = replica("one", f"on_change = {json.dumps(['sh', '-c', script])}")
    log = one.log.open("ab")
    start(one, prefix=("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"), stderr=log).ready()
    log.close()
    outer = one.process.pid
    first = Path(f"/proc/{outer}/task/{outer}/children").read_text().split()[0]
    for number in range(3):
        configstore("put", "data/x", content=b"%d" % number)
        wait_until(
            lambda number=number: (one.folder / "x").exists() and (one.folder / "x").read_text() == str(number)
        )
    wait_until(lambda: b"sh: ended with exit code 3: the reason" in configstore("status"), 20)
    wait_until(lambda: not zombies(first), 20, what="no zombies")
    os.kill(int(first), signal.SIGTERM)
    assert one.process.wait(90) == 0
    one.process = None


def zombies(parent):
    found = []
    for pid in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [pid] if state == "Z" else []
    return found


def test_two_sidecars_of_one_id_are_named_by_both_until_one_is_gone(replica, configstore):
    older, younger = replica("older"), replica("younger")
    for each in (older, younger):
        each.environment = {**each.environment, "CONFIGSTORE_REPLICA": "same"}
    for each in (older, younger):
        with each.log.open("ab") as log:
            command = [sys.executable, "-m", "sidecar", "run", "--config", str(each.settings)]
            each.process = subprocess.Popen(command, stderr=log, env=each.environment)
        each.ready()
    for each in (older, younger):
        wait_until(lambda each=each: "has the same replica id" in each.ask("/readyz")[1], 30)
    assert older.ask("/readyz")[0] == 200
    wait_until(lambda: b"has the same replica id" in configstore("status"))
    told = json.loads(older.client("status").communicate(timeout=90)[0])
    assert "CONFIGSTORE_REPLICA" in told["troubles"][0]
    younger.end(signal.SIGKILL)
    wait_until(lambda: "replica id" not in older.ask("/readyz")[1], 60)
    wait_until(lambda: b"replica id" not in configstore("status"))
    for each in (older, younger):
        assert sum("under the same replica id" in str(line["message"]) for line in each.lines()) == 1


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_files_do_not_keep_it_from_mirroring(replica, configstore, closed):
    one = start(replica("one"), prefix=("sh", "-c", f'exec "$@" {closed}', "sh")).ready()
    configstore("put", "data/a", content=b"x")
    wait_until((one.folder / "a").exists)
    assert one.end() == 0


def test_an_engine_that_hangs_does_not_keep_the_end_from_coming(replica, tmp_path):
    script = f"touch {tmp_path}/began; exec sleep 25"
    one = replica("one", f"check = {json.dumps(['sh', '-c', script])}")
    one.environment = {**one.environment, "CONFIGSTORE_STOP_TIMEOUT": "2s"}
    one.start().ready()
    (one.folder / "a").write_text("x")
    wait_until((tmp_path / "began").exists)
    one.process.terminate()
    assert one.process.wait(90) == 1
    one.process = None
    assert "the end takes too long; what was not sent is not known: ending at once" in one.words()

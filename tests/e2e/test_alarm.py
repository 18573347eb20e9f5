"""What a real sidecar tells of trouble: by `on_problem`, and in its figures."""

import json
import os
import signal
import stat

import pytest

from tests.harness.waiting import freeze, wait_until


@pytest.fixture
def told(tmp_path):
    """Return the policy of a mapping that tells of problems, and a function that returns what it has told."""
    log = tmp_path / "told"
    script = f"""printf '%s\\n' "$CONFIGSTORE_MAPPING $CONFIGSTORE_HEALTH $CONFIGSTORE_REASON" >> {log}"""

    def lines():
        return log.read_text().splitlines() if log.exists() else []

    lines.policy = f"on_problem = {json.dumps(['sh', '-c', script])}\n"
    return lines


def healths(told):
    return [line.split()[1] for line in told()]


def test_it_is_told_once_that_a_mapping_is_degraded_halted_and_well_again(replica, configstore, told):
    one = replica("one", told.policy)
    (one.folder / "many").mkdir()
    for number in range(20):
        (one.folder / f"many/{number}").write_text("x")
    one.start().ready()
    wait_until(lambda: one.metric("pushed_total") == 21)
    os.mkfifo(one.folder / "pipe")
    wait_until(lambda: healths(told) == ["degraded"], 20)
    assert told()[0].startswith("data degraded pipe: ")
    (one.folder / "pipe").unlink()
    wait_until(lambda: healths(told) == ["degraded", "well"], 20)
    for number in range(20):
        (one.folder / f"many/{number}").unlink()
    wait_until(lambda: healths(told) == ["degraded", "well", "halted"], 20)
    assert "refused to delete" in told()[2]
    configstore("resume", "data", "--take", "store")
    wait_until(lambda: healths(told) == ["degraded", "well", "halted", "well"], 20)
    assert one.end() == 0


def test_a_command_that_hangs_and_fails_holds_nothing_up_and_is_named(replica, configstore, tmp_path):
    os.mkfifo(tmp_path / "gate")
    policy = f"on_problem = {json.dumps(['sh', '-c', f'cat {tmp_path}/gate; echo no such server; exit 3'])}\n"
    one = replica("one", policy)
    os.mkfifo(one.folder / "pipe")
    one.start().ready()
    with (tmp_path / "gate").open("w"):  # opened by the command as well
        (one.folder / "file").write_text("x")
        wait_until(lambda: b"file" in configstore("ls", "data"))
    words = "on_problem of data did not tell that it is degraded: sh: ended with exit code 3: no such server"
    wait_until(lambda: words in one.ask("/readyz")[1], 20)
    assert one.ask("/readyz")[0] == 200
    wait_until(lambda: words.encode() in configstore("status"), 20)
    assert any(line["message"].startswith("on_problem failed") for line in one.lines())


def value(replica, name):
    """Return a figure by its name with labels; None when it is not told."""
    found = [line for line in replica.ask("/metrics")[1].splitlines() if line.startswith(f"configstore_{name} ")]
    return float(found[0].rpartition(" ")[2]) if found else None


def test_a_lease_that_is_held_and_waited_for_shows(replica, tmp_path):
    one = replica("one", 'lease = "certbot"').start().ready()
    assert value(one, 'lease_held{lease="certbot"}') == 0
    os.mkfifo(tmp_path / "gate")
    with one.client("hold", "certbot", "--", "cat", str(tmp_path / "gate")) as holder:
        with (tmp_path / "gate").open("w"):
            wait_until(lambda: value(one, 'lease_held{lease="certbot"}') == 1)
            with one.client("hold", "certbot", "--", "true") as waiter:
                wait_until(lambda: value(one, 'lease_waiting{lease="certbot"}') == 1)
                wait_until(lambda: value(one, 'lease_waiting_seconds{lease="certbot"}') > 0)
                assert value(one, 'lease_held_seconds{lease="certbot"}') > 0
                waiter.send_signal(signal.SIGTERM)
                waiter.communicate(timeout=90)
            wait_until(lambda: value(one, 'lease_waiting{lease="certbot"}') == 0)
        assert holder.communicate(timeout=90)[1] is not None
    wait_until(lambda: value(one, 'lease_held{lease="certbot"}') == 0)
    assert value(one, 'lease_held_seconds{lease="certbot"}') == 0


def test_a_conflict_shows_soon_after_it_was_made(replica, configstore):
    one = replica("one").start().ready()
    (one.folder / "file").write_text("first")
    wait_until(lambda: value(one, 'pushed_total{mapping="data"}') == 1)
    freeze(one.process)
    (one.folder / "file").write_text("mine")
    configstore("put", "data/file", content=b"theirs")
    one.process.send_signal(signal.SIGCONT)
    wait_until(lambda: value(one, 'conflicts{mapping="data"}') == 1, 20)
    assert (one.folder / "file").read_text() == "theirs"


def test_a_set_that_travels_counts_on_both_sides(pair):
    one, two = pair
    name = 'set_latency_seconds_count{mapping="data"}'
    before = value(one, name), value(two, name)
    (one.folder / "file").write_text("x")
    wait_until((two.folder / "file").exists)
    wait_until(lambda: (value(one, name), value(two, name)) == (before[0] + 1, before[1] + 1))
    assert stat.S_ISREG((two.folder / "file").stat().st_mode)

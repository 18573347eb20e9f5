"""etcd killed, away and back, with both replicas running all the while."""

import pytest

from tests.e2e.conftest import equal
from tests.harness.named import a_dir, a_tree, put
from tests.harness.replica import Replica
from tests.harness.servers import connect
from tests.harness.waiting import freeze, wait_until


@pytest.fixture
def away(own_etcd, tmp_path):
    """Return an etcd that may be killed, and two running replicas on it."""
    with connect(own_etcd.endpoint) as kv:
        put(a_tree(kv), {"data": a_dir()})
    with (
        Replica("one", tmp_path, [own_etcd.endpoint], "/configstore") as one,
        Replica("two", tmp_path, [own_etcd.endpoint], "/configstore") as two,
    ):
        one.start().ready()
        two.start().ready()
        yield own_etcd, one, two


def test_etcd_killed_under_load_loses_nothing_and_needs_no_restart_of_ours(away):
    etcd, one, two = away
    for number in range(300):
        (one.folder / f"one-{number}").write_bytes(b"%d" % number)
        (two.folder / f"two-{number}").write_bytes(b"%d" % number)
        if number in {100, 200}:
            etcd.kill()
            etcd.start()
    wait_until(lambda: len(one.tree()) == len(two.tree()) == 600, 60, what="600 files on both")
    for name, content in ((f"{who}-{n}", b"%d" % n) for n in range(300) for who in ("one", "two")):
        assert (one.folder / name).read_bytes() == (two.folder / name).read_bytes() == content


def test_edits_on_both_sides_while_etcd_is_away_travel_on_its_return(away):
    etcd, one, two = away
    (one.folder / "a").write_bytes(b"x")
    wait_until((two.folder / "a").exists)
    etcd.kill()
    (one.folder / "from-one").write_bytes(b"1")
    (two.folder / "from-two").write_bytes(b"2")
    (two.folder / "a").unlink()
    wait_until(lambda: one.metric("waiting") == two.metric("waiting") == 1, 30, what="the outage to be visible")
    assert (one.folder / "a").read_bytes() == b"x"
    assert one.ask("/readyz")[0] == 200
    etcd.start()
    wait_until(lambda: one.tree().keys() == two.tree().keys() == {"from-one", "from-two"}, 60)
    equal(one, two)
    wait_until(lambda: one.metric("waiting") == two.metric("waiting") == 0)


@pytest.mark.parametrize("stop", ["kill", "freeze"])
def test_a_stop_while_etcd_does_not_answer_is_over_before_a_container_would_be_killed(away, stop):
    etcd, one, _ = away
    one.end()
    one.settings.write_text(one.settings.read_text().replace('timeout = "3s"', 'timeout = "10s"'))
    one.start().ready()
    if stop == "kill":
        etcd.kill()
    else:
        freeze(etcd.process)
    names = {f"name-{number:02}" for number in range(25)}
    for name in names:
        (one.folder / name).write_bytes(b"x")
    one.process.terminate()
    assert one.process.wait(10) == 1
    one.process = None
    *named, more = [line for line in one.lines() if "could not be sent" in line["message"]]
    assert [line["path"] for line in named] == sorted(names)[:20]
    assert all(line["reason"] for line in named)
    assert more["path"] == "… and 5 more paths"


def test_a_stop_without_etcd_is_fine_where_nothing_is_left_to_send(away):
    etcd, one, two = away
    (one.folder / "a").write_bytes(b"x")
    wait_until((two.folder / "a").exists)
    etcd.kill()
    assert one.end() == 0
    assert "could not be sent" not in one.words()


def test_a_stop_waits_for_etcd_as_long_as_it_may(away):
    etcd, one, two = away
    one.environment = {**one.environment, "CONFIGSTORE_STOP_TIMEOUT": "60s"}
    one.end()
    one.start().ready()
    etcd.kill()
    (one.folder / "a").write_bytes(b"last words")
    one.process.terminate()
    wait_until(lambda: any(line["message"].startswith("stopping") for line in one.lines()))
    etcd.start()
    wait_until((two.folder / "a").exists, 40)
    assert one.process.wait(90) == 0
    one.process = None


def test_a_replica_started_with_etcd_away_begins_when_it_comes(own_etcd, tmp_path):
    with connect(own_etcd.endpoint) as kv:
        put(a_tree(kv), {"data": a_dir()})
    own_etcd.kill()
    with Replica("one", tmp_path, [own_etcd.endpoint], "/configstore") as one:
        one.start()
        wait_until(lambda: one.ask("/livez")[0] == 200)
        assert one.ask("/readyz")[0] == 503
        own_etcd.start()
        one.ready()

"""`init`, `plan` and `health` as a person or an orchestrator runs them, and what a mapping's policy does."""

import json
import os
import signal
import subprocess

from configstore.embedded import free_ports
from configstore.model.keys import Keys
from configstore.store.store import Store
from configstore.store.subtree_revisions import revisions_below
from tests.e2e.conftest import equal
from tests.harness.replica import Replica
from tests.harness.trees import look
from tests.harness.waiting import wait_until


def newest(kv, kv_root):
    """Return the revision of the last write below the test's root; others write elsewhere."""
    return revisions_below(Store(kv, Keys(kv_root)), "").newest


def test_init_fills_the_directory_and_says_so_by_exit_code_0(replica, configstore):
    configstore("put", "data/deep/key", content=b"precious")
    one = replica("one")
    done = one.command("init")
    assert (done.returncode, done.stdout) == (0, "")
    assert look(one.folder / "deep/key")[:2] == ("file", 0o600)
    assert (one.folder / "deep/key").read_bytes() == b"precious"


def test_init_pushes_nothing(replica, kv, kv_root):
    one = replica("one")
    (one.folder / "mine").write_bytes(b"x")
    before = newest(kv, kv_root)
    assert one.command("init").returncode == 0
    assert newest(kv, kv_root) == before
    assert (one.folder / "mine").exists()


def test_init_without_the_subtree_fails_closed_and_names_the_mend(etcd, kv_root, tmp_path):
    one = Replica("one", tmp_path, [etcd.endpoint], kv_root)
    done = one.command("init")
    assert done.returncode == 1
    assert "configstore mkdir data" in done.stderr
    assert one.tree() == {}


def test_init_of_an_optional_mapping_does_not_wait_for_its_subtree(etcd, kv_root, tmp_path):
    one = Replica("one", tmp_path, [etcd.endpoint], kv_root, "required = false")
    assert one.command("init").returncode == 0


def test_init_names_what_it_could_not_apply(replica, configstore, kv, kv_root):
    configstore("put", "data/fine", content=b"x")
    configstore("put", "data/taken", content=b"x")
    one = replica("one")
    (one.folder / "taken").mkdir()
    (one.folder / "taken/mine").write_bytes(b"local")
    done = one.command("init")
    assert done.returncode == 1
    assert "taken" in done.stderr
    assert (one.folder / "fine").exists()
    assert (one.folder / "taken/mine").read_bytes() == b"local"


def test_init_is_complete_though_what_it_had_placed_was_edited_since(replica, configstore, kv, kv_root):
    for name in ("edited", "removed", "changed meanwhile"):
        configstore("put", f"data/{name}", content=b"x")
    one = replica("one")
    assert one.command("init").returncode == 0
    (one.folder / "edited").write_bytes(b"here")
    (one.folder / "edited").chmod(0o640)
    (one.folder / "removed").unlink()
    (one.folder / "of its own").write_bytes(b"x")
    os.mkfifo(one.folder / "fifo")
    configstore("put", "data/changed meanwhile", content=b"y")
    before = newest(kv, kv_root)
    done = one.command("init")
    assert done.returncode == 0, done.stderr
    assert (one.folder / "edited").read_bytes() == b"here"
    assert (one.folder / "removed").read_bytes() == b"x"  # a file too many is better than one too few
    assert (one.folder / "changed meanwhile").read_bytes() == b"y"
    assert newest(kv, kv_root) == before
    one.start().ready()
    wait_until(lambda: configstore("get", "data/edited") == b"here")


def test_init_does_not_wait_for_the_lease_of_what_was_changed_without_it(replica, configstore):
    configstore("put", "data/a", content=b"x")
    one = replica("one", 'lease = "job"')
    assert one.command("init").returncode == 0
    (one.folder / "a").write_bytes(b"here")
    (one.folder / "b").write_bytes(b"new")
    done = one.command("init")
    assert done.returncode == 0, done.stderr
    assert (one.folder / "a").read_bytes() == b"here"


def test_init_fills_the_others_beside_a_directory_that_cannot_be_mirrored(replica, configstore, tmp_path):
    configstore("put", "data/a", content=b"x")
    configstore("mkdir", "more")
    elsewhere = tmp_path / "not/there"
    one = replica("one", f'[[mapping]]\nname = "more"\npath = "{elsewhere}"\nrequired = false')
    done = one.command("init")
    assert done.returncode == 0
    assert str(elsewhere) in done.stderr
    assert (one.folder / "a").exists()
    (one.folder / "a").unlink()
    one.settings.write_text(one.settings.read_text().replace("required = false", ""))
    (one.folder / "b").mkdir()
    (one.folder / "b/mine").write_bytes(b"x")
    configstore("put", "data/b", content=b"x")
    done = one.command("init")
    assert done.returncode == 5
    assert str(elsewhere) in done.stderr
    assert "data: b: " in done.stderr  # all that is missing is named
    assert (one.folder / "a").exists()


def test_one_directory_is_mirrored_once_by_whatever_path(replica, configstore, tmp_path):
    configstore("mkdir", "more")
    link = tmp_path / "link"
    link.symlink_to("one")
    one = replica("one", f'[[mapping]]\nname = "more"\npath = "{link}"')
    done = one.command("init")
    assert done.returncode == 5
    assert f"{link}: another sidecar or mapping mirrors it already" in done.stderr
    two = replica("two").start().ready()
    assert two.command("init").returncode == 5
    assert two.command("plan").returncode == 0


def test_init_with_etcd_away_gives_up_in_time_with_exit_code_4(tmp_path):
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    done = Replica("one", tmp_path, [endpoint], "/x").command("init", "--timeout", "2s")
    assert done.returncode == 4
    assert endpoint in done.stderr


def test_wrong_settings_end_with_exit_code_2_and_name_the_place(replica):
    one = replica("one", "settel = 5")
    done = one.command("init")
    assert done.returncode == 2
    assert str(one.settings) in done.stderr
    assert "did you mean settle" in done.stderr


def test_plan_prints_what_a_cycle_would_do_and_does_nothing(replica, configstore, kv, kv_root):
    configstore("put", "data/theirs", content=b"x")
    one = replica("one")
    (one.folder / "mine").write_bytes(b"x")
    before, tree = newest(kv, kv_root), one.tree()
    done = one.command("plan")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["data: push file mine", "data: pull file theirs"]
    assert json.loads(one.command("plan", "--json").stdout)["data"]["push"][0]["path"] == "mine"
    assert (newest(kv, kv_root), one.tree()) == (before, tree)
    assert not (one.folder / ".configstore").exists()


def test_plan_of_a_directory_that_is_not_there_yet_is_that_of_an_empty_one(replica, configstore):
    configstore("put", "data/theirs", content=b"x")
    one = replica("one")
    one.folder.rmdir()
    assert one.command("plan").stdout.splitlines() == ["data: pull file theirs"]
    assert not one.folder.exists()


def test_plan_says_what_keeps_a_cycle_from_doing_it(etcd, kv_root, tmp_path, configstore):
    one = Replica("one", tmp_path, [etcd.endpoint], kv_root)
    (one.folder / "mine").write_bytes(b"x")
    said = one.command("plan").stdout
    assert "data: none of this now: it waits: the store has no subtree data" in said
    configstore("mkdir", "data")
    for number in range(20):
        configstore("put", f"data/{number}", content=b"x")
    assert one.command("init").returncode == 0
    for number in range(20):
        (one.folder / str(number)).unlink()
    assert "data: none of this: it would halt: refused to delete 20 of 20" in one.command("plan").stdout
    assert json.loads(one.command("plan", "--json").stdout)["data"]["halted"].startswith("refused to delete")


def test_health_asks_the_running_sidecar(replica):
    one = replica("one")
    assert one.command("health").returncode == 1
    one.start().ready()
    assert one.command("health").returncode == 0
    assert one.ask("/livez")[0] == 200
    assert one.ask("/elsewhere")[0] == 404


def test_a_mapping_that_only_pulls_never_pushes_and_heals(replica, configstore, kv, kv_root):
    configstore("put", "data/a", content=b"theirs")
    one = replica("one", 'direction = "pull"').start().ready()
    before = newest(kv, kv_root)
    (one.folder / "a").unlink()
    wait_until(lambda: look(one.folder / "a"))
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: one.metric("problems") == 1)
    assert newest(kv, kv_root) == before
    configstore("put", "data/a", content=b"newer")
    wait_until(lambda: (one.folder / "a").read_bytes() == b"newer")


def test_a_mapping_that_only_pushes_never_pulls(replica, configstore):
    one = replica("one", 'direction = "push"').start().ready()
    (one.folder / "a").write_bytes(b"mine")
    wait_until(lambda: b"a" in configstore("ls", "data"))
    configstore("put", "data/b", content=b"theirs")
    configstore("put", "data/a", content=b"theirs")
    wait_until(lambda: one.metric("problems") == 1)
    assert one.tree().keys() == {"a"}
    assert (one.folder / "a").read_bytes() == b"mine"


def test_with_create_once_the_first_content_wins_for_ever(replica):
    one, two = (replica(name, "create_once = true") for name in ("one", "two"))
    (one.folder / "id").write_bytes(b"one")
    one.start().ready()
    wait_until(lambda: one.metric("paths") == 1)
    (two.folder / "id").write_bytes(b"two")
    two.start().ready()
    wait_until(lambda: (two.folder / "id").read_bytes() == b"one")
    (two.folder / "id").write_bytes(b"again")
    wait_until(lambda: (two.folder / "id").read_bytes() == b"one")
    assert (one.folder / "id").read_bytes() == b"one"


def test_symlinks_are_resolved_or_refused_where_the_mapping_says_so(replica):
    one, two = replica("one", 'symlinks = "resolve"').start(), replica("two", 'symlinks = "refuse"').start()
    one.ready(), two.ready()
    (one.folder / "file").write_bytes(b"content")
    (one.folder / "link").symlink_to("file")
    (one.folder / "out").symlink_to("/etc/passwd")
    wait_until((two.folder / "link").exists)
    assert look(two.folder / "link") == look(two.folder / "file")
    (two.folder / "refused").symlink_to("file")
    wait_until(lambda: two.metric("problems") == 1 and one.metric("problems") == 1)
    assert not (two.folder / "out").exists()


def test_only_what_is_included_and_not_excluded_travels(replica):
    policy = 'include = ["*.key"]\nexclude = ["tmp/"]'
    one, two = replica("one", policy).start(), replica("two").start()
    one.ready(), two.ready()
    (one.folder / "tmp").mkdir()
    (one.folder / "tmp/a.key").write_bytes(b"x")
    (one.folder / "notes").write_bytes(b"x")
    (one.folder / "deep").mkdir()
    (one.folder / "deep/b.key").write_bytes(b"x")
    wait_until((two.folder / "deep/b.key").exists)
    assert two.tree().keys() == {"deep", "deep/b.key"}


def test_a_mapping_inside_another_takes_its_part_out_of_it(replica, configstore):
    configstore("mkdir", "inner")
    one = replica("one")
    inner = one.folder / "inner"
    inner.mkdir()
    text = one.settings.read_text() + f'[[mapping]]\nname = "inner"\npath = "{inner}"\n'
    one.settings.write_text(text)
    one.start().ready()
    (one.folder / "outer").write_bytes(b"x")
    (inner / "own").write_bytes(b"x")
    wait_until(lambda: b"own" in configstore("ls", "inner") and b"outer" in configstore("ls", "data"))
    assert b"inner" not in configstore("ls", "-R", "data")


def test_polling_mirrors_as_well(replica):
    one, two = (replica(name, 'watch = "poll"').start() for name in ("one", "two"))
    one.ready(), two.ready()
    (one.folder / "a").write_bytes(b"x")
    wait_until(lambda: equal(one, two).keys() == {"a"})
    (two.folder / "a").unlink()
    wait_until(lambda: equal(one, two) == {})


def test_an_unmounted_directory_deletes_nothing_and_nothing_is_written_below_it(replica, configstore):
    one = replica("one")
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "configstore-test", str(one.folder)]
    assert not subprocess.run(mount, check=False).returncode, "needs the right to mount: root with CAP_SYS_ADMIN"
    try:
        one.start().ready()
        (one.folder / "a").write_bytes(b"x")
        wait_until(lambda: one.metric("paths") == 1)
        subprocess.run(["umount", "-l", str(one.folder)], check=True)
        configstore("put", "data/b", content=b"x")
        wait_until(lambda: one.metric("waiting") == 1)
        assert "no longer mounted" in one.ask("/readyz")[1]
        assert os.listdir(one.folder) == []
        assert configstore("ls", "data").split() == [b"a", b"b"]
        subprocess.run(mount, check=True)
        wait_until(lambda: one.tree().keys() == {"a", "b"}, 15)
    finally:
        one.end(signal.SIGKILL)
        subprocess.run(["umount", "-l", str(one.folder)], check=False, capture_output=True)

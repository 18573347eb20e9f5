"""Hooks and checks of a real sidecar."""

import json

from tests.harness.waiting import wait_until


def test_on_change_runs_after_a_set_and_its_failure_is_visible(replica, configstore, tmp_path):
    log = tmp_path / "log"
    script = f"ls $CONFIGSTORE_PATH >> {log}; test ! -e $CONFIGSTORE_PATH/bad"
    one = replica("one", f"on_change = {json.dumps(['sh', '-c', script])}").start().ready()
    configstore("put", "data/file", content=b"x")
    wait_until(lambda: log.exists() and "file" in log.read_text())
    configstore("put", "data/bad", content=b"x")
    wait_until(lambda: one.metric("problems") == 1)
    assert "the hook failed and is tried again: sh: ended with exit code 1" in one.words()
    wait_until(lambda: b"the hook failed" in configstore("status"))
    (said,) = [line for line in configstore("status").decode().splitlines() if "the hook failed" in line]
    assert ": the hook failed and is tried again" in said.partition("one@")[2]
    configstore("rm", "data/bad")
    wait_until(lambda: one.metric("problems") == 0)


def test_a_set_that_the_check_refuses_is_neither_applied_nor_published(replica, configstore):
    script = 'test "$(cat "$1/cert")" = "$(cat "$1/key")"'
    policy = f"check = {json.dumps(['sh', '-c', script, '-', '{}'])}\nsettle = '20ms'"
    one, two = replica("one", policy), replica("two").start().ready()
    for name in ("cert", "key"):
        (one.folder / name).write_text("old")
    one.start().ready()
    wait_until((two.folder / "key").exists)
    (one.folder / "cert").write_text("new")  # without its key
    wait_until(lambda: one.metric("problems") == 1)
    assert configstore("get", "data/cert") == b"old"
    (one.folder / "key").write_text("new")
    wait_until(lambda: (two.folder / "key").read_text() == "new")
    assert configstore("get", "data/cert") == b"new"
    wait_until(lambda: one.metric("problems") == 0)
    configstore("put", "data/cert", content=b"by hand")
    wait_until(lambda: one.metric("problems") == 1)
    assert (one.folder / "cert").read_text() == "new"
    configstore("put", "data/key", content=b"by hand")
    wait_until(lambda: (one.folder / "cert").read_text() == "by hand")
    assert (one.folder / "key").read_text() == "by hand"

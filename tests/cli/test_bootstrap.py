"""`bootstrap` makes no empty root of what a host still has: files come first, then what is missing."""

import os
import pty
import subprocess
import sys

import pytest

from configstore import presets
from tests.cli.test_import_export import MAILU, lay

ROOTS = set(presets.roots("mailu"))


@pytest.fixture
def mailu(tmp_path):
    lay(tmp_path / "mailu", MAILU)
    return tmp_path / "mailu"


def made(tree):
    return {path for path in tree.list("").records if path in ROOTS}


def test_nothing_is_made_while_the_host_has_what_the_store_has_not(run, tree, mailu):
    done = run("bootstrap", "--host-data", str(mailu))
    assert done.code == 5
    assert f"`configstore import {mailu} / --preset mailu`" in done.err
    for mapping in ("dkim", "certs", "letsencrypt", "instance", "fetchmail", "gpg", "overrides-nginx"):
        assert f" {mapping}" in done.err
    assert not made(tree)


def test_what_was_imported_is_completed(run, tree, mailu):
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    before = made(tree)
    assert before < ROOTS
    assert run("bootstrap", "--host-data", str(mailu)).code == 0
    assert made(tree) == ROOTS


def test_what_appeared_after_the_import_comes_first_again(run, tree, mailu):
    for name in (mailu / "dkim").iterdir():
        name.unlink()
    (mailu / "dkim").rmdir()
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    lay(mailu, {"dkim/late.org.dkim.key": b"late"})
    done = run("bootstrap", CONFIGSTORE_HOST_DATA=str(mailu))
    assert done.code == 5
    assert "has not: dkim;" in done.err
    assert f"`configstore import {mailu} / --preset mailu --create`" in done.err, "the store's is newer by now"
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    assert run("bootstrap", CONFIGSTORE_HOST_DATA=str(mailu)).code == 0
    assert made(tree) == ROOTS


def test_a_host_that_has_nothing_worth_bringing_in_holds_nothing_up(run, tree, mailu, tmp_path):
    fresh = tmp_path / "fresh"
    lay(fresh, {"data/main.db": b"accounts", "dkim/new.org.dkim.key": b"", "mail/x": b"mail"})
    (fresh / "overrides/nginx").mkdir(parents=True)
    (fresh / "certs").mkdir()
    assert run("bootstrap", "--host-data", str(fresh)).code == 0
    assert made(tree) == ROOTS
    assert run("bootstrap", "--host-data", str(mailu)).code == 0, "all is there already"


def test_only_the_data_sets_of_the_preset_count(run, tree, tmp_path):
    lay(tmp_path / "host", {"dkim/x.org.dkim.key": b"key"})
    assert run("bootstrap", "--preset", "mailu/front", "--host-data", str(tmp_path / "host")).code == 0
    assert run("bootstrap", "--preset", "mailu/front,mailu/admin", "--host-data", str(tmp_path / "host")).code == 5
    done = run("bootstrap", "--preset", "mailu/admin", "--host-data", str(tmp_path / "host"))
    assert "/ --preset mailu/admin --create`" in done.err


def test_a_folder_that_is_not_there_is_told_and_nothing_is_made(run, tree, tmp_path):
    done = run("bootstrap", "--host-data", str(tmp_path / "mialu"))
    assert done.code != 0
    assert "mialu" in done.err
    assert not made(tree)


def test_what_cannot_be_looked_at_counts_as_something(run, tree, tmp_path):
    lay(tmp_path, {"elsewhere/x.org.dkim.key": b"key"})
    (tmp_path / "host").mkdir()
    (tmp_path / "host/dkim").symlink_to(tmp_path / "elsewhere")
    done = run("bootstrap", "--host-data", str(tmp_path / "host"))
    assert (done.code, "dkim" in done.err) == (5, True)


def test_yes_begins_without_the_hosts_files(run, tree, mailu):
    assert run("bootstrap", "--host-data", str(mailu), "--yes").code == 0
    assert made(tree) == ROOTS


@pytest.mark.parametrize(("typed", "code"), [("n", 5), ("", 5), ("y", 0)])
def test_a_person_is_asked_before_the_first_roots_where_no_folder_was_told(environment, tree, typed, code):
    ours, theirs = pty.openpty()
    try:
        os.write(ours, f"{typed}\n".encode())
        command = [sys.executable, "-m", "configstore", "bootstrap"]
        done = subprocess.run(command, env=environment, stdin=theirs, capture_output=True, timeout=60, check=False)
        assert done.returncode == code, done.stderr
        assert b"new installation?" in done.stderr
        assert made(tree) == (ROOTS if code == 0 else set())
        os.write(ours, b"n\n")
        again = subprocess.run(
            command, env=environment, stdin=theirs, capture_output=True, timeout=60, check=False
        )
        asked = b"new installation?" in again.stderr
        assert asked is (code != 0), "once anything is there nobody is asked" if code == 0 else again.stderr
    finally:
        os.close(ours)
        os.close(theirs)

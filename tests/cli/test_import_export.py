"""Whole trees in and out: what is there afterwards, what is left and why, what is refused."""

import errno
import os
import re
import shlex
import shutil
import socket
import stat
import tomllib
from pathlib import Path

import pytest

from configstore import presets
from configstore.errors import StoreUnavailableError
from configstore.files.writing import TreeWriter
from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry
from configstore.model.record import Kind, sha256
from configstore.store.leases import Lease
from configstore.store.store import Store
from tests.harness.named import a_write
from tests.sidecar.conftest import tmpfs

__all__ = ["tmpfs"]

MAILU = {
    "data/instance": b"6f1c\n",
    "data/fetchmail/fetchids": b"user@pop.example 17\n",
    "dkim/example.org.dkim.key": b"-----BEGIN PRIVATE KEY-----\n",
    "certs/cert.pem": b"certificate\n",
    "certs/key.pem": b"key\n",
    "certs/letsencrypt/accounts/acme/private_key.json": b"{}",
    "certs/letsencrypt/archive/mailu/privkey1.pem": b"key 1\n",
    "certs/letsencrypt/renewal/mailu.conf": b"version = 2\n",
    "overrides/nginx/proxy.conf": b"client_max_body_size 50m;\n",
    "overrides/rspamd/maps/local.map": b"example.org\n",
    "webmail/gpg/user@example.org/pubring.kbx": bytes(range(256)) * 400,
    "webmail/gpg/user@example.org/private-keys-v1.d/A1.key": b"secret\n",
    "webmail/SALT.php": b"<?php salt\n",
    "webmail/gpg/old@example.org/pubring.gpg": b"public",
    "webmail/gpg/old@example.org/secring.gpg": b"secret",
    "webmail/_data_/_default_/storage/example.org/user/settings": b"{}",
}
STAYS = {
    "data/main.db": "external",
    "mail/user@example.org/cur/1": "mailboxes",
    "mailqueue/active/1": "queue",
    "filter/rspamd.rrd": "own storage",
    "redis/dump.rdb": "redis",
    "dav/collection": "radicale",
    "certs/letsencrypt/.certbot.lock": "certbot",
    "certs/letsencrypt/live/mailu/nginx-chain.pem": "certbot",
    "webmail/roundcube.db": "external",
    "webmail/_data_/_default_/cache/x": "caches",
    "webmail/_data_/_default_/domains/x": "at each start",
    "webmail/gpg/user@example.org/random_seed": "moment",
    "webmail/_data_/_default_/storage/example.org/user/.sessions/1f": "each replica",
    "webmail/_data_/_default_/storage/example.org/other/.files/2e": "each replica",
    "webmail/_data_/_default_/storage/__nobody__/3d": "each replica",
    "overrides/snappymail/application.ini": "read by nothing",
    "clamav/daily.cvd": "virus definitions",
    "dkim/notes.txt": "not among",
}
GPG_HOMES = ("webmail/gpg/user@example.org", "webmail/gpg/old@example.org")
MAILU_USER = (101, 102)


def lay(folder, files):
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content)


@pytest.fixture
def mailu(tmp_path):
    """Return a folder shaped like a single host's /mailu, with owners and modes as its programs leave them."""
    folder = tmp_path / "mailu"
    lay(folder, MAILU)
    live = folder / "certs/letsencrypt/live/mailu"
    live.mkdir(parents=True)
    (live / "privkey.pem").symlink_to("../../archive/mailu/privkey1.pem")
    for name in ("dovecot", "postfix", "roundcube"):
        (folder / "overrides" / name).mkdir()
    for path in ("dkim/example.org.dkim.key", "certs/key.pem", "data/fetchmail/fetchids", "webmail/SALT.php"):
        (folder / path).chmod(0o600)
    (folder / "certs/letsencrypt/accounts/acme/private_key.json").chmod(0o400)
    for path in ("certs/letsencrypt/archive", "certs/letsencrypt/accounts", *GPG_HOMES):
        (folder / path).chmod(0o700)
    (folder / "webmail/gpg/user@example.org/private-keys-v1.d").chmod(0o700)
    for top in ("dkim", "webmail"):
        for where, folders, files in os.walk(folder / top):
            for name in [".", *folders, *files]:
                os.chown(os.path.join(where, name), *MAILU_USER)
    return folder


def state(folder):
    """Return everything below a folder: kind and mode, owner, and content or target."""
    found = {}
    for where, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(where, name)
            status = os.lstat(path)
            if stat.S_ISLNK(status.st_mode):
                said = os.readlink(path)
            else:
                said = "" if stat.S_ISDIR(status.st_mode) else sha256(Path(path).read_bytes())
            found[os.path.relpath(path, folder)] = (oct(status.st_mode), status.st_uid, status.st_gid, said)
    return found


def test_a_single_host_moves_in_and_out_without_a_difference(run, mailu, tmp_path):
    before = state(mailu)
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    assert run("export", "/", str(tmp_path / "back"), "--preset", "mailu").code == 0
    assert state(tmp_path / "back") == before
    assert state(mailu) == before  # and nothing happened to the original


def left_of(line):
    """Return the path of a line such as `configstore: left: mail/: why`."""
    return line.split(": ")[2].rstrip("/")


def test_what_stays_is_named_with_the_reason(run, mailu, tree):
    lay(mailu, dict.fromkeys(STAYS, b"x"))
    done = run("import", str(mailu), "/", "--preset", "mailu")
    assert done.code == 0
    left = [line for line in done.err.splitlines() if line.startswith("configstore: left: ")]
    for path, why in STAYS.items():
        line = next(line for line in left if f"{path}/".startswith(f"{left_of(line)}/"))
        assert why in line
    contents = {tree.content(found) for found in tree.list("").records.values()}
    assert b"x" not in contents


def test_a_dry_run_says_all_that_would_be_done_and_does_nothing(run, mailu, tree):
    done = run("import", str(mailu), "/", "--preset", "mailu", "-n")
    assert done.code == 0
    assert b"write dkim/example.org.dkim.key (file, 28 bytes)" in done.out
    assert not tree.list("").records


def test_importing_again_writes_nothing(run, mailu, tree):
    run("import", str(mailu), "/", "--preset", "mailu")
    revision = tree.kv.status().revision
    done = run("import", str(mailu), "/", "--preset", "mailu", "--json")
    assert (done.code, done.json()["written"]) == (0, [])
    assert tree.kv.status().revision == revision


def test_a_key_that_is_being_made_is_left_and_keeps_nothing_from_moving_in(run, mailu, tree):
    lay(mailu, {"dkim/new.org.dkim.key": b"", "webmail/gpg/user@example.org/empty": b""})
    done = run("import", str(mailu), "/", "--preset", "mailu")
    assert done.code == 0
    assert "left: dkim/new.org.dkim.key: empty" in done.err
    assert tree.read("dkim/new.org.dkim.key") is None
    assert tree.read("dkim/example.org.dkim.key").entry.size
    done = run("import", str(mailu), "/", "--preset", "mailu", "--json")
    left = {each["path"]: each["why"] for each in done.json()["left"]}
    assert (done.code, left["dkim/new.org.dkim.key"].startswith("empty")) == (0, True)
    lay(mailu, {"dkim/new.org.dkim.key": b"made\n"})
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    assert tree.content(tree.read("dkim/new.org.dkim.key")) == b"made\n"


def test_a_plain_tree_is_taken_with_its_empty_files(run, tmp_path, tree):
    lay(tmp_path / "d", {"a.key": b""})
    assert run("import", str(tmp_path / "d"), "dkim").code == 0
    assert tree.read("dkim/a.key").entry.kind is Kind.FILE


def test_an_interrupted_import_is_gone_on_with(run, mailu, tree):
    assert run("import", str(mailu / "dkim"), "dkim").code == 0
    done = run("import", str(mailu), "/", "--preset", "mailu", "--json")
    assert "dkim/example.org.dkim.key" not in done.json()["written"]
    assert "certs/key.pem" in done.json()["written"]


def test_what_a_sidecar_needs_of_an_imported_host_is_there(run, mailu, tree):
    run("import", str(mailu), "/", "--preset", "mailu")
    for root in ("data", "dkim", "certs", "certs/letsencrypt", "overrides/dovecot", "webmail/rainloop"):
        assert tree.read(root).entry.kind is Kind.DIR


def test_data_sets_that_are_not_there_are_named_and_get_no_root(run, tmp_path, tree):
    lay(tmp_path / "m", {"dkim/a.key": b"k"})
    done = run("import", str(tmp_path / "m"), "/", "--preset", "mailu")
    assert done.code == 0
    assert (
        "not there: data/fetchmail; where its service is used, `configstore bootstrap --preset mailu`" in done.err
    )
    assert set(tree.list("").records) == {"dkim", "dkim/a.key"}


def test_a_data_set_that_is_not_there_is_made_below_another_path_with_its_own_mode(run, tmp_path, tree):
    lay(tmp_path / "m", {"dkim/a.key": b"k"})
    done = run("import", str(tmp_path / "m"), "second", "--preset", "mailu")
    assert "`configstore mkdir --mode 0700 second/webmail/gpg` makes it empty" in done.err
    assert run("mkdir", "--mode", "0700", "second/webmail/gpg").code == 0
    assert tree.read("second/webmail/gpg").entry.mode == 0o700


def test_a_folder_of_something_else_is_refused(run, tmp_path, tree):
    lay(tmp_path / "m", {"etc/passwd": b"x"})
    done = run("import", str(tmp_path / "m"), "/", "--preset", "mailu")
    assert done.code == 1
    assert "dkim" in done.err
    assert not tree.list("").records


def test_overrides_lie_where_an_earlier_release_had_them(run, tmp_path, tree):
    lay(tmp_path / "m", {"overrides/dovecot.conf": b"d", "overrides/postfix.cf": b"p", "overrides/other": b"o"})
    done = run("import", str(tmp_path / "m"), "/", "--preset", "mailu")
    assert tree.content(tree.read("overrides/dovecot/dovecot.conf")) == b"d"
    assert tree.content(tree.read("overrides/postfix/postfix.cf")) == b"p"
    assert "left: overrides/other" in done.err


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.symlink_to("/etc/passwd"), "absolute target"),
        (lambda path: path.symlink_to("../../x"), "leads out"),
        (os.mkfifo, "FIFO"),
        (lambda path: socket.socket(socket.AF_UNIX).bind(str(path)), "socket"),
        (lambda path: path.with_name("line\nbreak").write_bytes(b""), "control character"),
    ],
    ids=["absolute link", "link out", "fifo", "socket", "name"],
)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_what_cannot_be_stored_is_named_and_nothing_is_written(run, tmp_path, tree, make, words):
    lay(tmp_path / "d", {"good": b"x"})
    make(tmp_path / "d" / "bad")
    done = run("import", str(tmp_path / "d"), "data")
    assert done.code == 5
    assert words in done.err
    assert "nothing was written" in done.err
    assert not tree.list("").records


def test_where_a_bad_link_leads_is_said_and_the_option_that_leaves_it_out(run, mailu, tree):
    bad = {"certs/a b.pem": "/etc/ssl/x.pem", "overrides/nginx/[1].conf": "../../outside.conf"}
    for path, target in bad.items():
        (mailu / path).symlink_to(target)
    done = run("import", str(mailu), "/", "--preset", "mailu")
    assert done.code == 5
    for path, target in bad.items():
        assert f"{path}: -> {target}: " in done.err
    ready = shlex.split(
        next(line for line in done.err.splitlines() if "to leave these out" in line).partition("add:")[2]
    )
    assert run("import", str(mailu), "/", "--preset", "mailu", *ready).code == 0
    assert tree.read("certs/cert.pem")
    assert not any(tree.read(path) for path in bad)


@pytest.mark.parametrize(
    "pattern",
    [
        "data/fetchmail/fetchids",
        "/data/fetchmail/fetchids",
        "{folder}/data/fetchmail/fetchids",
        "fetchmail/fetchids",
        "/fetchmail",
        "fetchids",
    ],
)
def test_a_pattern_takes_any_name_of_a_path_that_was_printed(run, mailu, tree, pattern):
    done = run("import", str(mailu), "/", "--preset", "mailu", "--exclude", pattern.format(folder=mailu))
    assert done.code == 0
    assert "left nothing out" not in done.err
    assert tree.read("fetchmail/fetchids") is None
    assert tree.read("data/instance")


def test_a_pattern_that_begins_with_no_folder_counts_in_every_data_set(run, mailu, tree):
    lay(mailu, {"overrides/nginx/sub/x": b"x"})
    assert run("import", str(mailu), "/", "--preset", "mailu", "--exclude", "/sub/x").code == 0
    assert tree.read("overrides/nginx/sub/x") is None
    assert tree.read("overrides/nginx/sub")


def test_a_data_set_can_be_left_out_as_a_whole(run, mailu, tree):
    (mailu / "elsewhere").mkdir()
    shutil.rmtree(mailu / "dkim")
    (mailu / "dkim").symlink_to("elsewhere")
    done = run("import", str(mailu), "/", "--preset", "mailu")
    assert (done.code, "--exclude /dkim" in done.err) == (5, True)
    assert run("import", str(mailu), "/", "--preset", "mailu", "--exclude", "/dkim").code == 0
    assert tree.read("dkim") is None
    assert tree.read("certs/cert.pem")


def test_a_pattern_that_left_nothing_out_is_named(run, mailu):
    done = run("import", str(mailu), "/", "--preset", "mailu", "--exclude", "*.bka", "--exclude", "instance")
    assert done.code == 0
    assert [line for line in done.err.splitlines() if "left nothing out" in line] == [
        "configstore: --exclude '*.bka': left nothing out; is it misspelt?"
    ]


def test_one_can_go_on_without_what_cannot_be_stored(run, mailu, tree):
    (mailu / "certs/bad.pem").symlink_to("/etc/ssl/x.pem")
    os.mkfifo(mailu / "overrides/nginx/pipe")
    done = run("import", str(mailu), "/", "--preset", "mailu", "--skip-bad")
    assert done.code == 1
    assert "skipped: certs/bad.pem: -> /etc/ssl/x.pem: " in done.err
    assert "skipped: overrides/nginx/pipe: " in done.err
    assert tree.read("certs/cert.pem")
    assert tree.read("overrides/nginx/proxy.conf")
    assert tree.read("certs/bad.pem") is None
    assert run("import", str(mailu), "/", "--preset", "mailu", "--skip-bad", "-n").code == 1


def test_contacts_that_stay_are_told_last_and_once(run, mailu):
    storage = "webmail/_data_/_default_/storage/example.org"
    lay(mailu, {f"{storage}/user/AddressBook.sqlite": b"x", f"{storage}/silent/AddressBook.sqlite": b"x"})
    done = run("import", str(mailu), "/", "--preset", "mailu")
    notes = [line for line in done.err.splitlines() if "NOTE:" in line]
    assert len(notes) == 1
    assert f"{storage}/silent/AddressBook.sqlite, and 1 more: contacts of SnappyMail stay" in notes[0]
    assert done.err.splitlines()[-2] == notes[0]
    left = {each["path"] for each in run("import", str(mailu), "/", "--preset", "mailu", "--json").json()["left"]}
    assert f"{storage}/user/AddressBook.sqlite" in left


def test_an_import_that_takes_long_says_how_far_it_is(run, tmp_path, monkeypatch):
    for name in ("QUIET", "LINES"):
        monkeypatch.setattr(f"configstore.progress.{name}", 0.0)
    lay(tmp_path / "d", {f"{number}.key": b"k" for number in range(2500)})
    done = run("import", str(tmp_path / "d"), "dkim")
    far = r"^configstore: 1\d\d\d of 2501 written, about \d+ s left, \d+ a second$"
    assert re.search(far, done.err, re.MULTILINE)
    assert re.search(r"^configstore: 2500 read, \d+ a second$", done.err, re.MULTILINE)
    done = run("export", "dkim", str(tmp_path / "e"))
    assert re.search(r"^configstore: \d+ of 2500 exported, about \d+ s left, ", done.err, re.MULTILINE)
    assert run("rm", "-r", "dkim", "--yes").code == 0
    done = run("restore", "-r", "dkim", "--at", "0s")
    assert "nothing to do" in done.err


def test_an_import_says_how_long_it_took_and_nothing_in_between(run, tmp_path):
    lay(tmp_path / "d", {f"{number}.key": b"k" for number in range(20)})
    done = run("import", str(tmp_path / "d"), "dkim")
    assert done.err.count("\n") == 1
    assert re.search(r"; took \d+\.\d s$", done.err.strip())


def test_a_snapshot_made_of_hard_links_is_taken(run, tmp_path, tree):
    lay(tmp_path / "yesterday", {"a": b"x", "b": b"y"})
    (tmp_path / "today").mkdir()
    for name in "ab":
        os.link(tmp_path / "yesterday" / name, tmp_path / "today" / name)
    assert run("import", str(tmp_path / "today"), "data").code == 0
    assert [tree.content(tree.read(f"data/{name}")) for name in "ab"] == [b"x", b"y"]
    assert run("export", "data", str(tmp_path / "today")).code == 0


def test_a_data_set_behind_a_symlink_is_refused(run, tmp_path, tree):
    lay(tmp_path, {"elsewhere/fetchids": b"x", "m/dkim/a.key": b"k"})
    (tmp_path / "m/data").mkdir()
    (tmp_path / "m/data/fetchmail").symlink_to(tmp_path / "elsewhere")
    done = run("import", str(tmp_path / "m"), "/", "--preset", "mailu")
    assert done.code == 5
    assert "data/fetchmail" in done.err
    assert not tree.list("").records


def test_a_file_that_is_being_written_is_not_taken(run, tmp_path, tree):
    lay(tmp_path / "d", {"a": b"half"})
    with open(tmp_path / "d/a", "ab"):
        done = run("import", str(tmp_path / "d"), "data")
    assert (done.code, "being written" in done.err) == (5, True)


def test_what_differs_is_replaced_and_what_it_was_is_kept(run, tmp_path, tree):
    lay(tmp_path / "d", {"a": b"new"})
    run("put", "data/a", stdin=b"old")
    assert "1 of them over something else" in run("import", str(tmp_path / "d"), "data").err
    assert tree.content(tree.read("data/a")) == b"new"
    assert len(run("history", "data/a", "--json").json()) == 2


def test_create_replaces_nothing_and_says_what_differs(run, tmp_path, tree):
    lay(tmp_path / "d", {"a": b"new", "b": b"b"})
    run("put", "data/a", stdin=b"old")
    done = run("import", str(tmp_path / "d"), "data", "--create")
    assert done.code == 3
    assert "data/a: differs" in done.err
    assert tree.content(tree.read("data/a")) == b"old"
    assert tree.content(tree.read("data/b")) == b"b"


def test_what_is_made_once_stays_as_the_store_has_it(run, mailu, tree):
    run("put", "data/instance", stdin=b"the first")
    done = run("import", str(mailu), "/", "--preset", "mailu")
    assert done.code == 0
    assert "data/instance: differs" in done.err
    assert tree.content(tree.read("data/instance")) == b"the first"


def test_a_directory_meeting_a_file_is_a_conflict_before_anything_is_written(run, tmp_path, tree):
    lay(tmp_path / "d", {"a/x": b"x", "b": b"b"})
    run("put", "data/a", stdin=b"a file")
    assert run("import", str(tmp_path / "d"), "data").code == 3
    lay(tmp_path / "e", {"b": b"x"})
    run("put", "data/b/below", stdin=b"implicit directory")
    assert run("import", str(tmp_path / "e"), "data").code == 3
    assert {path for path in tree.list("").records if "/" in path} == {"data/a", "data/b/below"}


def test_a_held_lease_keeps_its_data_set_from_being_imported(run, mailu, tree, kv, kv_root):
    holder = Lease(Store(kv, Keys(kv_root)), "fetchmail", QueueEntry(replica="mail-1", host="h"), ttl=10)
    holder.acquire(0.0)
    try:
        done = run("import", str(mailu), "/", "--preset", "mailu")
        assert done.code == 3
        assert "mail-1" in done.err
        assert tree.read("fetchmail/fetchids") is None
    finally:
        holder.release()
    assert run("import", str(mailu), "/", "--preset", "mailu").code == 0
    assert tree.read("fetchmail/fetchids").record.origin.lease == "fetchmail"


def test_another_writer_in_between_is_noticed_and_compared_anew(run, tmp_path, tree, monkeypatch):
    lay(tmp_path / "d", {"a": b"import", "b": b"b"})
    commit = type(tree).commit
    rivals = [b"rival"]

    def interrupted(self, writes, **how):
        while rivals:
            commit(tree, [a_write("data/a", rivals.pop())], retention=60)
        return commit(self, writes, **how)

    monkeypatch.setattr(type(tree), "commit", interrupted)
    assert run("import", str(tmp_path / "d"), "data").code == 0
    assert tree.content(tree.read("data/a")) == b"import"
    assert [each["size"] for each in run("history", "data/a", "--json").json()] == [6, 5]


def test_thousands_of_files_tell_how_far_they_are(run, tmp_path, tree, monkeypatch):
    monkeypatch.setattr("configstore.progress.QUIET", 0.0)
    lay(tmp_path / "d", {f"{number}.key": b"k" * 1700 for number in range(2500)})
    done = run("import", str(tmp_path / "d"), "dkim")
    assert done.code == 0
    assert "of 2501 written" in done.err
    assert len(tree.list("dkim").records) == 2501


def test_an_export_again_writes_nothing_and_mends_what_was_changed(run, mailu, tmp_path):
    run("import", str(mailu), "/", "--preset", "mailu")
    run("export", "/", str(tmp_path / "back"), "--preset", "mailu")
    assert run("export", "/", str(tmp_path / "back"), "--preset", "mailu", "--json").json()["written"] == []
    (tmp_path / "back/dkim/example.org.dkim.key").write_bytes(b"changed")
    again = run("export", "/", str(tmp_path / "back"), "--preset", "mailu", "--json")
    assert again.json()["written"] == ["dkim/example.org.dkim.key"]
    assert state(tmp_path / "back") == state(mailu)


def test_a_dry_export_writes_nothing(run, mailu, tmp_path):
    run("import", str(mailu), "/", "--preset", "mailu")
    done = run("export", "/", str(tmp_path / "back"), "--preset", "mailu", "-n")
    assert b"write dkim/example.org.dkim.key" in done.out
    assert not (tmp_path / "back").exists()


def test_an_export_leads_out_of_its_folder_by_no_link(run, tmp_path, tree):
    run("put", "data/sub/secret", stdin=b"s")
    outside = tmp_path / "outside"
    outside.mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/sub").symlink_to(outside)
    done = run("export", "data", str(tmp_path / "out"))
    assert (done.code, list(outside.iterdir())) == (1, [])
    assert "sub/secret" in done.err


def test_an_export_replaces_a_link_and_not_what_it_points_to(run, tmp_path):
    run("put", "data/a", stdin=b"new")
    (tmp_path / "other").write_bytes(b"other")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a").symlink_to(tmp_path / "other")
    assert run("export", "data", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/a").read_bytes() == b"new"
    assert (tmp_path / "other").read_bytes() == b"other"


def test_what_the_preset_does_not_name_is_left_in_the_store(run, mailu, tmp_path):
    run("import", str(mailu), "/", "--preset", "mailu")
    run("put", "elsewhere/x", stdin=b"x")
    done = run("export", "/", str(tmp_path / "back"), "--preset", "mailu")
    assert "left in the store: elsewhere/x" in done.err
    assert run("export", "/", str(tmp_path / "all")).code == 0
    assert (tmp_path / "all/elsewhere/x").read_bytes() == b"x"


@pytest.mark.parametrize("path", ["", "second"])
def test_what_has_no_place_on_a_single_host_is_left_as_such(run, mailu, tmp_path, path):
    run("import", str(mailu), path or "/", "--preset", "mailu")
    run("put", f"{path}/acme/token".lstrip("/"), stdin=b"x")
    done = run("export", path or "/", str(tmp_path / "back"), "--preset", "mailu")
    assert f"left in the store: {path}/acme/token: has no directory".replace(" /", " ") in done.err
    assert "acme: not among" not in done.err


@pytest.mark.parametrize("options", [[], ["--preset", "mailu"]])
def test_a_folder_that_an_export_makes_is_closed_to_others_and_one_that_was_there_keeps_its_mode(
    run, mailu, tmp_path, options
):
    run("import", str(mailu), "/", "--preset", "mailu")
    assert run("export", "/", str(tmp_path / "new"), *options).code == 0
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "new/dkim").stat().st_mode == (mailu / "dkim").stat().st_mode
    (tmp_path / "old").mkdir(mode=0o755)
    assert run("export", "/", str(tmp_path / "old"), *options).code == 0
    assert (tmp_path / "old").stat().st_mode & 0o777 == 0o755


@pytest.mark.parametrize("words", [("export", "nothing"), ("export", "one/file")])
def test_an_export_of_no_directory_is_an_error(run, tmp_path, words):
    run("put", "one/file", stdin=b"x")
    done = run(*words, str(tmp_path / "out"))
    assert done.code in {1, 5}
    assert not (tmp_path / "out").exists()


def test_exported_files_are_closed_to_others_from_birth(run, tmp_path, monkeypatch):
    run("put", "data/a", "--mode", "0644", stdin=b"x")
    opened = []
    real = os.open

    def noting(path, flags, mode=0o777, **how):
        if flags & os.O_CREAT and str(path).startswith(".configstore-"):
            opened.append(mode)
        return real(path, flags, mode, **how)

    monkeypatch.setattr(os, "open", noting)
    assert run("export", "data", str(tmp_path / "out")).code == 0
    assert opened == [0o600]


def test_a_path_that_is_too_long_in_the_store_is_named_before_it_is_written(run, tmp_path, tree):
    lay(tmp_path / "d", {"/".join(["d" * 200] * 10 + ["f"]): b"x"})
    done = run("import", str(tmp_path / "d"), "/".join(["p" * 200] * 3))
    assert (done.code, "longer than 2048" in done.err) == (5, True)
    assert not tree.list("").records


def test_what_is_in_the_way_can_be_left_out(run, tmp_path, tree):
    lay(tmp_path / "d", {"good": b"x"})
    os.mkfifo(tmp_path / "d/pipe")
    assert run("import", str(tmp_path / "d"), "data", "--exclude", "pipe").code == 0
    assert set(tree.list("").records) == {"data", "data/good"}


def test_each_problem_has_a_line_of_its_own(run, tmp_path):
    (tmp_path / "d").mkdir()
    for name in ("a", "b"):
        os.mkfifo(tmp_path / "d" / name)
    lines = run("import", str(tmp_path / "d"), "data").err.splitlines()
    assert [line.split(":")[1] for line in lines[:2]] == [" a", " b"]


def test_what_is_not_selected_hinders_nothing(run, tmp_path, tree, tmpfs):
    lay(tmp_path / "m", {"data/instance": b"id", "data/private/x": b"x"})
    tmpfs(tmp_path / "m/data/private")
    assert run("import", str(tmp_path / "m"), "/", "--preset", "mailu/admin").code == 0
    assert tree.read("data/instance")


def test_a_link_that_leads_out_of_its_data_set_is_told_as_such(run, tmp_path):
    lay(tmp_path, {"elsewhere.pem": b"x"})
    (tmp_path / "m/certs").mkdir(parents=True)
    (tmp_path / "m/certs/cert.pem").symlink_to(tmp_path / "elsewhere.pem")
    done = run("import", str(tmp_path / "m"), "/", "--preset", "mailu/front")
    assert (done.code, "leads out" in done.err) == (5, True)


def test_an_exported_folder_is_as_closed_as_it_was(run, tmp_path):
    lay(tmp_path / "d", {"key": b"secret"})
    (tmp_path / "d").chmod(0o700)
    run("import", str(tmp_path / "d"), "data")
    run("export", "data", str(tmp_path / "out"))
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700


def test_what_was_put_by_hand_is_exported_once(run, tmp_path):
    run("put", "data/a", stdin=b"x")
    assert run("export", "data", str(tmp_path / "out"), "--json").json()["written"] == ["a"]
    assert run("export", "data", str(tmp_path / "out"), "--json").json()["same"] == 1


def test_an_export_that_broke_off_leaves_no_directory_closed_and_the_next_one_completes_it(
    run, tmp_path, tree, monkeypatch
):
    lay(tmp_path / "d", {"a/1": b"1", "a/2": b"2"})
    (tmp_path / "d/a").chmod(0o755)
    run("import", str(tmp_path / "d"), "data")
    run("put", "data/by/hand", stdin=b"x")
    content = type(tree).content

    def broken(self, found):
        if found.path.endswith("2"):
            raise StoreUnavailableError("etcd is away")
        return content(self, found)

    with monkeypatch.context() as patch:
        patch.setattr(type(tree), "content", broken)
        assert run("export", "data", str(tmp_path / "out")).code == 4
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "out").iterdir()}
    assert modes["a"] == 0o755
    assert run("export", "data", str(tmp_path / "out")).code == 0
    assert (tmp_path / "out/by").stat().st_mode & 0o777 == 0o755


def test_what_a_killed_export_left_is_no_data(run, tmp_path, tree):
    lay(tmp_path / "d", {".configstore-07dd": b"half", "a": b"x"})
    assert run("import", str(tmp_path / "d"), "data").code == 0
    assert set(tree.list("").records) == {"data", "data/a"}


@pytest.mark.parametrize("options", [[], ["-n"]])
def test_something_of_another_kind_is_named_and_stays_also_in_a_dry_run(run, tmp_path, options):
    for name in ("pipe", "folder", "sub/file"):
        run("put", f"data/{name}", stdin=b"x")
    (tmp_path / "out/folder").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/sub").symlink_to(tmp_path / "elsewhere")
    os.mkfifo(tmp_path / "out/pipe")
    done = run("export", "data", str(tmp_path / "out"), "--json", *options)
    assert done.code == 1
    assert {each["path"] for each in done.json()["problems"]} == {"pipe", "folder", "sub/file"}
    assert stat.S_ISFIFO((tmp_path / "out/pipe").stat().st_mode)


def test_a_directory_that_cannot_get_its_mode_is_named_and_the_rest_goes_on(run, tmp_path, monkeypatch):
    lay(tmp_path / "d", {"a/1": b"1", "b/2": b"2"})
    run("import", str(tmp_path / "d"), "data")
    given = TreeWriter._give

    def refuse(self, path, entry):
        if path == "a":
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
        given(self, path, entry)

    monkeypatch.setattr(TreeWriter, "_give", refuse)
    done = run("export", "data", str(tmp_path / "out"), "--json")
    assert (done.code, [each["path"] for each in done.json()["problems"]]) == (1, ["a"])
    assert (tmp_path / "out/b/2").read_bytes() == b"2"


def test_presets_are_listed_and_explained(offline):
    listed = offline("presets")
    assert b"mailu/front" in listed.out
    explained = offline("presets", "mailu/front").out.decode()
    for words in ("lease", "letsencrypt", "/config.py", "HUP:nginx", "/certs/letsencrypt"):
        assert words in explained
    lists = dict(re.findall(r"^  (include|exclude) +(.*)$", explained, re.MULTILINE))
    first, *_, last = presets.load("mailu/front")
    assert f'  include            ["{first.include[0]}", ' in explained
    assert tomllib.loads(f"exclude = {lists['exclude']}")["exclude"] == list(last.exclude)
    assert offline("presets", "mailu/front", "--json").json()[0]["name"] == "certs"
    assert offline("presets", "nope").code == 2

"""`ls`, `stat`, `rm`, `mkdir` and `bootstrap`."""

import subprocess

import pytest

from configstore import presets
from configstore.model.keys import Keys
from configstore.model.record import Kind
from configstore.store.api import ModRevision, Put
from tests.harness.named import a_link, a_write


@pytest.fixture
def filled(run):
    """Put a small tree into the store."""
    for path in ("certs/cert.pem", "certs/live/a/key.pem", "certs-old", "dkim/x.key"):
        assert run("put", path, stdin=path.encode()).code == 0
    return run


def lines(done):
    assert done.code == 0, done.err
    return done.out.decode().splitlines()


def test_ls_shows_children_and_the_directories_that_only_their_children_make(filled):
    assert lines(filled("ls")) == ["certs/", "certs-old", "dkim/"]
    assert lines(filled("ls", "/")) == ["certs/", "certs-old", "dkim/"]
    assert lines(filled("ls", "certs/")) == ["cert.pem", "live/"]
    assert lines(filled("ls", "certs/live")) == ["a/"]


def test_ls_recursive_shows_all_below(filled):
    below = ["cert.pem", "live/", "live/a/", "live/a/key.pem"]
    assert lines(filled("ls", "-R", "certs")) == below


def test_ls_of_a_file_shows_it(filled):
    assert lines(filled("ls", "certs/cert.pem")) == ["certs/cert.pem"]


def test_ls_long_shows_kind_mode_size_and_revision_under_headers(filled):
    header, row = lines(filled("ls", "-l", "dkim"))
    assert header.split() == ["KIND", "MODE", "OWNER", "SIZE", "REVISION", "CHANGED", "NAME"]
    at = filled("stat", "dkim/x.key", "--json").json()["revision"]
    assert row.split()[:5] == ["file", "0600", "-", "10", str(at)]
    assert row.endswith("  x.key")


def test_ls_json_is_one_list_with_whole_paths(filled):
    found = filled("ls", "certs", "--json").json()
    assert [(row["path"], row["kind"]) for row in found] == [("certs/cert.pem", "file"), ("certs/live", "dir")]
    assert found[1]["implicit"]


def test_ls_of_an_empty_store_is_empty_and_of_nothing_an_error(run):
    assert lines(run("ls")) == []
    assert run("ls", "--json").json() == []
    assert run("ls", "nope").code == 1
    run("mkdir", "empty")
    assert lines(run("ls", "empty")) == []


def test_tombstones_are_hidden_unless_asked_for(filled):
    filled("rm", "certs/cert.pem")
    filled("rm", "dkim", "-r")
    assert lines(filled("ls")) == ["certs/", "certs-old"]
    assert filled("ls", "dkim").code == 1
    assert lines(filled("ls", "certs")) == ["live/"]
    assert lines(filled("ls", "--all", "certs")) == ["cert.pem", "live/"]
    assert lines(filled("ls", "--all", "-l", "dkim"))[1].startswith("gone")


def test_an_unreadable_record_does_not_hide_the_others(filled, kv, kv_root):
    key = Keys(kv_root).file("dkim/y.key")
    kv.txn([ModRevision(key, 0)], [Put(key, b"rubbish")])
    done = filled("ls", "dkim")
    assert (done.code, done.out) == (1, b"x.key\n")
    assert "dkim/y.key: unreadable" in done.err


@pytest.fixture
def raw(kv, kv_root):
    """Return a function that writes a key below `files/` by hand, as with etcdctl, and returns it as text."""

    def raw(name, value=b"rubbish"):
        key = f"{kv_root}/files/{name}".encode() if isinstance(name, str) else f"{kv_root}/files/".encode() + name
        kv.txn([ModRevision(key, kv_mod_revision(kv, key))], [Put(key, value)])
        return key.decode("utf-8", "replace")

    return raw


def kv_mod_revision(kv, key):
    return next((item.mod_revision for item in kv.range(key).items), 0)


@pytest.mark.parametrize("words", [("rm", "dkim/y.key"), ("rm", "-r", "dkim")])
def test_an_unreadable_record_can_be_removed(filled, tree, raw, words):
    raw("dkim/y.key")
    at = kv_mod_revision(tree.kv, tree.keys.file("dkim/y.key"))
    assert "`configstore rm dkim/y.key` removes it" in filled("ls", "dkim").err
    assert filled(*words).code == 0
    found = tree.read("dkim/y.key")
    assert (found.gone, found.record.origin.supersedes) == (True, at)
    assert tree.read("dkim/x.key").gone is ("-r" in words)
    assert tree.kv.range(tree.keys.past("dkim/y.key", at)).items[0].value == b"rubbish"


def test_an_unreadable_record_of_a_directory_wants_r(filled, tree, raw):
    raw("dkim")
    assert filled("rm", "dkim").code == 5
    assert filled("rm", "dkim", "-r").code == 0
    assert [found.gone for found in tree.list("dkim").records.values()] == [True, True]


def test_a_key_that_no_path_has_is_named_with_its_mend_and_does_not_hide_or_keep_the_others(filled, tree, raw):
    key = raw("dkim/../x")
    done = filled("ls", "dkim")
    assert (done.code, done.out) == (1, b"x.key\n")
    assert f"`etcdctl del {key}` removes it" in done.err
    done = filled("rm", "-r", "dkim")
    assert (done.code, "removed 1" in done.err, f"`etcdctl del {key}` removes it" in done.err) == (1, True, True)
    assert tree.read("dkim/x.key").gone
    assert filled("rm", "-r", "dkim").code == 1


def test_the_mend_for_a_key_of_any_bytes_can_be_typed_into_a_shell(run, tree, raw):
    for name in ("d/../a b", "d/../it's", b"d/../\xff'\\\x1bz"):
        raw(name)
    words = [line.partition("`etcdctl del ")[2].rpartition("` removes it")[0] for line in
             run("ls", "d").err.splitlines()]  # fmt: skip
    typed = subprocess.run(["bash", "-c", f"printf '%s\\0' {' '.join(words)}"], capture_output=True, check=True)
    keys = [item.key for item in tree.kv.range(*tree.keys.files_below("d")).items]
    assert typed.stdout.split(b"\0")[:-1] == keys


def test_what_could_fool_a_terminal_is_escaped(run, tree):
    tree.commit([a_write("a\u202eb", a_link("\x1b[2J"))], retention=60)
    done = run("ls", "-l")
    assert rb"$'a\xe2\x80\xaeb' -> \x1b[2J" in done.out


def test_stat_shows_the_header_and_its_origin(filled):
    found = filled("stat", "certs/cert.pem", "--json").json()
    assert (found["kind"], found["size"], found["replica"], found["lease"]) == ("file", 14, "cli", None)
    text = filled("stat", "certs/cert.pem").out.decode()
    assert f"revision  {found['revision']}\n" in text


def test_stat_of_a_directory_without_a_record_says_so(filled):
    assert filled("stat", "certs", "--json").json() == {
        "path": "certs",
        "kind": "dir",
        "revision": None,
        "implicit": True,
    }


def test_stat_of_a_deleted_path_shows_its_tombstone_and_fails(filled):
    filled("rm", "certs-old")
    done = filled("stat", "certs-old", "--json")
    assert (done.code, done.json()["kind"]) == (1, "gone")
    assert filled("stat", "never").code == 1


def test_rm_leaves_a_tombstone_that_knows_what_was_deleted(filled, tree):
    before = tree.read("certs-old").entry
    assert filled("rm", "certs-old").code == 0
    entry = tree.read("certs-old").entry
    assert (entry.kind, entry.size, entry.sha256) == (Kind.GONE, before.size, before.sha256)
    assert filled("rm", "certs-old").code == 1


def test_rm_of_a_directory_wants_r_and_then_takes_all_of_it_and_no_neighbour(filled, tree):
    assert filled("rm", "certs").code == 5
    assert tree.read("certs/cert.pem").entry.kind is Kind.FILE
    assert filled("rm", "certs", "-r").code == 0
    assert lines(filled("ls", "-R")) == ["certs-old", "dkim/", "dkim/x.key"]
    assert len({found.mod_revision for found in tree.list("certs").records.values()}) == 1


def test_the_whole_tree_is_never_removed(filled):
    for words in (("rm", "/"), ("rm", "-r", "/")):
        assert filled(*words).code == 5
    assert lines(filled("ls"))


def test_mkdir_makes_a_record_once(run, tree):
    assert run("mkdir", "certs").code == 0
    made = tree.read("certs")
    assert (made.entry.kind, made.entry.mode) == (Kind.DIR, 0o755)
    again = run("mkdir", "certs/")
    assert (again.code, "there already" in again.err) == (0, True)
    assert tree.read("certs") == made


def test_mkdir_gives_an_implicit_directory_its_record(filled, tree):
    assert filled("mkdir", "certs", "--mode", "0700").code == 0
    assert tree.read("certs").entry.mode == 0o700


def test_mkdir_over_or_below_a_file_is_a_conflict(filled):
    assert filled("mkdir", "certs-old").code == 3
    assert filled("mkdir", "certs-old/sub").code == 3
    assert filled("mkdir", "/").code == 5


def test_mkdir_brings_a_removed_directory_back(run, tree):
    run("mkdir", "a")
    run("rm", "-r", "a")
    assert run("mkdir", "a").code == 0
    assert tree.read("a").entry.kind is Kind.DIR


def test_bootstrap_makes_every_root_of_a_preset_in_one_txn_and_only_once(run, tree):
    assert run("bootstrap", "--preset", "mailu").code == 0
    made = {path: found.mod_revision for path, found in tree.list("").records.items()}
    assert set(made) == set(presets.roots("mailu"))
    assert len(set(made.values())) == 1
    assert run("bootstrap").code == 0
    assert {path: found.mod_revision for path, found in tree.list("").records.items()} == made


def test_bootstrap_of_one_service_completes_what_is_there(run, tree):
    run("mkdir", "certs")
    done = run("bootstrap", "--preset", "mailu/front")
    assert "certs: is there already" in done.err
    assert set(tree.list("").records) == {"certs", "certs/letsencrypt", "overrides/nginx"}


def test_bootstrap_changes_nothing_when_a_root_is_a_file(run, tree):
    run("put", "dkim", stdin=b"x")
    assert run("bootstrap").code == 3
    assert set(tree.list("").records) == {"dkim"}


def test_an_unknown_preset_is_a_usage_error(run):
    assert run("bootstrap", "--preset", "nope").code == 2

"""Never "fine" when it is not: what `configstore status` says of a fault, by path and with the mend.

Each fault is made for real. The contract is 10 s; the deadlines allow for a machine four times slower.
"""

import contextlib
import ctypes
import json
import os
import subprocess

import pytest

from configstore.model.keys import Keys
from configstore.store.api import Put
from tests.harness.named import a_tree, put
from tests.harness.waiting import wait_until

SOON = 40.0
"""Four times the 10 s of the contract."""

NO_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
"""Root as a container has it that may not read what others keep for themselves."""

OTHER = 1234
"""A user that owns files and is not the sidecar's."""


@pytest.fixture
def told(configstore):
    """Return a function that waits until `status` has a line with all of some words, and returns that line."""

    def wait(*words):
        def line():
            lines = configstore("status").decode().splitlines()
            return next((line for line in lines if all(word in line for word in words)), None)

        return wait_until(line, SOON, what=f"{words} in {configstore('status').decode()}")

    return wait


@pytest.fixture
def over(configstore):
    """Return a function that waits until `status` says nothing of a word any more, and that all is ready."""

    def wait(*words):
        def quiet():
            text = configstore("status").decode()
            return " 1 of 1  ready " in text and not any(word in text for word in words)

        wait_until(quiet, SOON, what=f"{words} to be over: {configstore('status').decode()}")

    return wait


@pytest.fixture
def set_of(kv, kv_root):
    """Return a function that commits files of `data` as one set."""

    def commit(**contents):
        put(a_tree(kv, kv_root), {f"data/{name}": content for name, content in contents.items()})

    return commit


def test_a_file_held_open_for_writing(replica, told, over, configstore):
    one = replica("one").start().ready()
    with (one.folder / "app log").open("w") as file:
        file.write("half")
        file.flush()
        line = told("'data/app log': ", "open for writing", "exclude it")
        assert "one@" in line
        (found,) = json.loads(configstore("status", "--json"))["replicas"]
        assert (found["state"], found["ready"], found["complete"], found["degraded"]) == (
            "ready",
            True,
            True,
            True,
        )
        assert b"degraded" in configstore("replicas")
        assert told(" 1 of 1  degraded ")
        done = one.client("flush", "data", "--timeout", "1s")
        assert "'app log': " in done.communicate(timeout=90)[1]
        assert done.returncode != 0
    over("app log", "degraded")


def test_an_unreadable_file(replica, told, over):
    one = replica("one")
    one.under = NO_OVERRIDE
    one.start().ready()
    (one.folder / "secret").write_text("x")
    os.chown(one.folder / "secret", OTHER, OTHER)
    os.chmod(one.folder / "secret", 0o600)
    (one.folder / "beside").write_text("x")
    told("data/secret: no permission: run as the owner")
    os.chmod(one.folder / "secret", 0o644)
    over("secret")


def test_what_is_edited_made_or_removed_in_a_mapping_that_only_pulls(replica, told, over, configstore):
    configstore("put", "data/cert.pem", content=b"theirs")
    configstore("put", "data/d/key.pem", content=b"theirs")
    one = replica("one", 'direction = "pull"').start().ready()
    (one.folder / "cert.pem").write_bytes(b"ours")
    told("data/cert.pem: edited here, but this replica may only pull")
    (one.folder / "mine").write_bytes(b"ours")
    (one.folder / "cache").mkdir()
    for number in range(5):
        (one.folder / "cache" / f"{number}").write_bytes(b"ours")
    told("data/mine: made here, and this mapping only pulls", "stays here", "not sent", "xclude it")
    text = configstore("status").decode()
    assert text.count("data/cache") == 1, text
    assert one.metric("pending") == one.metric("pending_seconds") == 0
    (one.folder / "d/key.pem").unlink()
    wait_until((one.folder / "d/key.pem").exists, SOON)
    for name in ("mine", "cache/0", "cache/1", "cache/2", "cache/3", "cache/4"):
        (one.folder / name).unlink()
    (one.folder / "cache").rmdir()
    (one.folder / "cert.pem").write_bytes(b"theirs")
    over("made here", "edited here")
    assert configstore("ls", "-R", "data").split() == [b"cert.pem", b"d/", b"d/key.pem"]


def test_many_files_with_one_problem_have_one_line_and_hide_no_other(replica, told, configstore):
    one = replica("one", 'direction = "pull"').start().ready()
    for number in range(200):
        (one.folder / f"a-{number:03}").write_bytes(b"ours")
    (one.folder / "z").symlink_to("/etc/passwd")
    line = told("data/a-000, data/a-001, data/a-002 and 197 more: made here")
    assert told("data/z: a symlink with an absolute target")
    assert len(line) < 400
    (found,) = json.loads(configstore("replicas", "--json"))
    assert found["problem_count"] == 201


def test_an_edit_in_the_store_against_a_mapping_that_only_pushes(replica, told, over, configstore):
    one = replica("one", 'direction = "push"').start().ready()
    (one.folder / "log").write_bytes(b"ours")
    wait_until(lambda: configstore("ls", "data") == b"log\n", SOON)
    configstore("put", "data/log", content=b"theirs")
    told("data/log: changed in the store, but this mapping only pushes", "the next local edit replaces it")
    (one.folder / "log").write_bytes(b"ours again")
    over("data/log")


def in_a_namespace_with(limit, value):
    """Return a command that runs another with a lower limit of the kernel's, which counts by user namespace."""
    script = f'echo {value} > /proc/sys/user/{limit} && exec "$@"'
    return ("unshare", "--user", "--map-root-user", "sh", "-c", script, "sh")


def test_missing_inotify_watches(replica, told, over):
    one = replica("one", 'rescan = "5s"')
    one.under = in_a_namespace_with("max_inotify_watches", 2)
    one.start().ready()
    for name in "abc":
        (one.folder / name).mkdir()
    told("not watched", "fs.inotify.max_user_watches")
    for name in "abc":
        (one.folder / name).rmdir()
    over("not watched")


def test_polling_in_place_of_inotify(replica, told):
    one = replica("one")
    one.under = in_a_namespace_with("max_inotify_instances", 0)
    one.start().ready()
    told("polled every 1 s, since inotify is not to be had", "fs.inotify.max_user_instances")


def test_root_that_may_not_ask_who_writes(replica, told):
    one = replica("one")
    one.under = ("setpriv", "--bounding-set=-lease")
    (one.folder / "a").write_bytes(b"x")
    os.chown(one.folder / "a", OTHER, OTHER)
    one.start().ready()
    told("who is writing to other users' files", "cap_add: [LEASE]")


@contextlib.contextmanager
def bind_mounted(path, source):
    subprocess.run(["mount", "--bind", str(source), str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def test_a_set_held_back_by_a_file_that_is_mounted_by_itself(replica, told, over, set_of, tmp_path):
    set_of(cert=b"1", key=b"1")
    one = replica("one").start().ready()
    (tmp_path / "elsewhere").write_bytes(b"1")
    with bind_mounted(one.folder / "cert", tmp_path / "elsewhere"):
        set_of(cert=b"2", key=b"2")
        told("data/cert: ", "mount its directory instead")
        told("data/key: held back", "cert, which was changed together with it")
        assert (one.folder / "key").read_bytes() == b"1"
    over("mounted here", "held back")
    wait_until(lambda: [(one.folder / name).read_bytes() for name in ("cert", "key")] == [b"2", b"2"], SOON)


def test_a_set_held_back_by_a_hard_link(replica, told, over, set_of, tmp_path):
    set_of(cert=b"1", key=b"1")
    one = replica("one").start().ready()
    os.link(one.folder / "cert", tmp_path / "second-name")
    set_of(cert=b"2", key=b"2")
    told("data/cert: ", "hard link")
    told("data/key: held back", "cert, which was changed together with it")
    assert (one.folder / "key").read_bytes() == b"1"
    (tmp_path / "second-name").unlink()
    over("data/cert", "held back")
    wait_until(lambda: (one.folder / "key").read_bytes() == b"2", SOON)


def test_a_set_held_back_by_a_file_that_is_open_here(replica, told, over, set_of):
    set_of(cert=b"1", key=b"1")
    one = replica("one").start().ready()
    with (one.folder / "cert").open("ab") as file:
        file.write(b"+")
        file.flush()
        set_of(cert=b"2", key=b"2")
        told("data/cert: a program has it open for writing")
        told("data/key: held back", "cert, which was changed together with it")
        assert (one.folder / "key").read_bytes() == b"1"
    over("open for writing", "held back")


def test_a_set_held_back_by_a_record_of_a_later_version(replica, told, over, set_of, kv, kv_root):
    set_of(cert=b"1", key=b"1")
    one = replica("one").start().ready()
    keys = Keys(kv_root)
    set_of(cert=b"2", key=b"2")
    wait_until(lambda: (one.folder / "key").read_bytes() == b"2", SOON)
    cert, key = (kv.range(keys.file(f"data/{name}")).items[0] for name in ("cert", "key"))
    future = cert.value.replace(b'"v":1', b'"v":9', 1)
    newer = key.value.replace(b"write_id", b"write_id", 1)
    assert future != cert.value
    kv.txn((), (Put(cert.key, future), Put(key.key, newer.replace(b"600", b"640", 1))))
    told("data/cert: ", "version")
    told("data/key: held back", "cert, which was changed together with it")
    item = kv.range(keys.file("data/cert")).items[0]
    assert item.value == future
    kv.txn((), (Put(cert.key, cert.value), Put(key.key, key.value)))
    over("data/cert", "held back")


def test_a_set_that_finds_no_space(replica, told, over, set_of, tmp_path):
    set_of(cert=b"1", key=b"1")
    one = replica("one")
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "test", str(one.folder)], check=True)
    try:
        one.start().ready()
        set_of(cert=b"2" * 300_000, key=b"2")
        told("data/cert: ", "no space left", "larger size")
        told("data/key: held back", "cert, which was changed together with it")
        assert (one.folder / "key").read_bytes() == b"1"
        subprocess.run(["mount", "-o", "remount,size=4m", str(one.folder)], check=True)
        over("data/cert", "held back")
    finally:
        one.__exit__()
        subprocess.run(["umount", "-l", str(one.folder)], check=True)


def test_names_of_any_bytes_are_said_in_a_form_that_can_be_typed(replica, told, over):
    one = replica("one").start().ready()
    folder = os.fsencode(one.folder)
    names = [b"a\nb", b"caf\xe9", b"-x\x01"]
    for name in names:
        with open(folder + b"/" + name, "w") as file:
            file.write("x")
    os.symlink("/etc/passwd", folder + b"/it's a \xc3\xa4 link")
    words = [r"$'a\x0ab'", r"$'caf\xe9'", r"$'-x\x01'", r"'data/it'\''s a ä link'"]
    lines = [told(word) for word in words]
    assert all("control character" in line or "UTF-8" in line or "absolute" in line for line in lines)
    for word, name in zip(words, names, strict=False):
        subprocess.run(["bash", "-c", f"cd '{one.folder}' && rm -- {word}"], check=True)
        assert not os.path.lexists(folder + b"/" + name)
    (one.folder / "it's a ä link").unlink()
    over("$'", "link")


def test_the_last_line_of_a_check_that_fails(replica, told, over, set_of):
    script = "if grep -q bad a; then echo first; echo the reason; exit 3; fi"
    one = replica("one", f'check = ["sh", "-c", "{script}"]').start().ready()
    set_of(a=b"bad\n", b=b"good\n")
    told("data/a, data/b: refused by the check: sh: ended with exit code 3: the reason")
    set_of(a=b"good\n")
    over("refused by the check")
    wait_until(lambda: (one.folder / "a").read_bytes() == b"good\n", SOON)


def test_what_waits_is_named_to_who_waits_for_it(replica, configstore, set_of, tmp_path):
    set_of(cert=b"1", key=b"1")
    one = replica("one").start().ready()
    os.link(one.folder / "cert", tmp_path / "second-name")
    set_of(cert=b"2", key=b"2")
    wait_until(lambda: one.metric("problems") == 2, SOON)
    for whose in ("here", "all"):
        done = one.client("wait", "data", "--applied", whose, "--timeout", "1s")
        words = done.communicate(timeout=60)[1]
        assert ("cert: " in words, "hard link" in words, done.returncode) == (True, True, 1), words
    configstore("wait", "data", "--applied", "all", "--patience", "1s", "--socket", "", code=1)


def test_a_flush_from_afar_names_what_is_not_sent(replica, told, configstore):
    one = replica("one").start().ready()
    with (one.folder / "log").open("w") as file:
        file.write("half")
        file.flush()
        told("data/log: ")
        configstore("flush", "data", "--socket", "", code=1)
    wait_until(lambda: configstore("ls", "data") == b"log\n", SOON)
    configstore("flush", "data", "--socket", "")


def test_the_stop_names_what_it_could_not_send(replica, told):
    one = replica("one").start().ready()
    with (one.folder / "a log").open("w") as file:
        file.write("half")
        file.flush()
        told("'data/a log': ")
        assert one.end() == 1
    (line,) = [line for line in one.lines() if "could not be sent" in str(line["message"])]
    assert (line["path"], "open for writing" in line["reason"]) == ("a log", True)


@contextlib.contextmanager
def dead_file_system(folder):
    """Mount a file system at a folder that answers nobody: whoever looks at it waits."""
    device = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={device},rootmode=40000,user_id=0,group_id=0".encode()
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        assert libc.mount(b"dead", os.fsencode(folder), b"fuse", 0, options) == 0, os.strerror(ctypes.get_errno())
        yield
    finally:
        os.close(device)  # now it answers everybody: with an error
        subprocess.run(["umount", "-l", str(folder)], check=False)


def test_an_engine_that_hangs_is_named_and_fails_livez_and_is_well_again_afterwards(replica, told, over):
    one = replica("one", 'rescan = "2s"').start().ready()
    folder = one.folder / "hangs"
    folder.mkdir()
    wait_until(lambda: one.metric("paths") == 1, SOON)
    assert one.ask("/livez")[0] == 200
    with dead_file_system(folder):
        wait_until(lambda: one.ask("/livez")[0] == 503, 60 + SOON, what="a hanging engine to fail /livez")
        assert "data: one step has taken" in one.ask("/livez")[1]
        told("one@", "one step has taken", "restart the sidecar")
    wait_until(lambda: one.ask("/livez")[0] == 200, SOON)
    over("one step has taken")

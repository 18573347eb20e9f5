"""What a scan finds: changes, problems, and never a delete that is none."""

import errno
import os
import pwd
import shutil
import socket
import subprocess
import time

import pytest

from configstore.files import reader
from configstore.files.reading import signature
from configstore.model.path import StorePath, unsafe_target
from configstore.model.record import MAX_SIZE, Kind
from configstore.model.selection import Symlinks
from sidecar.local import scan as scan_module
from sidecar.local.scan import Changed
from sidecar.planner.sides import LocalEntry
from tests.harness.waiting import wait_until
from tests.sidecar.local.named import (
    NOBODY,
    Mirrored,
    a_file,
    as_nobody,
    no_descriptors_left,
    open_descriptors,
    write,
)

RACY = 0.03  # seconds after which a file is no more taken to be racy


def aged(path):
    """Wait until a file was not changed just now."""
    wait_until(lambda: time.time_ns() - path.stat().st_ctime_ns > RACY * 1e9, what=f"{path} to be quiet")


# Files, directories, links


def test_new_files_are_found_with_all_that_is_to_be_known_of_them(here):
    write(here.path / "certs" / "key.pem", "secret", mode=0o600)
    found = here.scan()
    entry = found.changed["certs/key.pem"].entry
    assert (entry.kind, entry.mode, entry.size, entry.sha256) == (Kind.FILE, 0o600, 6, a_file("secret").sha256)
    assert (entry.uid, entry.gid, entry.user) == (os.geteuid(), os.getegid(), pwd.getpwuid(os.geteuid()).pw_name)
    assert found.changed["certs"].entry.kind is Kind.DIR
    assert not found.problems


def test_an_owner_without_a_name_is_a_number(here):
    if os.geteuid() != 0:
        pytest.fail("this test gives a file to another user, which needs root", pytrace=False)
    write(here.path / "file", "content")
    os.chown(here.path / "file", 54321, 54322)
    entry = here.scan().changed["file"].entry
    assert (entry.uid, entry.gid, entry.user, entry.group) == (54321, 54322, None, None)


def test_a_second_scan_finds_nothing(here):
    write(here.path / "certs" / "key.pem", "secret")
    here.scan()
    assert here.scan().changed == {}
    assert here.scan("", "certs").changed == {}


@pytest.mark.parametrize("where", [(), ("",), ("certs",)])
def test_only_what_changed_is_told(here, where):
    for name in ("file", "certs/one", "certs/two"):
        write(here.path / name, "content")
    here.scan()
    write(here.path / "file", "new content")
    write(here.path / "certs" / "one", "new content")
    expected = {(): {"file", "certs/one"}, ("",): {"file"}, ("certs",): {"certs/one"}}[where]
    assert here.scan(*where).changed.keys() == expected


def test_a_changed_mode_is_a_change(here):
    write(here.path / "file", "content", mode=0o644)
    here.scan()
    (here.path / "file").chmod(0o600)
    assert here.scan().changed["file"].entry.mode == 0o600


def test_gone_files_are_told(here):
    write(here.path / "certs" / "one", "content")
    write(here.path / "certs" / "two", "content")
    here.scan()
    (here.path / "certs" / "one").unlink()
    assert here.scan("certs").changed == {"certs/one": None}
    (here.path / "certs" / "two").unlink()
    assert here.scan().changed == {"certs/two": None}


def test_a_directory_that_is_gone_is_told_with_all_that_was_in_it(here):
    write(here.path / "a" / "b" / "file", "content")
    here.scan()
    (here.path / "a").rename(here.path.parent / "away")
    assert here.scan("").changed == {"a": None, "a/b": None, "a/b/file": None}


def test_a_directory_moved_within_is_gone_there_and_new_here(here):
    write(here.path / "a" / "b" / "file", "content")
    here.scan()
    (here.path / "a").rename(here.path / "z")
    changed = here.scan("").changed
    assert {path for path, entry in changed.items() if entry is None} == {"a", "a/b", "a/b/file"}
    assert {path for path, entry in changed.items() if entry} == {"z", "z/b", "z/b/file"}


@pytest.mark.parametrize("order", [("", "a"), ("a", "")])
def test_a_directory_moved_away_and_back_is_there_again_with_all_in_it(here, order):
    write(here.path / "a" / "b" / "file", "content")
    here.scan()
    (here.path / "a").rename(here.path.parent / "away")
    assert here.scan(*order).changed == {"a": None, "a/b": None, "a/b/file": None}
    (here.path.parent / "away").rename(here.path / "a")
    assert here.scan("").changed.keys() == {"a", "a/b", "a/b/file"}


def test_a_new_directory_is_looked_into_when_its_parent_is_scanned(here):
    here.scan()
    write(here.path / "a" / "b" / "file", "content")
    assert here.scan("").changed.keys() == {"a", "a/b", "a/b/file"}


def test_a_directory_swapped_for_another_is_seen_by_a_full_scan(here):
    write(here.path / "a" / "old", "content")
    here.scan()
    (here.path / "a").rename(here.path.parent / "away")
    write(here.path / "a" / "new", "content")
    changed = here.scan().changed
    assert changed["a/old"] is None
    assert changed["a/new"].entry.kind is Kind.FILE


@pytest.mark.parametrize("where", [(), ("",)])
@pytest.mark.parametrize("replacement", ["file", "symlink", "fifo"])
def test_a_directory_replaced_by_something_else_took_what_was_in_it_along(here, replacement, where):
    write(here.path / "a" / "b" / "file", "content")
    here.scan()
    (here.path / "a").rename(here.path.parent / "away")
    if replacement == "file":
        write(here.path / "a", "content")
    elif replacement == "symlink":
        (here.path / "a").symlink_to("elsewhere")
    else:
        os.mkfifo(here.path / "a")
    changed = here.scan(*where).changed
    assert changed["a/b"] is None
    assert changed["a/b/file"] is None


def test_what_was_applied_and_vanished_is_told(here):
    assert here.apply(here.file("a/file", "content")).done
    (here.path / "a").rename(here.path.parent / "away")
    assert here.scan("").changed["a/file"] is None


def test_a_directory_that_was_applied_is_still_looked_into(here):
    here.scan()
    here.apply(here.file("a/file", "content"))
    write(here.path / "a" / "other", "content")
    assert "a/other" in here.scan("").changed


def test_a_relative_symlink_is_mirrored_as_it_is(here):
    write(here.path / "archive" / "cert1.pem", "content")
    (here.path / "live").mkdir()
    (here.path / "live" / "cert.pem").symlink_to("../archive/cert1.pem")
    entry = here.scan().changed["live/cert.pem"].entry
    assert (entry.kind, entry.target, entry.mode) == (Kind.SYMLINK, "../archive/cert1.pem", 0)


def test_symlinks_are_refused_where_the_mapping_says_so(mirrored):
    here = mirrored(symlinks=Symlinks.REFUSE)
    (here.path / "link").symlink_to("file")
    found = here.scan()
    assert "refuses" in found.problems["link"].reason
    assert found.changed == {}


# Symlinks resolved


def test_a_resolved_symlink_is_what_it_points_to(mirrored):
    here = mirrored(symlinks=Symlinks.RESOLVE)
    write(here.path / "file", "content", mode=0o600)
    (here.path / "link").symlink_to("file")
    entry = here.scan().changed["link"].entry
    assert (entry.kind, entry.mode, entry.sha256) == (Kind.FILE, 0o600, a_file("content").sha256)
    assert here.scan().changed == {}


def test_a_resolved_symlinks_new_content_is_found(mirrored):
    here = mirrored(symlinks=Symlinks.RESOLVE)
    write(here.path / "file", "content")
    (here.path / "link").symlink_to("file")
    here.scan()
    write(here.path / "file", "new content")
    assert here.scan("").changed["link"].entry.sha256 == a_file("new content").sha256


@pytest.mark.parametrize("target", ["../outside", "/etc/passwd", "missing", "directory", "link"])
def test_a_symlink_that_cannot_be_resolved_inside_is_a_problem(mirrored, target):
    here = mirrored(symlinks=Symlinks.RESOLVE)
    (here.path.parent / "outside").write_text("secret")
    (here.path / "directory").mkdir()
    (here.path / "link").symlink_to(target)
    found = here.scan()
    assert found.problems.keys() == {"link"}
    assert found.changed.keys() <= {"directory"}


def test_a_resolved_symlink_gives_way_to_the_stores_file(mirrored):
    here = mirrored(symlinks=Symlinks.RESOLVE)
    write(here.path / "file", "content")
    (here.path / "link").symlink_to("file")
    here.scan()
    assert here.apply(here.file("link", "from the store")).done.keys() == {"link"}
    assert (here.path / "link").read_text() == "from the store"
    assert (here.path / "file").read_text() == "content"


# What cannot be mirrored


@pytest.mark.parametrize(
    ("target", "unsafe"),
    [
        ("file", False),
        ("../file", False),
        ("../../x", True),
        ("./.././file", False),
        ("./../b/./c", False),
        ("b/../../file", True),
        ("b/../c", True),
        ("../b/..", True),
        ("..//../x", True),
        ("b/../../../file/..", True),
        ("/etc/passwd", True),
        ("..", False),
        ("../..", True),
    ],
)
def test_a_links_target_is_judged_by_its_text(target, unsafe):
    assert (unsafe_target(StorePath("a/link"), target) is not None) is unsafe


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside"])
def test_a_link_that_leads_out_is_a_problem(here, target):
    (here.path / "link").symlink_to(target)
    found = here.scan()
    assert found.problems.keys() == {"link"}
    assert found.changed == {}


def test_a_fifo_and_a_socket_are_problems_and_hold_nothing_up(here):
    os.mkfifo(here.path / "fifo")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(here.path / "socket"))
        found = here.scan()
    assert found.problems.keys() == {"fifo", "socket"}
    assert found.changed == {}


def test_a_device_is_a_problem(here):
    if os.geteuid() != 0:
        pytest.fail("this test makes a device node, which needs root", pytrace=False)
    os.mknod(here.path / "null", 0o20666, os.makedev(1, 3))
    assert here.scan().problems.keys() == {"null"}


def test_a_hard_link_to_a_file_elsewhere_is_a_problem(here):
    (here.path.parent / "outside").write_text("secret")
    os.link(here.path.parent / "outside", here.path / "file")
    found = here.scan()
    assert "2 hard links" in found.problems["file"].reason
    assert found.changed == {}


def test_a_hard_link_is_looked_at_again_until_its_other_name_is_gone(here):
    write(here.path / "a" / "file", "content")
    os.link(here.path / "a" / "file", here.path.parent / "elsewhere")
    here.scan()
    assert here.scanner.unread == {"a"}
    (here.path.parent / "elsewhere").unlink()  # which changes nothing in `a`
    found = here.scan(*here.scanner.unread)
    assert found.cleared == {"a/file"}
    assert found.changed.keys() == {"a/file"}
    assert here.scanner.unread == set()


def test_setuid_bits_do_not_travel(here):
    write(here.path / "tool", "content")
    (here.path / "tool").chmod(0o6755)
    (here.path / "shared").mkdir()
    (here.path / "shared").chmod(0o3777)
    changed = here.scan().changed
    assert changed["tool"].entry.mode == 0o755
    assert changed["shared"].entry.mode == 0o777


def test_a_name_that_is_not_utf8_is_a_problem_that_can_be_printed(here):
    with open(os.fsencode(here.path) + b"/caf\xe9", "w") as file:
        file.write("content")
    os.mkdir(os.fsencode(here.path) + b"/d\xff")
    found = here.scan()
    assert sorted(found.problems) == ["caf\\udce9", "d\\udcff"]
    for problem in found.problems.values():
        assert "UTF-8" in problem.reason
        assert problem.shown() in {r"$'caf\xe9'", r"$'d\xff'"}
        assert problem.reason.encode()
    assert found.changed == {}


def test_a_name_with_a_newline_is_a_problem(here):
    write(here.path / "a\nb", "content")
    (problem,) = here.scan().problems.items()
    assert (problem[0], problem[1].shown()) == ("a\\nb", r"$'a\x0ab'")


def test_a_file_too_large_is_a_problem_and_is_not_read(here, monkeypatch):
    monkeypatch.setattr(reader, "digest_stable", lambda *_: pytest.fail("was read"))
    with (here.path / "file").open("wb") as file:
        file.truncate(MAX_SIZE + 1)
    assert f"at most {MAX_SIZE}" in here.scan().problems["file"].reason


def test_the_largest_file_is_mirrored(here):
    with (here.path / "file").open("wb") as file:
        file.truncate(MAX_SIZE)
    assert here.scan().changed["file"].entry.size == MAX_SIZE


def test_an_empty_file_is_a_problem_where_the_mapping_refuses_it(mirrored):
    here = mirrored(refuse_empty=("*.pem",))
    write(here.path / "certs" / "key.pem", "")
    write(here.path / "certs" / "other", "")
    found = here.scan()
    assert "empty" in found.problems["certs/key.pem"].reason
    assert "certs/other" in found.changed
    write(here.path / "certs" / "key.pem", "content")
    found = here.scan("certs")
    assert found.cleared == {"certs/key.pem"}
    assert found.changed["certs/key.pem"].entry.size == 7


def test_a_path_with_a_problem_is_touched_when_somebody_changed_it(here):
    for name in ("linked", "fifo"):
        write(here.path / name, "content")
    os.link(here.path / "linked", here.path / "other")
    (here.path / "fifo").unlink()
    os.mkfifo(here.path / "fifo")
    assert here.scan().touched == {"linked", "other", "fifo"}
    assert here.scan().touched == set()
    (here.path / "linked").write_text("changed")
    assert here.scan().touched == {"linked", "other"}


def test_a_problem_that_went_away_with_its_path_is_cleared(here):
    os.mkfifo(here.path / "fifo")
    here.scan()
    (here.path / "fifo").unlink()
    assert here.scan("").cleared == {"fifo"}


def test_a_problem_stays_while_it_lasts(here):
    os.mkfifo(here.path / "fifo")
    here.scan()
    found = here.scan("")
    assert found.problems.keys() == {"fifo"}
    assert found.cleared == set()


def test_a_mount_below_is_a_problem_and_no_delete(here, tmpfs):
    write(here.path / "a" / "file", "content")
    here.scan()
    mounted = tmpfs(here.path / "a")
    (mounted / "other").write_text("other")
    for where in ((), ("",), ("a",)):
        found = here.scan(*where)
        assert "another file system" in found.problems["a"].reason
        assert found.changed == {}


# Patterns


def test_only_what_is_included_and_not_excluded_is_found(mirrored):
    here = mirrored(include=("*.pem",), exclude=("*-chain.pem", "private/"))
    for name in ("a.pem", "a-chain.pem", "a.txt", "deep/er/b.pem", "private/c.pem"):
        write(here.path / name, "content")
    found = here.scan()
    assert {path for path, entry in found.changed.items() if entry.entry.kind is Kind.FILE} == {
        "a.pem",
        "deep/er/b.pem",
    }
    assert not found.problems


def test_what_is_excluded_may_be_anything(mirrored):
    here = mirrored(exclude=("*.sock", "strange-*"))
    os.mkfifo(here.path / "x.sock")
    (here.path / "strange-link").symlink_to("/etc/passwd")
    found = here.scan()
    assert (found.changed, found.problems) == ({}, {})


def test_our_own_directory_is_never_found(here):
    (here.path / ".configstore" / "baseline").write_text("ours")
    (here.path / "a").mkdir()
    (here.path / "a" / ".configstore").mkdir()
    assert here.scan().changed.keys() == {"a"}


def test_a_hole_belongs_to_another_mapping(mirrored):
    here = mirrored(holes=(StorePath("dkim"),))
    write(here.path / "dkim" / "key", "secret")
    write(here.path / "other", "content")
    assert here.scan().changed.keys() == {"other"}


def test_what_comes_and_goes_between_two_looks_of_one_scan_is_not_there(here):
    here.scan()
    write(here.path / "a" / "file", "content")
    looks = []

    def look(directory, _):
        looks.append(directory)
        if looks.count("a") == 2:
            (here.path / "a" / "file").unlink()

    here.scanner._ensure_watch = look
    assert here.scan("", "a").changed.keys() == {"a"}


# Files being written


def test_a_file_being_written_is_unstable_and_then_found_whole(here):
    with (here.path / "file").open("w") as file:
        file.write("half")
        file.flush()
        found = here.scan()
        assert found.unstable == {"file"}
        assert found.changed == {}
        file.write(" and whole")
    assert here.scan("").changed["file"].entry.size == len("half and whole")


def test_a_known_file_being_written_is_not_gone(here):
    write(here.path / "file", "content")
    here.scan()
    with (here.path / "file").open("a") as file:
        file.write(" more")
        file.flush()
        found = here.scan()
    assert found.unstable == {"file"}
    assert found.changed == {}


def forge(here, content):
    """Change a file as if the clock of its time stamps had not ticked: the signature known is the new one."""
    (here.path / "file").write_text(content)
    stale = LocalEntry(entry=here.known["file"].entry, signature=signature((here.path / "file").stat()))
    here.known["file"] = stale


def test_a_file_changed_within_one_tick_of_the_clock_is_found(here):
    (here.path / "file").write_text("one")
    here.scan()
    forge(here, "two")
    assert here.scan().changed["file"].entry.sha256 == a_file("two").sha256


def test_an_applied_file_changed_within_one_tick_of_the_clock_is_found(here):
    here.apply(here.file("file", "one"))
    forge(here, "two")
    assert here.scan().changed["file"].entry.sha256 == a_file("two").sha256


def test_a_file_that_is_long_unchanged_is_not_read_again(here):
    (here.path / "file").write_text("one")
    aged(here.path / "file")
    here.scan()
    forge(here, "two")
    assert here.scan().changed == {}
    assert here.scan(rehash=True).changed["file"].entry.sha256 == a_file("two").sha256


@pytest.mark.parametrize("swap", ["symlink", "fifo", "gone"])
def test_a_file_swapped_for_something_else_before_it_is_opened_is_not_read(here, monkeypatch, swap):
    (here.path.parent / "outside").write_text("secret")
    write(here.path / "file", "content")
    read = reader.Reader.read

    def late(self, path, *args):
        (here.path / "file").unlink()
        if swap == "symlink":
            (here.path / "file").symlink_to("../outside")
        elif swap == "fifo":
            os.mkfifo(here.path / "file")
        return read(self, path, *args)

    monkeypatch.setattr(reader.Reader, "read", late)
    found = here.scan()
    assert found.changed == {}
    assert found.problems.keys() == (set() if swap == "gone" else {"file"})


# Reading for a push


def test_content_is_read_for_a_push(here):
    write(here.path / "a" / "file", "content")
    here.scan()
    assert b"".join(here.scanner.pieces(StorePath("a/file"), here.known["a/file"].entry)) == b"content"


@pytest.mark.parametrize(
    "now", ["other content", "longer", "shorter", "missing", "symlink", "symlinked parent", "fifo", "open"]
)
def test_content_that_is_not_the_expected_any_more_is_never_read(here, now):
    write(here.path / "a" / "file", "content")
    here.scan()
    file, aside = here.path / "a" / "file", here.path / "aside"
    writer = None
    if now == "other content":
        write(file, "changed")
    elif now in {"longer", "shorter"}:
        write(file, {"longer": "content and more", "shorter": "cont"}[now])
    elif now == "open":
        writer = file.open("a")
    elif now == "symlinked parent":
        (here.path / "a").rename(aside)
        (here.path / "a").symlink_to("aside")
    else:
        file.rename(aside)
        if now == "symlink":
            file.symlink_to("../aside")
        elif now == "fifo":
            os.mkfifo(file)
    pieces, read = here.scanner.pieces(StorePath("a/file"), here.known["a/file"].entry), []
    with pytest.raises(Changed):
        read.extend(pieces)
    assert {len(piece) for piece in read} <= {len("content")}
    if writer:
        writer.close()


# Directories that cannot be read


@pytest.fixture
def unreadable(mirrored, theirs):
    """Return a mirrored directory, scanned without rights, with a file deep in one that can be closed."""
    with as_nobody():
        here = mirrored(theirs)
        write(here.path / "a" / "b" / "file", "content")
        write(here.path / "other", "content")
        here.scan()
    return here


@pytest.mark.parametrize("mode", [0o000, 0o300, 0o600, 0o400], ids=oct)
def test_a_directory_that_cannot_be_read_deletes_nothing(unreadable, mode):
    (unreadable.path / "a").chmod(mode)
    with as_nobody():
        for where in (("",), ("a",), ("", "a", "a/b"), (), ()):
            found = unreadable.scan(*where)
            assert None not in found.changed.values()
    assert "no permission" in str([problem.reason for problem in unreadable.problems.values()])
    assert {"a/b", "a/b/file"} <= unreadable.known.keys()


def test_a_directory_that_can_be_read_again_is_looked_into_at_once(unreadable):
    write(unreadable.path / "a" / "new", "content")
    (unreadable.path / "a" / "b" / "file").unlink()
    (unreadable.path / "a").chmod(0)
    with as_nobody():
        assert None not in unreadable.scan().changed.values()
        (unreadable.path / "a").chmod(0o755)
        found = unreadable.scan("")
    assert "a" in found.cleared
    assert "a/new" in found.changed
    assert unreadable.scan().changed == {"a/b/file": None}
    assert unreadable.problems == {}


def test_a_directory_that_was_never_readable_is_looked_into_once_it_is(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        write(here.path / "a" / "file", "content")
        (here.path / "a").chmod(0)
        assert here.scan().problems.keys() == {"a"}
        (here.path / "a").chmod(0o755)
        assert "a/file" in here.scan("").changed
    assert here.problems == {}


def test_a_root_that_cannot_be_read_deletes_nothing(unreadable):
    unreadable.path.chmod(0)
    with as_nobody():
        for where in ((), ("",), ("a",)):
            assert unreadable.scan(*where).changed == {}
    assert unreadable.problems[""].path == "/"
    unreadable.path.chmod(0o755)
    with as_nobody():
        unreadable.scan()
    assert unreadable.problems == {}


def test_a_root_that_was_removed_deletes_nothing(here):
    write(here.path / "file", "content")
    here.scan()
    shutil.rmtree(here.path)
    assert here.scan().changed == {}
    assert here.problems.keys() == {""}


def test_a_file_that_cannot_be_read_is_a_problem_and_no_delete(unreadable):
    write(unreadable.path / "other", "secret", mode=0)
    if os.geteuid() == 0:
        os.chown(unreadable.path / "other", NOBODY, NOBODY)
    with as_nobody():
        found = unreadable.scan()
    assert found.problems.keys() == {"other"}
    assert found.changed == {}


@pytest.mark.parametrize("spare", range(4))
def test_no_descriptors_left_deletes_nothing(here, spare):
    write(here.path / "a" / "b" / "file", "content")
    here.scan()
    with no_descriptors_left(spare):
        for where in ((), ("",), ("a", "a/b"), ()):
            found = here.scan(*where)
            assert found.changed == {}
    assert here.scan().changed == {}
    assert here.problems == {}


def test_no_descriptors_left_for_a_first_look_is_made_good(here):
    write(here.path / "a" / "b" / "file", "content")
    with no_descriptors_left(1):
        here.scan()
    assert here.problems
    here.scan()
    assert here.known.keys() == {"a", "a/b", "a/b/file"}
    assert here.problems == {}


class BrokenListing:
    """A listing that fails after its first name."""

    def __init__(self, listing):
        self.listing = listing

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.listing.close()

    def __iter__(self):
        yield next(self.listing)
        raise OSError(errno.EIO, os.strerror(errno.EIO))


@pytest.mark.parametrize("where", [(), ("a",), ("", "a", "a/b")])
def test_a_listing_that_breaks_off_deletes_nothing(here, where, monkeypatch):
    for name in ("a/one", "a/two", "a/b/file", "other"):
        write(here.path / name, "content")
    here.scan()
    scandir = os.scandir
    monkeypatch.setattr(scan_module.os, "scandir", lambda descriptor: BrokenListing(scandir(descriptor)))
    for _ in range(2):
        found = here.scan(*where)
        assert found.changed == {}
        assert found.problems.keys() == {"" if where == () else where[0], *where}
    monkeypatch.undo()
    assert here.scan().changed == {}
    assert here.problems == {}


def test_scans_leak_no_descriptors(mirrored, theirs):
    with as_nobody():
        here = mirrored(theirs)
        for name in ("a/file", "b/file", "closed/file"):
            write(here.path / name, "content")
        os.mkfifo(here.path / "fifo")
        (here.path / "link").symlink_to("/etc/passwd")
        (here.path / "a" / "hard").hardlink_to(here.path / "a" / "file")
        here.scan()
        (here.path / "closed").chmod(0)
        before = open_descriptors()
        for _ in range(3):
            here.scan()
            here.scan("", "a", "closed", "none")
        with no_descriptors_left(2):
            here.scan()
        assert open_descriptors() == before


def test_a_very_deep_tree_comes_and_goes(here):
    names = ["a"] * 1000
    for depth in range(1, len(names) + 1, 100):
        os.makedirs(here.path / "/".join(names[: depth + 99]))
    assert len(here.scan("").changed) == len(names)
    (here.path / "a").rename(here.path.parent / "away")
    try:
        assert set(here.scan("").changed.values()) == {None}
    finally:
        subprocess.run(["rm", "-r", here.path.parent / "away"], check=True)  # too deep for pytest to clean up
    assert here.known == {}


def test_directories_that_come_and_go_leave_nothing_behind_in_memory(here):
    def kept():
        return sum(map(len, kept_by(here.scanner).values()))

    here.scan()
    before = kept()
    for number in range(5):
        write(here.path / f"d{number}" / "sub" / "file", "content")
        os.mkfifo(here.path / f"d{number}" / "sub" / "fifo")
        here.scan("")
        (here.path / f"d{number}").rename(here.path.parent / f"away{number}")
        here.scan(f"d{number}", "", f"d{number}/sub")
    assert kept() == before


# Directories that go while they are read


@pytest.fixture
def while_read(monkeypatch):
    """Return a function to have something done when a certain file has just been read."""

    def hook(path, act):
        real = reader.Reader.read

        def read(self, found, *args):
            result = real(self, found, *args)
            if found == path:
                act()
            return result

        monkeypatch.setattr(reader.Reader, "read", read)

    return hook


@pytest.mark.parametrize("where", [(), ("",)])
@pytest.mark.parametrize("known", [False, True], ids=["new", "known"])
def test_a_directory_removed_while_it_is_read_leaves_nothing(here, while_read, where, known):
    if known:
        write(here.path / "a" / "before", "content")
        here.scan()
    for name in ("one", "two", "three"):
        write(here.path / "a" / name, "content")
    while_read("a/two", lambda: shutil.rmtree(here.path / "a", ignore_errors=True))
    here.scan(*where, *(["a"] if known and where else []))
    assert here.known == {}
    assert here.scan().changed == {}
    assert kept_by(here.scanner) == kept_by_a_new_one(here)


def kept_by(scanner):
    """Return what a scanner remembers of the directory, but for how it was listed."""
    kept = {name: each for name, each in vars(scanner).items() if isinstance(each, dict | set)}
    kept.pop("_listed")
    return kept


def kept_by_a_new_one(here):
    fresh = Mirrored(here.path)
    fresh.scan()
    fresh.close()
    return kept_by(fresh.scanner)


def test_a_listing_that_breaks_off_is_thrown_away_as_a_whole(here, monkeypatch):
    (here.path / "a").mkdir()
    here.scan()
    write(here.path / "a" / "one", "content")
    write(here.path / "a" / "two", "content")
    scandir = os.scandir
    with monkeypatch.context() as patch:
        patch.setattr(scan_module.os, "scandir", lambda descriptor: BrokenListing(scandir(descriptor)))
        assert here.scan("a").changed == {}
    assert here.scan("a").changed.keys() == {"a/one", "a/two"}


def test_a_full_scan_drops_what_nobody_remembers(here):
    write(here.path / "a" / "file", "content")
    here.scan()
    here.known["ghost/one"] = here.known["a/ghost"] = here.known["a/file"]
    assert here.scan("", "a").changed == {}
    assert here.scan().changed == {"ghost/one": None, "a/ghost": None}
    assert here.known.keys() == {"a", "a/file"}


def test_a_full_scan_drops_nothing_below_what_it_cannot_read(unreadable):
    unreadable.known["a/b/ghost"] = unreadable.known["a/ghost"] = unreadable.known["a/b/file"]
    (unreadable.path / "a" / "b").chmod(0)
    with as_nobody():
        gone = {path for path, found in unreadable.scan().changed.items() if found is None}
    assert gone == {"a/ghost"}
    assert "a/b/ghost" in unreadable.known


def test_a_file_closed_after_writing_is_read_again_whatever_its_signature(here):
    (here.path / "file").write_text("one")
    aged(here.path / "file")
    here.scan()
    forge(here, "two")
    assert here.scan("").changed == {}
    assert here.scan("", written={StorePath("file")}).changed["file"].entry.sha256 == a_file("two").sha256


def test_a_file_written_and_still_open_is_read_again_once_it_is_closed(here):
    (here.path / "file").write_text("one")
    aged(here.path / "file")
    here.scan()
    forge(here, "two")
    with (here.path / "file").open("a"):
        assert here.scan("", written={StorePath("file")}).unstable == {"file"}
    assert here.scan("").changed["file"].entry.sha256 == a_file("two").sha256


def test_our_own_directory_is_not_taken_wherever_it_was_moved_to(here):
    here.root.private.renew_mark()
    (here.path / ".configstore").rename(here.path / "moved")
    (here.path / "d").mkdir()
    found = here.scan()
    assert set(found.changed) == {"d"}
    assert "moved here: remove it" in found.problems["moved"].reason

"""When a look at the directory lets what it found travel: a real directory and watch, with a clock in hand."""

import os

import pytest

from configstore.model.path import StorePath
from sidecar.local.side import LocalSide
from sidecar.planner.settle import MAX_SETTLE
from sidecar.planner.sides import RemoteEntry, agreement
from sidecar.planner.three_sides import ThreeSides
from tests.sidecar.local.named import Mirrored, write


class Looked:
    """The local side of a directory. agreed: whether what lies there is what the store holds."""

    def __init__(self, path, watch):
        self.here = Mirrored(path, watch=watch, settle=0.25, delete_settle=1.0)
        self.now = 1000.0
        self.watch = watch
        self.begin(baseline={})

    def begin(self, baseline):
        self.sides = ThreeSides(baseline=baseline)
        self.side = LocalSide(
            self.here.mapping,
            self.sides,
            root=self.here.root,
            scanner=self.here.scanner,
            watch=self.watch,
            clock=lambda: self.now,
        )

    def agree(self):
        """Let what lies here be what the store holds."""
        self.side.refresh(flush=True)
        self.sides.agree(
            {
                path: agreement(local.entry, RemoteEntry(entry=local.entry, mod_revision=1), ino=1)
                for path, local in self.sides.local.items()
            }
        )

    def look(self, seconds=0.0):
        self.now += seconds
        self.side.refresh()
        return self.side.edits_settled


@pytest.fixture
def looked(tmp_path, woken):
    looked = Looked(tmp_path / "top", woken.watch)
    write(looked.here.path / "cert", "old")
    write(looked.here.path / "key", "old")
    looked.agree()
    yield looked
    looked.here.close()


def test_a_set_that_was_begun_while_nobody_looked_is_waited_for(looked):
    """A sidecar that starts between the two writes of a pair finds the first, and no event tells of it."""
    known = dict(looked.sides.baseline)
    write(looked.here.path / "cert", "new")
    looked.watch.drain()  # the process that was told of it is no more
    looked.begin(baseline=known)
    assert not looked.look()
    write(looked.here.path / "key", "new")
    assert not looked.look(0.2)
    assert not looked.look(0.2)
    assert looked.look(0.3)
    assert looked.sides.changed_here() == {"cert", "key"}


def test_a_start_that_finds_nothing_changed_waits_for_nothing(looked):
    looked.begin(baseline=dict(looked.sides.baseline))
    assert looked.look()


def test_a_file_that_stays_open_cuts_no_set_that_is_made_meanwhile(looked):
    """The set waits for it no longer than that; what was changed in the last moment is waited for all the same."""
    with (looked.here.path / "log").open("w") as log:
        log.write("line")
        log.flush()
        assert not looked.look()
        assert not looked.look(MAX_SETTLE - 0.1)
        write(looked.here.path / "cert", "new")
        assert not looked.look(0.05)
        write(looked.here.path / "key", "new")
        assert not looked.look(0.15)
        assert looked.look(0.3)
        assert looked.sides.changed_here() == {"cert", "key"}
        assert looked.sides.unstable == {StorePath("log")}


def test_a_file_that_stays_open_and_nothing_else_is_waited_for_a_second_in_all(looked):
    with (looked.here.path / "log").open("w") as log:
        log.write("line")
        log.flush()
        write(looked.here.path / "cert", "new")
        assert not looked.look()
        assert not looked.look(0.3)
        assert looked.side.until_next() <= MAX_SETTLE
        assert looked.look(MAX_SETTLE)


def test_a_set_is_not_quiet_while_the_kernel_has_news_that_no_thread_has_read_yet(looked):
    write(looked.here.path / "cert", "new")
    assert not looked.look()
    os.eventfd_write(looked.watch._end, 1)  # the thread that reads events gets no turn any more
    looked.watch._thread.join()
    write(looked.here.path / "key", "new")
    assert not looked.look(0.3)
    assert looked.look(0.3)
    assert looked.sides.changed_here() == {"cert", "key"}


def test_deletes_that_have_settled_are_no_reason_to_look_again(looked):
    """They wait for something else then, such as a lease or a person, and a core must not."""
    os.unlink(looked.here.path / "cert")
    looked.look()
    looked.look(0.3)
    assert not looked.side.deletes_settled
    assert 0 < looked.side.until_next() <= 1.0
    looked.look(1.0)
    assert looked.side.deletes_settled
    assert looked.side.until_next() > 1.0

"""When what lies in the directory is looked at, and what of it may travel."""

import pytest

from sidecar.local.scan import ScanResult
from sidecar.local.side import LOOK_AGAIN, NAMED_AFTER, LocalSide
from sidecar.local.watch import Dirty
from sidecar.planner.three_sides import ThreeSides
from tests.sidecar.planner.named import a_file, a_mapping, agreed_on, here

SETTLE = 0.25


class FakeWatch:
    """Tells what a test says happened."""

    limitation = None

    def __init__(self):
        self.happened = []

    def drain(self):
        return self.happened.pop(0) if self.happened else Dirty()

    def tell(self, *directories, written=()):
        self.happened.append(Dirty(directories=set(directories), written=set(written)))


class FakeScanner:
    """Finds what a test says lies there, and remembers where it was asked to look."""

    limitation = None

    def __init__(self):
        self.asked = []
        self.unread = set()
        self.finds = []
        self.meanwhile = lambda: None

    def scan(self, directories, known, *, written=(), rehash=False):
        self.asked.append((directories, set(written), rehash))
        self.meanwhile()
        return self.finds.pop(0) if self.finds else ScanResult()


class World:
    """A local side with fake senses and a clock that the test moves."""

    def __init__(self):
        self.now = 1000.0
        self.sides, self.watch, self.scanner = ThreeSides(), FakeWatch(), FakeScanner()
        self.side = LocalSide(
            a_mapping(settle=SETTLE),
            self.sides,
            root=None,
            scanner=self.scanner,
            watch=self.watch,
            clock=lambda: self.now,
        )
        self.side.refresh()  # the first one is at everything
        self.scanner.asked.clear()

    def look(self, after=0.0):
        self.now += after
        self.side.refresh()
        return self.side.edits_settled

    def write(self, *paths, after=0.0, open_for_writing=()):
        """Have files be written, which is told at once."""
        self.now += after
        self.watch.tell("", written=set(paths))
        self.scanner.finds.append(
            ScanResult(
                changed={path: here(a_file(str(self.now))) for path in paths}, unstable=set(open_for_writing)
            )
        )


@pytest.fixture
def world():
    return World()


def test_a_set_is_looked_at_when_it_has_settled_and_travels_then(world):
    world.write("cert")
    assert not world.look()
    assert world.scanner.asked == []
    assert world.look(after=SETTLE)
    assert world.scanner.asked == [({""}, {"cert"}, False)]
    assert world.sides.changed_here() == {"cert"}


def test_two_files_within_the_window_are_one_set(world):
    world.write("cert")
    world.look()
    world.write("key", after=0.2)
    assert not world.look()
    assert world.look(after=SETTLE)
    assert world.scanner.asked == [({""}, {"cert", "key"}, False)]


def test_news_that_come_in_during_a_look_belong_to_the_set(world):
    world.write("cert")
    world.look()

    def meanwhile():
        world.scanner.meanwhile = lambda: None
        world.watch.tell("", written={"key"})

    world.scanner.meanwhile = meanwhile
    assert not world.look(after=SETTLE), "half of the set would travel"
    world.scanner.finds.append(ScanResult(changed={"key": here(a_file("k"))}))
    assert world.look(after=SETTLE)
    assert world.sides.set_of("cert") == world.sides.set_of("key") != 0


def test_a_file_that_is_still_being_written_keeps_its_set_open_but_not_for_ever(world):
    world.write("cert", open_for_writing={"key"})
    world.look()
    assert not world.look(after=SETTLE)
    world.scanner.finds += [ScanResult(unstable={"key"})] * 50
    looks = 0
    while not world.look(after=0.25):
        looks += 1
        assert looks < 10
    assert looks >= 1


def test_a_file_that_stays_open_does_not_switch_off_the_window_of_the_next_sets(world):
    world.scanner.finds.append(ScanResult(unstable={"log"}))
    world.watch.tell("")
    world.look()
    while not world.look(after=0.5):
        world.scanner.finds.append(ScanResult(unstable={"log"}))
    for _ in range(3):
        world.write("cert", after=10.0, open_for_writing={"log"})
        assert not world.look(), "the window is off"
        assert world.look(after=SETTLE), "the open file delays a set that it is no part of"


def test_what_could_not_be_read_is_looked_at_again_and_is_nothing_new(world):
    world.scanner.unread = {"d"}
    world.watch.tell("d")
    world.look()
    assert world.look(after=SETTLE)
    world.scanner.asked.clear()
    assert world.side.until_next() <= LOOK_AGAIN
    assert world.look(after=LOOK_AGAIN), "a second look must not hold edits up"
    assert world.scanner.asked == [({"d"}, set(), False)]


def test_a_file_that_stays_open_gets_a_name_and_loses_it_when_it_is_closed(world):
    world.write("log", open_for_writing={"log"})
    world.look()
    world.look(after=SETTLE)
    assert world.side.open_problems() == {}
    world.scanner.finds += [ScanResult(unstable={"log"})] * 2
    world.look(after=NAMED_AFTER)
    assert "open for writing" in world.side.open_problems()["log"].reason
    world.scanner.finds.clear()
    world.write("log")
    world.look()
    world.look(after=SETTLE)
    assert world.side.open_problems() == {}


def test_deletes_wait_for_deletes_and_for_nothing_else(world):
    for name in ("a", "b"):
        world.sides.agree({name: agreed_on(a_file())})
        world.sides.note_placed(name, here(a_file()))
    world.watch.tell("")
    world.scanner.finds.append(ScanResult(changed={"a": None}))
    world.look()
    world.look(after=SETTLE)
    assert not world.side.deletes.settled(world.now)
    for _ in range(5):
        world.write("busy", after=0.3)
        world.look()
    assert world.side.deletes.settled(world.now)


def test_it_never_asks_to_be_woken_at_once_for_what_it_can_do_nothing_about(world):
    world.sides.agree({"a": agreed_on(a_file())})
    world.sides.note_placed("a", here(a_file()))
    world.watch.tell("")
    world.scanner.finds.append(ScanResult(changed={"a": None}))
    world.look()
    world.look(after=10.0)
    assert world.side.until_next() > 0.0, (
        "a delete that may not travel, as while a mapping is halted, keeps it busy"
    )


def test_everything_is_read_again_from_time_to_time(world):
    rehashed = []
    for _ in range(30):
        world.look(after=61.0)
        rehashed += [rehash for directories, _, rehash in world.scanner.asked if directories is None]
        world.scanner.asked.clear()
    assert 2 <= sum(rehashed) <= 4
    assert len(rehashed) >= 25

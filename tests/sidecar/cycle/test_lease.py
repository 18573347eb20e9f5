"""What lies here unsent gives way when another may have held the lease since, and at no other time."""

from types import SimpleNamespace

import pytest

from configstore.store.values import Fence
from sidecar.cycle.lease import MappingLease

FENCE = Fence(name="job", key=b"/configstore/leases/job/1", token=1)


class View:
    """A lease as the holds see it."""

    held, lost, history = None, 0, 10

    def fence(self):
        return self.held

    def losses(self):
        return self.lost

    def known(self):
        return self.history


@pytest.fixture
def view():
    return View()


@pytest.fixture
def sides():
    """Return the sides of a mapping where nothing lies unsent."""
    return SimpleNamespace(changed_in_store=(), local_problems={}, unstable=set(), changed_here=set, clean_at=0)


@pytest.fixture
def lease(view, sides):
    """Return the lease of a mapping where nothing lay unsent when the history was known up to revision 10."""
    made = MappingLease(view, SimpleNamespace(sides=sides, clean=lambda at: setattr(sides, "clean_at", at)))
    made.begin_cycle(0)
    made.scanned()
    assert sides.clean_at == 10
    return made


@pytest.mark.parametrize(
    ("others", "held", "lost", "yields"),
    [
        (None, None, 0, False),
        (10, None, 0, False),
        (11, None, 0, True),
        (11, FENCE, 0, False),
        (10, None, 1, True),
    ],
    ids=["nobody asked", "held before", "held since", "held here", "lost here"],
)
def test_it_yields_to_who_held_it_since(lease, view, others, held, lost, yields):
    view.held, view.lost = held, lost
    lease.begin_cycle(0)
    lease.yield_to(others)
    assert lease.yields is yields


def test_what_lies_unsent_is_as_old_as_the_last_look_that_found_nothing(lease, view, sides):
    sides.changed_here = lambda: {"a"}
    view.history = 20
    lease.begin_cycle(0)
    lease.scanned()
    lease.yield_to(15)
    assert lease.yields, "what was changed after 10 may have been changed before 15"


def test_while_the_history_is_not_known_nothing_is_remembered(lease, view):
    view.history = None
    lease.begin_cycle(30)
    lease.scanned()
    lease.yield_to(20)
    assert lease.yields

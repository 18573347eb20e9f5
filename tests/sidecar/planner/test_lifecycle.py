"""How a mapping stands to its store: each transition with its reason, and docs/lifecycle.md as the code has it.

`python -m tests.sidecar.planner.test_lifecycle` prints the tables of the document.
"""

import re
from pathlib import Path

import pytest

from configstore.model.path import ROOT
from configstore.model.replica import Take
from sidecar.planner.lifecycle import (
    APPLYING,
    ASKING,
    PUSHING,
    TRANSITIONS,
    Lifecycle,
    LifecycleEvent,
    Phase,
    phase_text,
)
from tests.sidecar.planner.named import a_mapping

DOCUMENT = Path(__file__).parents[3] / "docs/lifecycle.md"

_OTHER_STORE = "what is known speaks of another store, so nothing may be concluded from this one"
_MADE = "`configstore mkdir`, `bootstrap` or `import` made it, or a replica that wrote all of it again"
_VANISHED = "a root goes by a tombstone only: a raw delete, or an etcd that was wiped"
_REMOVED = "`configstore rm -r` of the subtree: a person wanted it gone"
_TAKEN = "somebody put a file or a link there, or what cannot be read"

LINES = (
    (Phase.UNKNOWN, LifecycleEvent.LISTED, Phase.ROOTLESS, "all records are known; its root is told right after"),
    (Phase.UNKNOWN, LifecycleEvent.CONTRADICTED, Phase.FROZEN, "the baseline speaks of another store"),
    (Phase.FOLLOWING, LifecycleEvent.ROOT_IS_THERE, Phase.FOLLOWING, "nothing changed but, maybe, its mode"),
    (Phase.FOLLOWING, LifecycleEvent.ROOT_IS_MISSING, Phase.ROOTLESS, _VANISHED),
    (Phase.FOLLOWING, LifecycleEvent.ROOT_IS_DELETED, Phase.DELETED, _REMOVED),
    (Phase.FOLLOWING, LifecycleEvent.ROOT_IS_OTHER, Phase.TAKEN, _TAKEN),
    (Phase.FOLLOWING, LifecycleEvent.CONTRADICTED, Phase.FROZEN, _OTHER_STORE),
    (Phase.ROOTLESS, LifecycleEvent.ROOT_IS_THERE, Phase.FOLLOWING, _MADE),
    (Phase.ROOTLESS, LifecycleEvent.ROOT_IS_MISSING, Phase.ROOTLESS, "nobody made it yet"),
    (Phase.ROOTLESS, LifecycleEvent.ROOT_IS_DELETED, Phase.DELETED, _REMOVED),
    (Phase.ROOTLESS, LifecycleEvent.ROOT_IS_OTHER, Phase.TAKEN, _TAKEN),
    (Phase.ROOTLESS, LifecycleEvent.WRITE_AGAIN, Phase.REWRITING, "a person chose the files of this replica"),
    (Phase.ROOTLESS, LifecycleEvent.CONTRADICTED, Phase.FROZEN, _OTHER_STORE),
    (Phase.REWRITING, LifecycleEvent.ROOT_IS_THERE, Phase.FOLLOWING, "all was written, and the root last"),
    (Phase.REWRITING, LifecycleEvent.ROOT_IS_MISSING, Phase.REWRITING, "written last: until then it is missing"),
    (Phase.REWRITING, LifecycleEvent.ROOT_IS_DELETED, Phase.DELETED, _REMOVED),
    (Phase.REWRITING, LifecycleEvent.ROOT_IS_OTHER, Phase.TAKEN, _TAKEN),
    (Phase.REWRITING, LifecycleEvent.CONTRADICTED, Phase.FROZEN, _OTHER_STORE),
    (Phase.DELETED, LifecycleEvent.ROOT_IS_THERE, Phase.FOLLOWING, _MADE),
    (Phase.DELETED, LifecycleEvent.ROOT_IS_MISSING, Phase.ROOTLESS, "the tombstone itself vanished"),
    (Phase.DELETED, LifecycleEvent.ROOT_IS_DELETED, Phase.DELETED, "it is still deleted"),
    (Phase.DELETED, LifecycleEvent.ROOT_IS_OTHER, Phase.TAKEN, _TAKEN),
    (Phase.DELETED, LifecycleEvent.CONTRADICTED, Phase.FROZEN, _OTHER_STORE),
    (Phase.TAKEN, LifecycleEvent.ROOT_IS_THERE, Phase.FOLLOWING, "a directory lies there again"),
    (Phase.TAKEN, LifecycleEvent.ROOT_IS_MISSING, Phase.ROOTLESS, "what lay there was deleted by hand in etcd"),
    (Phase.TAKEN, LifecycleEvent.ROOT_IS_DELETED, Phase.DELETED, "`configstore rm` removed what lay there"),
    (Phase.TAKEN, LifecycleEvent.ROOT_IS_OTHER, Phase.TAKEN, "it still lies there"),
    (Phase.TAKEN, LifecycleEvent.CONTRADICTED, Phase.FROZEN, _OTHER_STORE),
    (Phase.FROZEN, LifecycleEvent.LISTED, Phase.ROOTLESS, "the right store is back; its root is told right after"),
    (Phase.FROZEN, LifecycleEvent.CHOSEN, Phase.UNKNOWN, "a person accepted this store; it is listed anew"),
)  # fmt: skip
"""Every transition, with its reason in phase_text."""

REASONS = {(phase, event): why for phase, event, _, why in LINES}


def yes(answer):
    return "yes" if answer else "no"


def phases():
    """Return the lines of the table of phases, its head included."""
    rows = [
        f"| {phase} | {yes(phase in PUSHING)} | {yes(phase in APPLYING)} | {yes(phase in ASKING)} |"
        for phase in Phase
    ]
    return ["| phase | sends | applies | asks for a listing |", "|---|---|---|---|", *rows]


def transitions():
    """Return the lines of the table of transitions, its head included."""
    rows = [
        f"| {phase} | {event} | {becomes} | {REASONS.get((phase, event), '?')} |"
        for phase, events in TRANSITIONS.items()
        for event, becomes in events.items()
    ]
    return ["| phase | what happens | then | because |", "|---|---|---|---|", *rows]


@pytest.mark.parametrize(("phase", "event", "becomes", "why"), LINES, ids=lambda value: str(value)[:40])
def test_each_transition_leads_where_its_reason_says(phase, event, becomes, why):
    assert Lifecycle(phase=phase).after(event, reason="r", take=Take.STORE).phase is becomes, why


def test_whatever_is_not_named_changes_nothing():
    named = {(phase, event) for phase, event, _, _ in LINES}
    others = [(phase, event) for phase in Phase for event in LifecycleEvent if (phase, event) not in named]
    assert others
    for phase, event in others:
        assert Lifecycle(phase=phase).after(event, reason="r", take=Take.STORE).phase is phase, (phase, event)


def test_every_phase_leads_back_to_following():
    def reachable(phase):
        found, todo = {phase}, [phase]
        while todo:
            new = {becomes for at, _, becomes, _ in LINES if at is todo[0]} - found
            found |= new
            todo = [*todo[1:], *new]
        return found

    assert all(Phase.FOLLOWING in reachable(phase) for phase in Phase)


def test_what_a_phase_waits_for_is_asked_for_by_the_value_itself():
    # A tombstone of the root is in the store: whatever follows upon it is told by the watch.
    assert {phase for phase in Phase if not Lifecycle(phase=phase).wants_listing} == {
        Phase.FOLLOWING,
        Phase.DELETED,
    }
    for phase in Phase:
        missed = Lifecycle(phase=phase).missed()
        assert missed.wants_listing
        assert missed.phase is phase


def test_a_person_s_choice_asks_for_a_listing_and_is_remembered_until_it_is_used():
    frozen = Lifecycle().after(LifecycleEvent.CONTRADICTED, reason="the revision went back")
    chosen = frozen.after(LifecycleEvent.CHOSEN, take=Take.LOCAL)
    assert chosen.wants_listing
    listed = chosen.after(LifecycleEvent.LISTED).after(LifecycleEvent.ROOT_IS_THERE)
    assert (listed.phase, listed.taking) == (Phase.FOLLOWING, Take.LOCAL)
    assert listed.side_taken().taking is None


def test_a_listing_ends_what_the_watch_kept_to_itself():
    assert not Lifecycle(phase=Phase.FOLLOWING).missed().after(LifecycleEvent.LISTED).wants_listing


def test_a_frozen_mapping_says_what_froze_it_and_no_later_reason():
    frozen = Lifecycle(phase=Phase.FOLLOWING).after(LifecycleEvent.CONTRADICTED, reason="first")
    again = frozen.after(LifecycleEvent.CONTRADICTED, reason="second")
    assert phase_text(again, a_mapping()) == "first"
    assert frozen.after(LifecycleEvent.LISTED).reason == ""


def test_only_what_may_be_applied_may_be_sent():
    assert PUSHING <= APPLYING
    assert not {Phase.UNKNOWN, Phase.ROOTLESS, Phase.TAKEN, Phase.FROZEN} & APPLYING


def test_a_mapping_that_follows_has_nothing_to_say_and_every_other_has():
    for phase in Phase:
        said = phase_text(Lifecycle(phase=phase, reason="frozen"), a_mapping())
        assert bool(said) is (phase is not Phase.FOLLOWING), phase


def documented():
    return DOCUMENT.read_text(encoding="utf-8")


def test_the_document_shows_the_tables_of_the_code():
    assert [line for line in documented().splitlines() if line.startswith("|")] == [*phases(), *transitions()]


def test_every_transition_of_the_code_has_its_reason():
    assert {(phase, event): becomes for phase, event, becomes, _ in LINES} == {
        (phase, event): becomes for phase, events in TRANSITIONS.items() for event, becomes in events.items()
    }


@pytest.mark.parametrize("phase", Phase)
def test_the_document_explains_each_phase_and_shows_what_an_operator_reads(phase):
    text = documented()
    assert re.search(rf"^## {phase}$", text, re.MULTILINE)
    flat = " ".join(text.split())
    said = [phase_text(Lifecycle(phase=phase), mapping) for mapping in (a_mapping(), a_mapping(store=ROOT))]
    for each in filter(None, said if phase is Phase.ROOTLESS else said[:1]):
        assert each in flat


if __name__ == "__main__":
    print("\n".join([*phases(), "", *transitions()]))

"""The three-way rules, one line each."""

import msgspec
import pytest

from configstore.model.selection import Direction
from sidecar.planner.reconcile import Verdict, as_pushed, decide
from tests.harness.named import GONE
from tests.sidecar.planner.named import a_dir, a_file, a_link, a_mapping, agreed_on, here, there

ONE, TWO, THREE = a_file("one"), a_file("two"), a_file("three")
BASE = agreed_on(ONE, 10)
SAME = there(ONE, 10)
V = Verdict

#  baseline, local, remote: both, pull only, push only, create once
TABLE = {
    "nothing anywhere": (None, None, None, V.NOTHING, V.NOTHING, V.NOTHING, V.NOTHING),
    "a tombstone nobody knew": (None, None, there(GONE), V.NOTHING, V.NOTHING, V.NOTHING, V.NOTHING),
    "new in the store": (None, None, there(ONE), V.PULL, V.PULL, V.NOTHING, V.PULL),
    "new here": (None, here(ONE), None, V.PUSH, V.LOCAL_ONLY, V.PUSH, V.PUSH),
    "new here over a tombstone": (None, here(ONE), there(GONE), V.PUSH, V.LOCAL_ONLY, V.PUSH, V.PUSH),
    "new on both sides, equal": (None, here(ONE), there(ONE), V.AGREE, V.AGREE, V.AGREE, V.AGREE),
    "new on both sides, different": (None, here(ONE), there(TWO), V.CONFLICT, V.CONFLICT, V.PUSH, V.CONFLICT),
    "unchanged": (BASE, here(ONE), SAME, V.NOTHING, V.NOTHING, V.NOTHING, V.NOTHING),
    "edited here": (BASE, here(TWO), SAME, V.PUSH, V.LOCAL_DRIFT, V.PUSH, V.CONFLICT),
    "deleted here": (BASE, None, SAME, V.PUSH, V.PULL, V.PUSH, V.PULL),
    "edited in the store": (BASE, here(ONE), there(TWO, 11), V.PULL, V.PULL, V.REMOTE_DRIFT, V.PULL),
    "rewritten equally in the store": (BASE, here(ONE), there(ONE, 11), V.AGREE, V.AGREE, V.AGREE, V.AGREE),
    "deleted in the store": (BASE, here(ONE), there(GONE, 11), V.PULL, V.PULL, V.REMOTE_DRIFT, V.PULL),
    "deleted on both sides": (BASE, None, there(GONE, 11), V.FORGET, V.FORGET, V.FORGET, V.FORGET),
    "edited equally on both": (BASE, here(TWO), there(TWO, 11), V.AGREE, V.AGREE, V.AGREE, V.AGREE),
    "edited on both": (BASE, here(TWO), there(THREE, 11), V.CONFLICT, V.CONFLICT, V.PUSH, V.CONFLICT),
    "edited here, deleted there": (BASE, here(TWO), there(GONE, 11), V.PUSH, V.LOCAL_ONLY, V.PUSH, V.PUSH),
    "deleted here, edited there": (BASE, None, there(TWO, 11), V.PULL, V.PULL, V.REMOTE_DRIFT, V.PULL),
    "vanished": (BASE, here(ONE), None, V.VANISHED, V.VANISHED, V.VANISHED, V.VANISHED),
    "vanished and edited here": (BASE, here(TWO), None, V.VANISHED, V.VANISHED, V.VANISHED, V.VANISHED),
    "vanished and deleted here": (BASE, None, None, V.FORGET, V.FORGET, V.FORGET, V.FORGET),
    "kind changed here": (BASE, here(a_dir()), SAME, V.PUSH, V.LOCAL_DRIFT, V.PUSH, V.CONFLICT),
    "kind changed there": (BASE, here(ONE), there(a_link(), 11), V.PULL, V.PULL, V.REMOTE_DRIFT, V.PULL),
    "mode changed here": (BASE, here(a_file("one", 0o644)), SAME, V.PUSH, V.LOCAL_DRIFT, V.PUSH, V.CONFLICT),
    "mode changed there": (
        BASE,
        here(ONE),
        there(a_file("one", 0o644), 11),
        V.PULL,
        V.PULL,
        V.REMOTE_DRIFT,
        V.PULL,
    ),
}
KNOWN = msgspec.structs.replace(BASE, write_id="w")
KNOWN_ELSE = msgspec.structs.replace(KNOWN, local=a_file("one", uid=7))  # it cannot show the owner
AGAIN = msgspec.structs.replace(there(ONE, 11), write_id="w")
TABLE |= {  # as of a record that was sealed with another key
    "stored again": (KNOWN, here(ONE), AGAIN, V.AGREE, V.AGREE, V.AGREE, V.AGREE),
    "stored again, not shown to the letter": (
        KNOWN_ELSE,
        here(a_file("one", uid=7)),
        AGAIN,
        V.AGREE,
        V.AGREE,
        V.AGREE,
        V.AGREE,
    ),
    "stored again, edited here": (KNOWN, here(TWO), AGAIN, V.PUSH, V.LOCAL_DRIFT, V.PUSH, V.CONFLICT),
    "stored again, deleted here": (KNOWN, None, AGAIN, V.PUSH, V.PULL, V.PUSH, V.PULL),
}
POLICIES = [
    a_mapping(),
    a_mapping(direction=Direction.PULL),
    a_mapping(direction=Direction.PUSH),
    a_mapping(create_once=True),
]


@pytest.mark.parametrize("policy", range(len(POLICIES)), ids=["both", "pull", "push", "create once"])
@pytest.mark.parametrize("case", TABLE)
def test_every_combination_has_its_verdict(case, policy):
    base, local, remote, *verdicts = TABLE[case]
    mapping = POLICIES[policy]
    verdict = decide(base, local, remote, mapping, pushes=mapping.direction is not Direction.PULL)
    assert verdict is verdicts[policy]


def test_an_owner_left_open_by_the_store_equals_any():
    remote = there(a_file("one", uid=None), 11)
    assert decide(BASE, here(ONE), remote, a_mapping(), pushes=True) is Verdict.AGREE


def test_a_forced_mode_is_no_difference():
    mapping = a_mapping(file_mode=0o640)
    assert decide(None, here(a_file("one", 0o640)), there(ONE), mapping, pushes=True) is Verdict.AGREE


def test_an_edit_keeps_the_owner_that_this_replica_could_not_show():
    base = agreed_on(ONE)
    base = type(base)(local=ONE, remote=a_file("one", uid=100), mod_revision=10)
    pushed = as_pushed(base, TWO, a_mapping())
    assert (pushed.uid, pushed.sha256) == (100, TWO.sha256)


def test_a_changed_owner_is_pushed():
    assert as_pushed(BASE, a_file("one", uid=100), a_mapping()).uid == 100

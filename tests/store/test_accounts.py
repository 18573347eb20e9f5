"""The contract of users and roles, by the double and by real etcds, and what brings them to a wanted state."""

import secrets

import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.errors import StoreError
from configstore.model.grants import Grant, Right
from configstore.store.accounts import ROOT, bring_about, everybody, judge, steps
from tests.harness.servers import connect
from tests.memory_store.accounts import MemoryAccounts

A = Grant(b"/r/a/", b"/r/a0", Right.READWRITE)
B = Grant(b"/r/b", b"", Right.READ)
WANTED = {"one": (A, B), "two": (B,)}


@pytest.fixture(scope="module")
def servers(binary_named):
    """Return the etcds by name, each started when it is first asked for."""
    started = {}

    def server(name):
        if name not in started:
            started[name] = EmbeddedEtcd(binary=binary_named(name))
            started[name].__enter__()
        return started[name]

    yield server
    for each in started.values():
        each.close()


@pytest.fixture(params=["memory", "wheel", "debian"])
def accounts(request, servers):
    """Return no users and no roles."""
    if request.param == "memory":
        yield MemoryAccounts()
        return
    with connect(servers(request.param).endpoint) as kv:
        for name in kv.accounts.users():
            kv.accounts.delete_user(name)
        for name in kv.accounts.roles():
            kv.accounts.delete_role(name)
        yield kv.accounts


def test_what_was_made_is_there_and_may_be_made_again(accounts):
    for _ in range(2):
        accounts.add_user("one")
        accounts.add_role("one")
        accounts.grant("one", A)
        accounts.grant("one", B)
        accounts.give_role("one", "one")
        assert accounts.users() == {"one": ("one",)}
        assert accounts.roles() == {"one": tuple(sorted((A, B)))}


def test_another_right_on_the_same_range_replaces_the_one_before(accounts):
    accounts.add_role("one")
    accounts.grant("one", A)
    weaker = Grant(A.start, A.end, Right.READ)
    accounts.grant("one", weaker)
    assert accounts.roles() == {"one": (weaker,)}


def test_what_was_taken_away_is_gone_and_may_be_taken_again(accounts):
    accounts.add_user("one")
    accounts.add_role("one")
    accounts.grant("one", A)
    accounts.give_role("one", "one")
    for _ in range(2):
        accounts.revoke("one", A)
        accounts.take_role("one", "one")
        assert (accounts.users(), accounts.roles()) == ({"one": ()}, {"one": ()})
    accounts.give_role("one", "one")
    for _ in range(2):
        accounts.delete_role("one")
        assert accounts.users() == {"one": ()}
    for _ in range(2):
        accounts.delete_user("one")
        assert (accounts.users(), accounts.roles()) == ({}, {})


def test_a_role_is_given_to_nobody_who_is_not_there(accounts):
    accounts.add_role("one")
    with pytest.raises(StoreError):
        accounts.give_role("nobody", "one")
    with pytest.raises(StoreError):
        accounts.grant("nothing", A)


def test_access_control_is_off_until_root_is_there(accounts):
    assert not accounts.enabled()
    with pytest.raises(StoreError):
        accounts.enable()
    assert not accounts.enabled()


def test_it_is_switched_on_and_off_by_a_user_with_a_password(accounts, servers, request):
    bring_about(accounts, {})
    password = secrets.token_hex(8)
    accounts.add_user("switch", password)
    accounts.give_role("switch", ROOT)
    accounts.enable()
    assert accounts.enabled()
    if isinstance(accounts, MemoryAccounts):
        return accounts.disable()
    name = request.node.callspec.params["accounts"]
    with connect(servers(name).endpoint, user="switch", password=password) as kv:
        assert kv.accounts.enabled()
        assert ROOT in kv.accounts.users()
        kv.accounts.disable()
    assert not accounts.enabled()
    return None


def test_all_that_is_wanted_is_made_once(accounts):
    made = []
    assert bring_about(accounts, WANTED, made.append) == len(made)
    assert [step.do for step in made[:3]] == ["add user", "add role", "give role"]
    assert {step.user for step in made[:3]} == {ROOT}, "root comes first"
    assert judge(everybody(accounts), WANTED) == []
    assert bring_about(accounts, WANTED) == 0


def test_it_goes_on_where_it_stopped_however_far_that_was(accounts):
    made = 0
    while left := list(steps(everybody(accounts), WANTED)):
        left[0].make(accounts)  # and then it is killed
        made += 1
    assert made > 5
    assert judge(everybody(accounts), WANTED) == []


def test_what_is_too_much_is_taken_away_and_others_are_left_alone(accounts):
    bring_about(accounts, WANTED)
    accounts.grant("one", Grant(b"/r/c", b"/r/d", Right.READ))
    accounts.grant("one", Grant(B.start, B.end, Right.READWRITE))
    accounts.add_role("more")
    accounts.give_role("two", "more")
    accounts.add_user("ann")
    accounts.give_role("ann", "more")
    wrong = judge(everybody(accounts), WANTED)
    assert {each.user for each in wrong} == {"one", "two"}
    assert any("more" in each.why for each in wrong)
    bring_about(accounts, WANTED)
    assert judge(everybody(accounts), WANTED) == []
    assert accounts.users()["ann"] == ("more",)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda to: to.delete_user("one"), "no such user"),
        (lambda to: to.delete_role("one"), "no such role"),
        (lambda to: to.take_role("one", "one"), "has not its role"),
        (lambda to: to.take_role(ROOT, ROOT), "no user root"),
    ],
)
def test_each_lack_is_named(accounts, spoil, why):
    bring_about(accounts, WANTED)
    spoil(accounts)
    assert why in judge(everybody(accounts), WANTED)[0].why
    bring_about(accounts, WANTED)
    assert judge(everybody(accounts), WANTED) == []


class Keeps(MemoryAccounts):
    """A server that keeps an older right beside a newer one on the same range."""

    def __init__(self):
        super().__init__()
        self.kept = set()

    def grant(self, role, grant):
        before = self._roles[role].get((grant.start, grant.end))
        if before and before != grant:
            self.kept.add((role, before))
        super().grant(role, grant)

    def revoke(self, role, grant):
        self.kept = {each for each in self.kept if each[1].start != grant.start}
        super().revoke(role, grant)

    def roles(self):
        return {
            name: tuple(sorted({*grants, *(each for role, each in self.kept if role == name)}))
            for name, grants in super().roles().items()
        }


def test_a_right_that_a_server_keeps_beside_its_successor_is_taken_away():
    accounts = Keeps()
    bring_about(accounts, WANTED)
    accounts.grant("one", Grant(B.start, B.end, Right.READWRITE))
    bring_about(accounts, WANTED)
    assert judge(everybody(accounts), WANTED) == []


class Stubborn(MemoryAccounts):
    """A server on which another hand changes roles all the time."""

    def roles(self):
        return dict.fromkeys(super().roles(), ())


def test_what_does_not_stay_is_told():
    with pytest.raises(StoreError, match="does another one change users"):
        bring_about(Stubborn(), WANTED)

"""The contract of etcd's users and roles, and the steps that bring them about. Called by `access` and `doctor`.

A service's user has no password: etcd takes its name from the certificate that it shows. Each user has one role
with the same name. `etcd.accounts.EtcdAccounts` implements the contract.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import methodcaller
from typing import Protocol

import msgspec

from configstore.errors import StoreError
from configstore.model.grants import Difference, Grant, difference

ROOT = "root"
"""The user and the role that may do everything. Without them etcd does not switch access control on."""

_LOOKS = 3
"""How often the accounts are read and changed: some servers keep a right beside the one that replaces it."""


class Accounts(Protocol):
    """Users and roles. Each change can be repeated without harm. Any call may raise what `Kv` raises."""

    def enabled(self) -> bool:
        """Return whether access control is on."""
        ...

    def users(self) -> dict[str, tuple[str, ...]]:
        """Return all users, each with its roles."""
        ...

    def roles(self) -> dict[str, tuple[Grant, ...]]:
        """Return all roles, each with what it grants."""
        ...

    def add_user(self, name: str, password: str | None = None) -> None:
        """Make a user; without a password it is known by its certificate alone."""
        ...

    def delete_user(self, name: str) -> None:
        """Remove a user."""
        ...

    def add_role(self, name: str) -> None:
        """Make a role that grants nothing."""
        ...

    def delete_role(self, name: str) -> None:
        """Remove a role, and take it from all users."""
        ...

    def give_role(self, user: str, role: str) -> None:
        """Give a user a role."""
        ...

    def take_role(self, user: str, role: str) -> None:
        """Take a role from a user."""
        ...

    def grant(self, role: str, grant: Grant) -> None:
        """Give a role a right on a range; another right on the same range is replaced."""
        ...

    def revoke(self, role: str, grant: Grant) -> None:
        """Take a range from a role, whatever right it has there."""
        ...

    def enable(self) -> None:
        """Switch access control on. Raises StoreError where `root` is not ready for it."""
        ...

    def disable(self) -> None:
        """Switch access control off."""
        ...


class Account(msgspec.Struct, frozen=True, kw_only=True):
    """One user: whether it and its role exist, whether it has its role, the role's grants, and its other roles."""

    user: bool = False
    role: bool = False
    given: bool = False
    grants: tuple[Grant, ...] = ()
    others: tuple[str, ...] = ()

    def differs(self, wants: Iterable[Grant]) -> Difference:
        """Return how its role's grants differ from the wanted ones."""
        return difference(self.grants, wants)


class Everybody(msgspec.Struct, frozen=True, kw_only=True):
    """All users and roles, as they were read once."""

    users: dict[str, tuple[str, ...]]
    roles: dict[str, tuple[Grant, ...]]

    def account(self, name: str) -> Account:
        """Return one user with the role of the same name."""
        given = self.users.get(name, ())
        return Account(
            user=name in self.users,
            role=name in self.roles,
            given=name in given,
            grants=self.roles.get(name, ()),
            others=tuple(sorted(set(given) - {name})),
        )

    def grants_of(self, user: str) -> tuple[Grant, ...]:
        """Return the grants of all of a user's roles."""
        return tuple(grant for role in self.users.get(user, ()) for grant in self.roles.get(role, ()))


def everybody(accounts: Accounts) -> Everybody:
    """Read all users and roles. Raises StoreError."""
    return Everybody(users=accounts.users(), roles=accounts.roles())


class AccountStep(msgspec.Struct, frozen=True, kw_only=True):
    """One change of an account. do: its name, for a person. make: makes it. grant: the range that it is about."""

    do: str
    user: str
    make: Callable[[Accounts], None]
    grant: Grant | None = None


def steps(found: Everybody, wanted: Mapping[str, Sequence[Grant]]) -> Iterator[AccountStep]:
    """Yield the changes that are missing, `root` first.

    Missing rights are given before others are taken away, so that a running service never lacks one that it needs.
    wanted: the grants of each user's role.
    """
    root = found.account(ROOT)
    if not root.user:
        yield AccountStep(do="add user", user=ROOT, make=lambda to: to.add_user(ROOT))
    if not root.role:
        yield AccountStep(do="add role", user=ROOT, make=lambda to: to.add_role(ROOT))
    if not root.given:
        yield AccountStep(do="give role", user=ROOT, make=lambda to: to.give_role(ROOT, ROOT))
    for name, grants in wanted.items():
        yield from _steps_of(name, found.account(name), grants)


def _steps_of(name: str, account: Account, grants: Sequence[Grant]) -> Iterator[AccountStep]:
    if not account.role:
        yield AccountStep(do="add role", user=name, make=lambda to: to.add_role(name))
    differs = account.differs(grants)
    for grant in differs.missing:
        yield _grant(name, grant)
    replaced = {(grant.start, grant.end) for grant in differs.missing}
    wanted = {(grant.start, grant.end): grant for grant in grants}
    for grant in differs.excess:
        at = (grant.start, grant.end)
        if at in replaced:
            continue  # the grant above replaced it
        yield _revoke(name, grant)
        if at in wanted:  # a server that had both has taken both away
            yield _grant(name, wanted[at])
    if not account.user:
        yield AccountStep(do="add user", user=name, make=lambda to: to.add_user(name))
    if not account.given:
        yield AccountStep(do="give role", user=name, make=lambda to: to.give_role(name, name))
    for other in account.others:
        yield AccountStep(do=f"take role {other}", user=name, make=methodcaller("take_role", name, other))


def _grant(role: str, grant: Grant) -> AccountStep:
    return AccountStep(do="grant", user=role, grant=grant, make=lambda to: to.grant(role, grant))


def _revoke(role: str, grant: Grant) -> AccountStep:
    return AccountStep(do="revoke", user=role, grant=grant, make=lambda to: to.revoke(role, grant))


class Wrong(msgspec.Struct, frozen=True, kw_only=True):
    """How a user differs from what is wanted: as text, and by the ranges that it lacks or has in excess."""

    user: str
    why: str = ""
    differs: Difference = Difference()


def judge(found: Everybody, wanted: Mapping[str, Sequence[Grant]]) -> list[Wrong]:
    """Return how the users that were read differ from what is wanted, `root` first."""
    wrong = []
    root = found.account(ROOT)
    if not (root.user and root.role and root.given):
        wrong.append(Wrong(user=ROOT, why="there is no user root with the role root"))
    for name, grants in wanted.items():
        account = found.account(name)
        if not account.user:
            wrong.append(Wrong(user=name, why="there is no such user"))
        if not account.role:
            wrong.append(Wrong(user=name, why="there is no such role"))
        elif account.user and not account.given:
            wrong.append(Wrong(user=name, why="it has not its role"))
        if account.others:
            wrong.append(Wrong(user=name, why=f"it has other roles, too: {', '.join(account.others)}"))
        if account.role and (differs := account.differs(grants)):
            wrong.append(Wrong(user=name, differs=differs))
    return wrong


def bring_about(
    accounts: Accounts, wanted: Mapping[str, Sequence[Grant]], told: Callable[[AccountStep], None] = lambda _: None
) -> int:
    """Make the changes that are missing, then read the accounts again; returns the number of changes.

    It goes on where an earlier call stopped. Raises StoreError.
    """
    count = 0
    for _ in range(_LOOKS):
        todo = list(steps(everybody(accounts), wanted))
        if not todo:
            return count
        for step in todo:
            step.make(accounts)
            told(step)
        count += len(todo)
    wrong = judge(everybody(accounts), wanted)
    if wrong:
        raise StoreError(f"user {wrong[0].user}: is not as it was made just now; does another one change users?")
    return count

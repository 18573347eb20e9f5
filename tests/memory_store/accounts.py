"""`MemoryAccounts`: the contract of `accounts`, kept in memory, for tests."""

from configstore.errors import StoreError
from configstore.model.grants import Grant
from configstore.store.accounts import ROOT


class MemoryAccounts:
    """Users and roles of nobody."""

    def __init__(self) -> None:
        self._users: dict[str, set[str]] = {}
        self._roles: dict[str, dict[tuple[bytes, bytes], Grant]] = {}
        self._enabled = False

    def enabled(self) -> bool:
        """Tell whether access control is on."""
        return self._enabled

    def users(self) -> dict[str, tuple[str, ...]]:
        """Return all users, each with its roles."""
        return {name: tuple(sorted(roles)) for name, roles in self._users.items()}

    def roles(self) -> dict[str, tuple[Grant, ...]]:
        """Return all roles, each with what it grants."""
        return {name: tuple(sorted(grants.values())) for name, grants in self._roles.items()}

    def add_user(self, name: str, password: str | None = None) -> None:
        """Make a user."""
        self._users.setdefault(name, set())

    def delete_user(self, name: str) -> None:
        """Remove a user."""
        self._users.pop(name, None)

    def add_role(self, name: str) -> None:
        """Make a role that grants nothing."""
        self._roles.setdefault(name, {})

    def delete_role(self, name: str) -> None:
        """Remove a role, and take it from all users."""
        self._roles.pop(name, None)
        for roles in self._users.values():
            roles.discard(name)

    def give_role(self, user: str, role: str) -> None:
        """Give a user a role."""
        if user not in self._users:
            raise StoreError(f"user {user}: not there")
        if role not in self._roles:
            raise StoreError(f"role {role}: not there")
        self._users[user].add(role)

    def take_role(self, user: str, role: str) -> None:
        """Take a role from a user."""
        self._users.get(user, set()).discard(role)

    def grant(self, role: str, grant: Grant) -> None:
        """Give a role a right on a range."""
        if role not in self._roles:
            raise StoreError(f"role {role}: not there")
        self._roles[role][grant.start, grant.end] = grant

    def revoke(self, role: str, grant: Grant) -> None:
        """Take a range from a role."""
        self._roles.get(role, {}).pop((grant.start, grant.end), None)

    def enable(self) -> None:
        """Switch access control on."""
        if ROOT not in self._users.get(ROOT, set()):
            raise StoreError("there is no user root with the role root")
        self._enabled = True

    def disable(self) -> None:
        """Switch access control off."""
        self._enabled = False

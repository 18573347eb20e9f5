"""`EtcdAccounts`, which implements the contract of `configstore.store.accounts` with an etcd cluster.

An answer of etcd's that a change was made already is not an error here, so that each change can be repeated. The
texts are those of etcd's api/v3rpc/rpctypes/error.go.
"""

from configstore.errors import AuthenticationError, ConfigstoreError, StoreError
from configstore.model.grants import Grant, Right
from configstore.model.keys import shown_key
from configstore.model.path import printable
from configstore.store.accounts import ROOT
from configstore.store.etcd.calls import Calls, unary
from configstore.store.etcd.messages import nonsense
from configstore.store.etcd.stubs import Message, rpc

_NO_PASSWORD = b"\x1a\x02\x08\x01"
"""AuthUserAddRequest.options.no_password = true: field 3, a message with field 1, a varint (etcd 3.4)."""

_NOBODY = "configstore-nobody"

_RIGHTS = {Right.READ: 0, Right.WRITE: 1, Right.READWRITE: 2}  # authpb.Permission.Type
_RIGHT_OF = {number: right for right, number in _RIGHTS.items()}


class EtcdAccounts:
    """Users and roles of etcd. Safe for use by several threads."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls

    def enabled(self) -> bool:
        """Return whether access control is on, by the reason for which etcd refuses an unknown user's login."""
        try:
            self._call("Authenticate", rpc.AuthenticateRequest(name=_NOBODY, password=_NOBODY))
        except AuthenticationError:
            return True
        except StoreError as error:
            if "authentication is not enabled" in str(error):
                return False
            raise
        return True

    def users(self) -> dict[str, tuple[str, ...]]:
        """Return all users, each with its roles."""
        names = self._call("UserList", rpc.AuthUserListRequest()).users
        found = {}
        for name in names:
            answer = self._unless("user name not found", "UserGet", rpc.AuthUserGetRequest(name=name))
            if answer is not None:
                found[str(name)] = tuple(sorted(map(str, answer.roles)))
        return found

    def roles(self) -> dict[str, tuple[Grant, ...]]:
        """Return all roles, each with what it grants."""
        names = self._call("RoleList", rpc.AuthRoleListRequest()).roles
        found = {}
        for name in names:
            answer = self._unless("role name not found", "RoleGet", rpc.AuthRoleGetRequest(role=name))
            if answer is not None:
                found[str(name)] = tuple(sorted(map(_grant, answer.perm))) if name != ROOT else ()
        return found

    def add_user(self, name: str, password: str | None = None) -> None:
        """Make a user; without a password it is known by its certificate alone."""
        request = rpc.AuthUserAddRequest(name=name, password=password or "")
        if not password:
            request.MergeFromString(_NO_PASSWORD)
        self._unless("user name already exists", "UserAdd", request)

    def delete_user(self, name: str) -> None:
        """Remove a user."""
        self._unless("user name not found", "UserDelete", rpc.AuthUserDeleteRequest(name=name))

    def add_role(self, name: str) -> None:
        """Make a role that grants nothing."""
        self._unless("role name already exists", "RoleAdd", rpc.AuthRoleAddRequest(name=name))

    def delete_role(self, name: str) -> None:
        """Remove a role, and take it from all users."""
        self._unless("role name not found", "RoleDelete", rpc.AuthRoleDeleteRequest(role=name))

    def give_role(self, user: str, role: str) -> None:
        """Give a user a role."""
        self._call("UserGrantRole", rpc.AuthUserGrantRoleRequest(user=user, role=role))

    def take_role(self, user: str, role: str) -> None:
        """Take a role from a user."""
        request = rpc.AuthUserRevokeRoleRequest(name=user, role=role)
        self._unless("role is not granted|user name not found", "UserRevokeRole", request)

    def grant(self, role: str, grant: Grant) -> None:
        """Give a role a right on a range."""
        request = rpc.AuthRoleGrantPermissionRequest(name=role)
        request.perm.permType = _RIGHTS[grant.right]
        request.perm.key, request.perm.range_end = grant.start, grant.end
        self._call("RoleGrantPermission", request)

    def revoke(self, role: str, grant: Grant) -> None:
        """Take a range from a role."""
        try:  # In etcd3's descriptors these are text, as in old etcd: for UTF-8 that is the same on the wire.
            start, end = grant.start.decode(), grant.end.decode()
        except UnicodeDecodeError:
            text = f"role {printable(role)}: its right from {shown_key(grant.start)} on is no text"
            raise StoreError(f"{text}; take it away by `etcdctl role revoke-permission`") from None
        request = rpc.AuthRoleRevokePermissionRequest(role=role, key=start, range_end=end)
        self._unless("permission is not granted|role name not found", "RoleRevokePermission", request)

    def enable(self) -> None:
        """Switch access control on."""
        self._call("AuthEnable", rpc.AuthEnableRequest())

    def disable(self) -> None:
        """Switch access control off."""
        self._call("AuthDisable", rpc.AuthDisableRequest())

    def _unless(self, done: str, name: str, request: Message) -> Message | None:
        """Make a call; None when etcd answers with one of the texts in `done`, so there is nothing to do."""
        try:
            return self._call(name, request)
        except ConfigstoreError as error:
            if any(text in str(error) for text in done.split("|")):
                return None
            raise

    def _call(self, name: str, request: Message) -> Message:
        return self._calls.repeatable(name, unary("auth", name, request))


def _grant(stored: Message) -> Grant:
    """Read an authpb.Permission. Raises StoreError."""
    right = _RIGHT_OF.get(stored.permType)
    if right is None:
        raise nonsense(f"a right of the kind {stored.permType}")
    return Grant(bytes(stored.key), bytes(stored.range_end), right)

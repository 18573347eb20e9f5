"""`access revoke`: deletes a service's user and role, and says what it can still do until more is done."""

import argparse
from collections.abc import Iterator, Sequence

from configstore.cli.access_whom import as_root, settings_of
from configstore.cli.render import write_json, write_line
from configstore.cli.session import refuse_silent_default, say, say_all, warn_of_misspelt_variables
from configstore.errors import NotThereError, RefusedError
from configstore.model.keys import Keys
from configstore.model.path import printable, shell_word
from configstore.presets.services import user_of
from configstore.store.accounts import ROOT, Everybody, everybody
from configstore.store.connect import connect
from configstore.store.lease_queue import queue
from configstore.store.store import Store


def run(args: argparse.Namespace) -> int:
    """Run `access revoke` and return its exit code."""
    settings = settings_of(args)
    warn_of_misspelt_variables()
    refuse_silent_default(args)
    keys = Keys(settings.root)
    with connect(settings) as kv, as_root():
        store = Store(kv, keys)
        found = everybody(kv.accounts)
        user = _user_to_revoke(args.service, found)
        roles = found.users.get(user, ())
        leases = _leases_of(keys, found, user)
        held = [lease for lease in leases if queue(store, lease)]
        enabled = kv.accounts.enabled()
        if user in found.users:
            kv.accounts.delete_user(user)  # first: it takes all roles from the user at once
        others = sorted(other for other, its in found.users.items() if user in its and other != user)
        own_role = user in found.roles and not others
        if own_role:
            kv.accounts.delete_role(user)
    if args.json:
        write_json({"user": user, "roles": list(roles), "leases": held})
    else:
        role = " and its role" if own_role else ""
        effect = ": etcd answers no new request of it about keys" if enabled else ""
        write_line(printable(f"{user}: its user is gone{role}{effect}"))
    if not enabled:
        say("access control is off: every certificate may do everything, this one too")
    if others:
        say(f"the role {printable(user)} stays: others have it, too: {printable(', '.join(others))}")
    say_all(_what_is_left(user, held))
    return 0


def _user_to_revoke(name: str, found: Everybody) -> str:
    if name == ROOT:
        raise RefusedError("root: is the operator's; without it nobody could change users any more")
    for user in (user_of(name), name):
        if user in found.users or user in found.roles:
            return user
    known = ", ".join(sorted(printable(user) for user in found.users if user != ROOT)) or "none but root"
    raise NotThereError(f"{printable(name)}: etcd has no such user; there are {known}")


def _leases_of(keys: Keys, found: Everybody, user: str) -> list[str]:
    """Return the names of the leases that a user had the right to hold."""
    top = keys.lease_queue("")
    held = dict.fromkeys(
        grant.start[len(top) : -1].decode("utf-8", "replace")
        for grant in (*found.grants_of(user), *found.roles.get(user, ()))
        if grant.start.startswith(top) and grant.start.endswith(b"/") and grant.start != top
    )
    return list(held)


def _what_is_left(user: str, held: Sequence[str]) -> Iterator[str]:
    yield (
        "a watch that it opened goes on until its connection ends: stop the program with the certificate, or"
        " restart the members of etcd, one after another"
    )
    yield (
        "its certificate stays valid for TLS: who has it may still connect, grant leases, and keep those alive"
        " that it has"
    )
    for lease in held:
        yield (
            f"lease {printable(lease)} is held or waited for, maybe by it: `configstore leases` shows by whom, and"
            f" `configstore leases break {shell_word(lease)}` ends that"
        )
    yield (
        f"etcd knows a user by name only. Before `configstore access apply` makes {printable(user)} again: remove"
        " the service's folder, so that it gets another key, and have etcd refuse the old certificate, by"
        " --client-crl-file or by another authority (`access apply --roll-over`, three steps)"
    )

"""`access verify`: reports what differs from the plan, in etcd's users and roles and for each certificate."""

import argparse
from collections.abc import Iterable, Iterator, Sequence

import msgspec

from configstore.cli.access_whom import (
    SWITCH,
    as_root,
    beside_in_store,
    services_of,
    settings_of,
    wanted_by,
    wrong_by_certificate,
)
from configstore.cli.render import Style, table, write_json, write_line
from configstore.cli.session import refuse_silent_default, say, say_all, warn_of_misspelt_variables
from configstore.errors import NotThereError
from configstore.model.grants import Grant, Service, words
from configstore.model.keys import Keys
from configstore.model.path import printable, shell_word
from configstore.presets.services import user_of
from configstore.store.accounts import ROOT, Everybody, everybody, judge
from configstore.store.api import Kv
from configstore.store.connect import connect


class _Differing(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    user: str
    found: str
    grant: Grant | None = None


def run(args: argparse.Namespace) -> int:
    """Run `access verify` and return its exit code."""
    services, settings = services_of(args), settings_of(args)
    warn_of_misspelt_variables()
    if not args.config:
        refuse_silent_default(args)
    keys = Keys(settings.root)
    with connect(settings) as kv, as_root():
        enabled = kv.accounts.enabled()
        found = everybody(kv.accounts)
        rows = list(_wrong(kv, keys, services, found, enabled=enabled))
        if enabled:
            known = {row.service for row in rows}
            for service in services:
                if service.name in known:
                    continue  # its certificate fails for the same reason
                rows += [
                    _Differing(service=service.name, user=service.user, found=text)
                    for text in wrong_by_certificate(args.out, settings, service, enabled=True)
                ]
        say_all(_strangers(keys, found, services))
    if args.json:
        write_json([_row_json(keys, row) for row in rows])
    elif rows:
        table(
            ("SERVICE", "FOUND", "KEYS"),
            [
                (row.service, (row.found, Style.BAD), words(keys.root, row.grant, printable) if row.grant else "")
                for row in rows
            ],
        )
        say("`configstore access apply` with the same presets mends what it can")
    else:
        write_line(f"all {len(services)} services have exactly the rights that they need")
    return NotThereError.exit_code if rows else 0


def _row_json(keys: Keys, row: _Differing) -> dict[str, str | None]:
    where = words(keys.root, row.grant, printable) if row.grant else None
    return {"service": row.service, "user": row.user, "found": row.found, "keys": where}


def _wrong(
    kv: Kv, keys: Keys, services: Sequence[Service], found: Everybody, *, enabled: bool
) -> Iterator[_Differing]:
    """Yield what differs from the plan."""
    names = {service.user: service.name for service in services}
    if not enabled:
        yield _Differing(
            service="all", user="", found="access control is off: every certificate may do everything"
        )
    for wrong in judge(found, wanted_by(keys, services)):
        name = names.get(wrong.user, "all")
        if wrong.why:
            yield _Differing(service=name, user=wrong.user, found=wrong.why)
        for grant in wrong.differs.missing:
            yield _Differing(service=name, user=wrong.user, found=f"lacks {grant.right}", grant=grant)
        for grant in wrong.differs.excess:
            yield _Differing(service=name, user=wrong.user, found=f"has {grant.right} and should not", grant=grant)
    if SWITCH in found.users:
        text = "a user of an `access apply` that was killed, with all rights, is left"
        yield _Differing(service="all", user=SWITCH, found=text)
    for one in beside_in_store(kv, keys, services):
        text = f"may {one.right} {printable(one.neighbour)}, which lies beside {one.store}: give it another name"
        yield _Differing(service=one.service, user=user_of(one.service), found=text)


def _strangers(keys: Keys, found: Everybody, services: Iterable[Service]) -> Iterator[str]:
    """Yield a note about each other user with rights below the root key."""
    planned = {service.user for service in services} | {ROOT, SWITCH}
    low, high = f"{keys.root}/".encode(), f"{keys.root}0".encode()
    for user, roles in sorted(found.users.items()):
        if user in planned:
            continue
        held = [
            grant for grant in found.grants_of(user) if grant.start < high and (not grant.end or low < grant.end)
        ]
        if ROOT in roles:
            yield f"note: user {printable(user)} is no service of these, and may do everything"
        elif held:
            yield (
                f"note: user {printable(user)} is no service of these, and has {len(held)} ranges below"
                f" {keys.root}/: a person's? else `configstore access revoke {shell_word(user)}`"
            )

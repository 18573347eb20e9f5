"""`access`: a certificate, a user and a role of etcd for each service, with what its mappings need and no more."""

import argparse
import datetime as dt
import os
import secrets
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from configstore.cli.arguments import Commands, add_command, options_of
from configstore.cli.render import Cell, Style, table, write_json, write_line
from configstore.cli.session import refuse_silent_default, say, say_all, warn_of_misspelt_variables
from configstore.errors import (
    ConfigstoreError,
    NotThereError,
    PermissionDeniedError,
    RefusedError,
    StoreError,
    UsageError,
)
from configstore.model.grants import Beside, Grant, Right, Service, beside, grants, included, neighbours, wanted, words
from configstore.model.keys import Keys
from configstore.model.path import printable, shell_word
from configstore.presets.services import of_presets, of_settings, store_table, user_of
from configstore.settings import StoreSettings, endpoints_are_set, load_store
from configstore.store.accounts import ROOT, Accounts, Everybody, Step, everybody, judge, settle, steps
from configstore.store.api import range_all
from configstore.store.leases import queue
from configstore.store.replicas import live
from configstore.store.trying import may

if TYPE_CHECKING:
    from configstore.access.certificates import Made
    from configstore.store.etcd.client import EtcdKv

SWITCH = "configstore-switch"
"""A user that is there while access control is switched on, to switch it off again where that goes wrong."""

NAMED = 3
"""Neighbours of a subtree that are looked for: one is enough to refuse."""

_FORMATS = ("files", "swarm", "kubernetes")

_CANNOT = (
    "what etcd has no rights for: any user may grant leases without end, list all, and end those that hold no key; "
    "nothing limits how much a service writes into its own ranges"
)


def add(commands: Commands) -> None:
    """Add the parsers."""
    group = add_command(
        commands,
        "access",
        _nothing,
        "a certificate, a user and a role of etcd for each service",
        connects=False,
    )
    verbs = group.add_subparsers(metavar="VERB", required=True, prog="configstore access")
    plan = add_command(verbs, "plan", _plan, "print what each service may do", listed=True, group="access")
    apply = add_command(
        verbs, "apply", _apply, "make certificates, users and roles; then switch access control on",
        listed=True, group="access",
    )  # fmt: skip
    verify = add_command(
        verbs, "verify", _verify, "tell whose certificate, user or role is not as planned", listed=True, group="access"
    )
    revoke = add_command(verbs, "revoke", _revoke, "take a service's user and role away", listed=True, group="access")
    for parser in (plan, apply, verify):
        parser.add_argument(
            "--preset",
            metavar="NAME",
            action="append",
            help="mailu (default): today's services; mailu/front: one; a comma joins those of one sidecar; again: more",
        )
        parser.add_argument("--config", metavar="FILE", help="one sidecar's settings, with its presets by --preset")
        parser.add_argument("--service", metavar="NAME", help="what that sidecar is called")
    for parser in (apply, verify, revoke):
        parser.add_argument("--out", metavar="DIR", help="the certificates' directory; the operator's is used")
    apply.add_argument("--etcd-name", metavar="NAME", action="append", default=[],
                       help="a name or address of etcd, for its certificate (default: etcd); again: more")  # fmt: skip
    apply.add_argument("--ca-cert", metavar="FILE", help="your own authority for clients, rather than one made here")
    apply.add_argument("--ca-key", metavar="FILE", help="its key; it is not copied")
    apply.add_argument("--roll-over", action="store_true", help="take the next of three steps to other authorities")
    apply.add_argument("--format", choices=_FORMATS, default="files", help="also as what a deployment takes")
    apply.add_argument("--without-auth", action="store_true", help="leave access control as it is")
    apply.add_argument("--dry-run", action="store_true", help="print what would be done, and do nothing")
    apply.add_argument("--yes", action="store_true", help="switch access control on whoever is connected")
    revoke.add_argument("service", metavar="SERVICE", help="such as front, or the name of any user but root")


def _nothing(args: argparse.Namespace) -> int:
    raise UsageError(f"access: expected a verb, not {args}")  # argparse asks for one


# -- what is wanted --


def _services(args: argparse.Namespace) -> tuple[Service, ...]:
    """Return whom it is about. Raises UsageError, and RefusedError where a grant would include a neighbour."""
    if args.config:
        preset = ",".join(args.preset or ())
        services = (of_settings(file=args.config, preset=preset, environ={}, name=args.service or ""),)
    elif args.service:
        raise UsageError("--service: names a sidecar of --config FILE; a preset's service has its own name")
    else:
        services = of_presets(args.preset or ["mailu"])
    _refuse_beside(beside(services))
    return services


def _refuse_beside(found: Sequence[Beside]) -> None:
    if found:
        one = found[0]
        raise RefusedError(
            f"{one.service}: its right to {'write' if one.right is not Right.READ else 'read'} {one.store} (mapping"
            f" {one.mapping}) would include {printable(one.neighbour)}, which lies beside it: one watch needs one"
            " range, and etcd sorts that name into it. Give the neighbour a name that does not begin with"
            f" {one.store} and a sign: move it by `configstore export`, `import` and `rm`"
        )


def _settings(args: argparse.Namespace) -> StoreSettings:
    """Return how etcd is reached: as the operator of --out, where nothing else is said."""
    config = getattr(args, "config", None)
    options = options_of(args)
    settings = load_store(
        environ=os.environ, table=store_table(config), source=config or "", options=options
    )
    out = getattr(args, "out", None)
    if out and settings.cert is None and settings.user is None and _all_tls(settings):
        files = _places().operator_files(out)
        if os.path.exists(files.cert):
            cacert = settings.cacert or files.cacert
            settings = msgspec.structs.replace(settings, cacert=cacert, cert=files.cert, key=files.key)
    return settings


def _all_tls(settings: StoreSettings) -> bool:
    return all(url.startswith("https://") for url in settings.endpoints)


def _is_named(args: argparse.Namespace) -> bool:
    return endpoints_are_set(os.environ, vars(args)) or "endpoints" in store_table(getattr(args, "config", None))


def _wanted(keys: Keys, services: Iterable[Service]) -> dict[str, tuple[Grant, ...]]:
    return {service.user: grants(keys, service) for service in services}


# -- plan --


def _plan(args: argparse.Namespace) -> int:
    services, keys = _services(args), Keys(_settings(args).root)
    rows = [(service, grant) for service in services for grant in grants(keys, service)]
    if args.json:
        write_json([_as_json(service.name, service.user, grant) for service, grant in rows])
        return 0
    table(
        ("SERVICE", "RIGHT", f"KEYS BELOW {keys.root}/"),
        [(service.name, str(grant.right), words(keys.root, grant, printable)) for service, grant in rows],
    )
    say(f"each as the user mailu-SERVICE, which its certificate names; {_CANNOT}")
    return 0


def _as_json(service: str, user: str, grant: Grant) -> dict[str, str]:
    return {
        "service": service,
        "user": user,
        "right": str(grant.right),
        "start": grant.start.decode("utf-8", "backslashreplace"),
        "end": grant.end.decode("utf-8", "backslashreplace"),
    }


# -- apply --


def _apply(args: argparse.Namespace) -> int:
    services = _services(args)
    if args.ca_cert and not args.ca_key or args.ca_key and not args.ca_cert:
        raise UsageError("--ca-cert and --ca-key: expected both or neither")
    done: dict[str, object] = {"certificates": [], "files": [], "changes": [], "access_control": None}
    if args.out:
        _certificates(args, services, done)
    elif args.ca_cert or args.roll_over or args.etcd_name or args.format != "files":
        raise UsageError("--out DIR: is missing; the others are about the certificates there")
    try:
        if _is_named(args) or not args.out:
            _at_etcd(args, services, done)
        else:
            say("no endpoint is set, so etcd was not asked; when it runs with these, call this again with --endpoints")
    except ConfigstoreError:
        if args.out:
            _say_flags(args.out)
        raise
    finally:
        if args.json:
            write_json(done)
    if args.out and done["access_control"] is None:
        _say_flags(args.out)
    return 0


def _places():  # type: ignore[no-untyped-def]  # noqa: ANN202 - a module
    from configstore.access import places  # noqa: PLC0415 - no other command needs it

    return places


def _certificates(args: argparse.Namespace, services: Sequence[Service], done: dict[str, object]) -> None:
    """Make what certificates are missing, and hand them over as a deployment takes them."""
    try:
        from configstore.access import certificates, formats  # noqa: PLC0415 - a library that only this needs
    except ImportError:
        raise UsageError(
            "access apply --out: needs the library cryptography: pip install 'mailu-configstore[certificates]'"
        ) from None
    users = {service.name: service.user for service in services}
    made = certificates.ensure(
        args.out,
        users,
        server_names=args.etcd_name,
        given=certificates.Given(args.ca_cert, args.ca_key) if args.ca_cert else None,
        now=dt.datetime.now(dt.UTC),
        roll_over=args.roll_over,
        dry_run=args.dry_run,
    )
    done["certificates"] = [
        {"name": one.name, "path": one.path, "user": one.user, "state": str(one.state), "ends": one.end, "why": one.why}
        for one in made
    ]
    if not args.json:
        table(("CERTIFICATE", "STATE", "ENDS", "FILE"), [_made_row(one, dry_run=args.dry_run) for one in made])
    say_all(f"{one.path}: {one.why}" for one in made if one.why)
    if args.format != "files" and not args.dry_run:
        written = formats.write(args.out, users, formats.Format(args.format))
        done["files"] = written
        if not args.json:
            for path in written:
                write_line(printable(path))


def _made_row(made: "Made", *, dry_run: bool) -> tuple[Cell, ...]:
    state = f"to be {made.state}" if dry_run and str(made.state) != "kept" else str(made.state)
    return made.user, state, f"{made.end:%Y-%m-%d}", made.path


def _say_flags(out: str) -> None:
    from configstore.access.formats import etcd_flags  # noqa: PLC0415 - no other command needs it

    say(f"each member of etcd uses the folder {printable(out)}/server by these options, and is restarted for them:")
    for flag in etcd_flags(out):
        print(f"  {printable(flag)}", file=sys.stderr)


def _at_etcd(args: argparse.Namespace, services: Sequence[Service], done: dict[str, object]) -> None:
    """Bring users and roles to what is wanted, and switch access control on."""
    settings = _settings(args)
    warn_of_misspelt_variables()
    if not args.config:
        refuse_silent_default(args)
    keys, wants = Keys(settings.root), _wanted(Keys(settings.root), services)
    with _connected(settings) as kv:
        accounts = kv.accounts
        enabled = accounts.enabled()
        if not enabled and not _all_tls(settings):
            plain = next(url for url in settings.endpoints if not url.startswith("https://"))
            raise RefusedError(
                f"endpoint {plain}: is not TLS, so no service could show etcd who it is; nothing was changed there."
                " Start it with certificates and --client-cert-auth, then call this again with https://"
            )
        _as_root(lambda: _refuse_beside(_beside_in_store(kv, keys, services)))
        found = _as_root(lambda: everybody(accounts))
        if args.dry_run:
            for step in steps(found, wants):
                _tell(args, keys, step, done)
            if not enabled and not args.without_auth:
                _line(args, "switch access control on, after each user was verified")
            done["access_control"] = enabled
            return
        if not enabled and not args.without_auth:
            _ask(args, kv, keys)
        if SWITCH in found.users:  # of a run that was killed
            accounts.delete_user(SWITCH)
        count = settle(accounts, wants, lambda step: _tell(args, keys, step, done))
        if not count:
            _line(args, f"users and roles: all {len(wants)} are as planned")
        _verify_by_certificates(args.out, settings, keys, services, enabled=enabled)
        if enabled:
            done["access_control"] = True
        elif args.without_auth:
            done["access_control"] = False
            say("access control is off: whoever has a certificate may do everything; call this again to switch it on")
        else:
            _switch_on(args, accounts, settings, services)
            done["access_control"] = True
            _line(args, "access control is on")


def _connected(settings: StoreSettings) -> "EtcdKv":
    from configstore.store.connect import connect  # noqa: PLC0415 - only now is grpc needed

    return connect(settings)


def _as_root(call):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - returns what the call does
    """Make a call that etcd lets its user root make alone. Raises RefusedError with what to show it."""
    try:
        return call()
    except PermissionDeniedError as error:
        raise RefusedError(
            f"{error}; users and roles are root's to change: show the certificate of the operator by --out DIR, or by"
            " --cert and --key"
        ) from error


def _tell(args: argparse.Namespace, keys: Keys, step: Step, done: dict[str, object]) -> None:
    changes = done["changes"]
    assert isinstance(changes, list)  # noqa: S101 - it was made above
    where = words(keys.root, step.grant, printable) if step.grant else ""
    right = str(step.grant.right) if step.grant else ""
    changes.append({"user": step.user, "do": step.do, "right": right or None, "keys": where or None})
    _line(args, f"{step.user}: {step.do}" + (f" {right} {where}" if where else ""))


def _line(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        write_line(printable(text))


def _ask(args: argparse.Namespace, kv: "EtcdKv", keys: Keys) -> None:
    """Have a person confirm that those who are connected have certificates of their own. Raises RefusedError."""
    there = sorted({f"{report.mapping} on {report.host}" for report, _ in live(kv, keys).values()})
    if not there or args.yes:
        return
    shown = ", ".join(map(printable, there[:NAMED])) + (" and more" if len(there) > NAMED else "")
    much = (
        f"replicas are connected ({shown}); those that do not show the certificate of their own service are outside"
        " once access control is on"
    )
    if not (sys.stdin and sys.stdin.isatty()):
        raise RefusedError(
            f"{much}; nothing was changed at etcd: `--without-auth` makes users and roles alone, `--yes` goes on"
        )
    say(much)
    print("Switch it on? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() not in {"y", "yes"}:
        raise RefusedError("nothing was changed at etcd")


def _switch_on(
    args: argparse.Namespace, accounts: Accounts, settings: StoreSettings, services: Sequence[Service]
) -> None:
    """Switch access control on; off again when etcd then does not know us, or a service, by the certificate.

    A user with a password that nobody else learns does that: root has none.
    """
    password = secrets.token_urlsafe(32)
    accounts.add_user(SWITCH, password)
    try:
        accounts.give_role(SWITCH, ROOT)
        accounts.enable()
        try:
            accounts.users()  # as whom the certificate says
            _verify_by_certificates(args.out, settings, Keys(settings.root), services, enabled=True)
        except BaseException as error:
            as_switch = msgspec.structs.replace(settings, user=SWITCH, password=password, password_file=None)
            with _connected(as_switch) as kv:
                kv.accounts.disable()
            if isinstance(error, StoreError):
                raise RefusedError(
                    f"access control was switched on, and off again: {error}. Is etcd started with"
                    " --client-cert-auth, and is ours the certificate of root?"
                ) from error
            raise
    finally:
        accounts.delete_user(SWITCH)


def _verify_by_certificates(
    out: str | None, settings: StoreSettings, keys: Keys, services: Iterable[Service], *, enabled: bool
) -> None:
    """See with each service's own certificate, where it is there, that etcd takes it, and lets it do its part.

    Raises RefusedError naming the service.
    """
    for service in services:
        found = next(_wrong_by_certificate(out, settings, keys, service, enabled=enabled), None)
        if found:
            raise RefusedError(f"{service.name}: {found}")


def _wrong_by_certificate(
    out: str | None, settings: StoreSettings, keys: Keys, service: Service, *, enabled: bool
) -> Iterator[str]:
    """Yield what a service's own certificate cannot do, or can do and must not."""
    if not out or not _all_tls(settings):
        return
    files = _places().client_files(out, service.name, service.user)
    if not os.path.exists(files.cert):
        return
    own = msgspec.structs.replace(
        settings, cacert=files.cacert, cert=files.cert, key=files.key, user=None, password=None, password_file=None
    )
    try:
        with _connected(own) as kv:
            kv.status()
            if not enabled:
                return
            for each in wanted(keys, service):
                if not may(kv, each.grant):
                    what = words(keys.root, each.grant, printable)
                    yield f"its certificate lacks the right to {each.grant.right} {what} {each.why}"
            start, end = keys.requests()
            if may(kv, Grant(start, end, Right.READWRITE)):
                yield "its certificate may write requests, which are a person's"
            with suppress(PermissionDeniedError):
                kv.accounts.users()
                yield "its certificate is one of root's"
    except StoreError as error:
        yield f"etcd does not take its certificate {printable(files.cert)}: {error}"


def _beside_in_store(kv: "EtcdKv", keys: Keys, services: Iterable[Service]) -> list[Beside]:
    """Return what lies in the store where a grant would include it as a neighbour; a tombstone does no harm."""
    from configstore.store.items import decode_item  # noqa: PLC0415 - no other verb needs it
    from configstore.store.values import Stored  # noqa: PLC0415 - as above

    found: dict[tuple[str, str], Beside] = {}
    for service in services:
        for need in service.needs:
            if not need.store:
                continue
            for page in range_all(kv, *neighbours(keys, need)):
                for item in page.items:
                    stored = decode_item(keys, item)
                    if isinstance(stored, Stored) and not stored.gone:
                        for one in included(service, stored.path):
                            found.setdefault((one.service, one.neighbour), one)
    return list(found.values())


# -- verify --


class _Row(msgspec.Struct, frozen=True, kw_only=True):
    service: str
    user: str
    found: str
    grant: Grant | None = None


def _verify(args: argparse.Namespace) -> int:
    services, settings = _services(args), _settings(args)
    warn_of_misspelt_variables()
    if not args.config:
        refuse_silent_default(args)
    keys = Keys(settings.root)
    with _connected(settings) as kv:
        enabled = kv.accounts.enabled()
        found = _as_root(lambda: everybody(kv.accounts))
        rows = list(_wrong(kv, keys, services, found, enabled=enabled))
        if enabled:
            for service in services:
                rows += [
                    _Row(service=service.name, user=service.user, found=text)
                    for text in _wrong_by_certificate(args.out, settings, keys, service, enabled=True)
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
        write_line(f"all {len(services)} services have just the rights that they need")
    return NotThereError.exit_code if rows else 0


def _row_json(keys: Keys, row: _Row) -> dict[str, str | None]:
    where = words(keys.root, row.grant, printable) if row.grant else None
    return {"service": row.service, "user": row.user, "found": row.found, "keys": where}


def _wrong(
    kv: "EtcdKv", keys: Keys, services: Sequence[Service], found: Everybody, *, enabled: bool
) -> Iterator[_Row]:
    """Yield all that is not as planned."""
    names = {service.user: service.name for service in services}
    if not enabled:
        yield _Row(service="all", user="", found="access control is off: whoever has a certificate may do everything")
    for wrong in judge(found, _wanted(keys, services)):
        name = names.get(wrong.user, "all")
        if wrong.why:
            yield _Row(service=name, user=wrong.user, found=wrong.why)
        for grant in wrong.differs.missing:
            yield _Row(service=name, user=wrong.user, found=f"lacks {grant.right}", grant=grant)
        for grant in wrong.differs.excess:
            yield _Row(service=name, user=wrong.user, found=f"has {grant.right} and should not", grant=grant)
    if SWITCH in found.users:
        text = "a user of an `access apply` that was killed, with all rights, is left"
        yield _Row(service="all", user=SWITCH, found=text)
    for one in _as_root(lambda: _beside_in_store(kv, keys, services)):
        text = f"may {one.right} {printable(one.neighbour)}, which lies beside {one.store}: give it another name"
        yield _Row(service=one.service, user=user_of(one.service), found=text)


def _strangers(keys: Keys, found: Everybody, services: Iterable[Service]) -> Iterator[str]:
    """Yield a word about each other user that may do something below the root key."""
    ours = {service.user for service in services} | {ROOT, SWITCH}
    low, high = f"{keys.root}/".encode(), f"{keys.root}0".encode()
    for user, roles in sorted(found.users.items()):
        if user in ours:
            continue
        held = [grant for grant in found.grants_of(user) if grant.start < high and (not grant.end or low < grant.end)]
        if ROOT in roles:
            yield f"note: user {printable(user)} is no service of these, and may do everything"
        elif held:
            yield (
                f"note: user {printable(user)} is no service of these, and has {len(held)} ranges below {keys.root}/:"
                f" a person's? else `configstore access revoke {shell_word(user)}`"
            )


# -- revoke --


def _revoke(args: argparse.Namespace) -> int:
    settings = _settings(args)
    warn_of_misspelt_variables()
    refuse_silent_default(args)
    keys = Keys(settings.root)
    with _connected(settings) as kv:
        found = _as_root(lambda: everybody(kv.accounts))
        user = _user_to_revoke(args.service, found)
        roles = found.users.get(user, ())
        leases = _leases_of(keys, found, user)
        held = [lease for lease in leases if queue(kv, keys, lease)]
        for role in roles:
            kv.accounts.take_role(user, role)
        kv.accounts.delete_user(user)
        own_role = user in found.roles
        if own_role:
            kv.accounts.delete_role(user)
    if args.json:
        write_json({"user": user, "roles": list(roles), "leases": held})
    else:
        write_line(printable(f"{user}: its user is gone{' and its role' if own_role else ''}: etcd answers no new"
                             " request of it about keys"))  # fmt: skip
    say_all(_what_is_left(user, held))
    return 0


def _user_to_revoke(name: str, found: Everybody) -> str:
    if name == ROOT:
        raise RefusedError("root: is a person's; without it nobody could change users any more")
    for user in (user_of(name), name):
        if user in found.users or user in found.roles:
            return user
    known = ", ".join(sorted(printable(user) for user in found.users if user != ROOT)) or "none but root"
    raise NotThereError(f"{printable(name)}: etcd has no such user; there are {known}")


def _leases_of(keys: Keys, found: Everybody, user: str) -> list[str]:
    """Return the names of the leases that a user could take."""
    top = keys.lease_queue("")
    held: Mapping[str, None] = dict.fromkeys(
        grant.start[len(top) : -1].decode("utf-8", "replace")
        for grant in (*found.grants_of(user), *found.roles.get(user, ()))
        if grant.start.startswith(top) and grant.start.endswith(b"/") and grant.start != top
    )
    return list(held)


def _what_is_left(user: str, held: Sequence[str]) -> Iterator[str]:
    yield (
        "a watch that it opened before goes on until its connection ends: stop what shows the certificate, or restart"
        " the members of etcd, one after another"
    )
    yield (
        "its certificate stays good for TLS: whoever has it may still connect, grant leases, and keep those alive that"
        " it has"
    )
    for lease in held:
        yield f"lease {printable(lease)} is held or waited for, maybe by it: `configstore leases` shows by whom," \
              f" `configstore leases break {shell_word(lease)}` ends that"  # fmt: skip
    yield (
        f"etcd knows it by its name alone: before `access apply` makes {printable(user)} again, have etcd refuse the"
        " certificate (--client-crl-file), or bring in another authority (`access apply --roll-over`, in three steps),"
        " and remove the service's folder for a new key"
    )

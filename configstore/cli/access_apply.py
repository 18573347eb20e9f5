"""`access apply`: makes certificates, then users and roles, verifies each, and switches access control on.

The order matters: access control comes last, when each service was seen to work with its certificate. A run that
was interrupted is continued by the next one, which makes only what is missing or differs.
"""

import argparse
import datetime as dt
import secrets
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec

from configstore.access import formats
from configstore.cli.access_whom import (
    SWITCH,
    all_tls,
    as_root,
    beside_in_store,
    is_named,
    refuse_beside,
    services_of,
    settings_of,
    wanted_by,
    wrong_by_certificate,
)
from configstore.cli.render import Cell, table, write_json, write_line
from configstore.cli.session import (
    confirms,
    connect_error,
    is_interactive,
    refuse_silent_default,
    say,
    say_all,
    warn_of_misspelt_variables,
)
from configstore.errors import ConfigstoreError, RefusedError, StoreError, StoreUnavailableError, UsageError
from configstore.model.endpoint import parse_endpoint
from configstore.model.grants import Service, words
from configstore.model.keys import Keys
from configstore.model.path import printable
from configstore.settings import StoreSettings
from configstore.store.accounts import ROOT, Accounts, AccountStep, bring_about, everybody, steps
from configstore.store.api import Kv
from configstore.store.connect import connect
from configstore.store.replicas import live_reports
from configstore.store.store import Store

if TYPE_CHECKING:
    from configstore.access.certificates import EnsuredCertificate

_NAMED = 3
"""Replicas that a question names."""


def run(args: argparse.Namespace) -> int:
    """Run `access apply` and return its exit code."""
    services = services_of(args)
    if bool(args.ca_cert) != bool(args.ca_key):
        raise UsageError("--ca-cert and --ca-key: type both or neither")
    changes: list[dict[str, str | None]] = []
    done: dict[str, object] = {"certificates": [], "files": [], "changes": changes, "access_control": None}
    if args.roll_over and is_named(args):
        with connect(settings_of(args)) as kv:  # the next step needs an etcd that takes the last one's
            kv.accounts.enabled()
    if args.out:
        _certificates(args, services, done)
    elif args.ca_cert or args.roll_over or args.etcd_name or args.format != "files":
        raise UsageError("--out DIR: is missing; the other options are about the certificates there")
    settings = settings_of(args)
    if args.out and not is_named(args):
        say("no endpoint is set, so etcd was not asked; when it runs with these certificates, add --endpoints URL")
    elif args.out and args.dry_run and all_tls(settings) and not (settings.cert or settings.user):
        say("the operator's certificate is not made yet, so etcd was not asked")
    else:
        _try_etcd(_Run(args=args, settings=settings, services=services, done=done, changes=changes))
    if args.json:
        write_json(done)
    if args.out and done["access_control"] is None:
        _say_flags(args.out)
    return 0


def _try_etcd(run: "_Run") -> None:
    """Change etcd. On the first call, an etcd that does not answer yet is no error."""
    try:
        _at_etcd(run)
    except ConfigstoreError as error:
        if isinstance(error, StoreUnavailableError) and _is_fresh(run.done):
            if any(connect_error(url) is None for url in run.settings.endpoints):
                say("an etcd answers, but not with these certificates, which are new: is --out the right folder?")
                raise
            say(f"{error}; no etcd can have the new certificates yet: when it runs with them, run this again")
            return
        if run.args.roll_over:
            say("the step to another authority was taken: run this again without --roll-over")
        elif run.args.out:
            _say_flags(run.args.out)
        raise


def _is_fresh(done: dict[str, object]) -> bool:
    """Tell whether the authorities were made by this very call, so that no etcd knows them."""
    made = done["certificates"]
    return isinstance(made, list) and bool(made) and all(one["state"] == "made" for one in made[:2])


def _hosts(args: argparse.Namespace) -> list[str]:
    """Return the hosts of the endpoints that are set, which etcd's certificate must have for its clients.

    None where --server-name is set: then the endpoint only leads to etcd, such as a tunnel.
    """
    settings = settings_of(args)
    if not is_named(args) or settings.server_name:
        return []
    return [parse_endpoint(url).hostname for url in settings.endpoints]


def _certificates(args: argparse.Namespace, services: Sequence[Service], done: dict[str, object]) -> None:
    """Make the certificates that are missing, and the files for a deployment."""
    try:
        from configstore.access import certificates  # noqa: PLC0415 - a library that only this needs
    except ImportError:
        raise UsageError(
            "access apply --out: needs the library cryptography: pip install 'mailu-configstore[certificates]'"
        ) from None
    users = {service.name: service.user for service in services}
    made = certificates.ensure(
        args.out,
        users,
        server_names=args.etcd_name,
        reached_at=_hosts(args),
        given=certificates.AuthorityFiles(args.ca_cert, args.ca_key) if args.ca_cert else None,
        now=dt.datetime.now(dt.UTC),
        roll_over=args.roll_over,
        dry_run=args.dry_run,
    )
    done["certificates"] = [
        {
            "name": one.name,
            "path": one.path,
            "user": one.user,
            "state": str(one.state),
            "ends": one.end,
            "why": one.why,
        }
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


def _made_row(made: "EnsuredCertificate", *, dry_run: bool) -> tuple[Cell, ...]:
    state = f"to be {made.state}" if dry_run and str(made.state) != "kept" else str(made.state)
    return made.user, state, f"{made.end:%Y-%m-%d}", made.path


def _say_flags(out: str) -> None:
    say(f"restart each member of etcd with these options, by which it uses the folder {printable(out)}/server:")
    for flag in formats.etcd_flags(out):
        print(f"  {printable(flag)}", file=sys.stderr)


class _Run(msgspec.Struct, kw_only=True):
    """One run: its arguments, the services, and what was done, which is printed at the end.

    changes: those made at etcd; `done` has the same list.
    """

    args: argparse.Namespace
    settings: StoreSettings
    services: Sequence[Service]
    done: dict[str, object]
    changes: list[dict[str, str | None]]

    @property
    def keys(self) -> Keys:
        """The keys below the root key."""
        return Keys(self.settings.root)


def _at_etcd(run: _Run) -> None:
    """Make users and roles as planned, and switch access control on."""
    args = run.args
    warn_of_misspelt_variables()
    if not args.config:
        refuse_silent_default(args)
    with connect(run.settings) as kv:
        enabled = kv.accounts.enabled()
        if not enabled and not all_tls(run.settings):
            plain = next(url for url in run.settings.endpoints if not url.startswith("https://"))
            raise RefusedError(
                f"endpoint {plain}: is not TLS, so no service could show etcd its certificate; nothing was"
                " changed there. Start etcd with certificates and --client-cert-auth, then use https://"
            )
        with as_root():
            refuse_beside(beside_in_store(kv, run.keys, run.services))
            if args.dry_run:
                _dry_run(run, kv.accounts, enabled=enabled)
            else:
                if not enabled and not args.without_auth:
                    _ask(run, kv)
                _settle(run, kv.accounts)
                _finish(run, kv.accounts, enabled=enabled)


def _dry_run(run: _Run, accounts: Accounts, *, enabled: bool) -> None:
    """Print the changes that would be made."""
    for step in steps(everybody(accounts), wanted_by(run.keys, run.services)):
        _line(run.args, _note(run, step))
    if not enabled and not run.args.without_auth:
        _line(run.args, "switch access control on, after each user was verified")
    run.done["access_control"] = enabled


def _settle(run: _Run, accounts: Accounts) -> None:
    """Make the users and roles that differ from the plan, and print a summary."""
    if SWITCH in accounts.users():  # left by a run that was killed
        accounts.delete_user(SWITCH)
    made: list[AccountStep] = []
    try:
        bring_about(accounts, wanted_by(run.keys, run.services), made.append)
    finally:
        for step in made:
            _note(run, step)
        for line in _summary(made):
            _line(run.args, line)
    if not made:
        _line(run.args, f"users and roles: all {len(run.services)} are as planned")


def _finish(run: _Run, accounts: Accounts, *, enabled: bool) -> None:
    """Verify each service with its certificate, and switch access control on."""
    _verify_by_certificates(run, enabled=enabled)
    if not enabled and run.args.without_auth:
        say("access control is off: every certificate may do everything; run this again to switch it on")
    elif not enabled:
        _switch_on(run, accounts)
        _line(run.args, "access control is on")
    run.done["access_control"] = enabled or not run.args.without_auth


def _note(run: _Run, step: AccountStep) -> str:
    """Add a change to the list, and return it as text."""
    where = words(run.keys.root, step.grant, printable) if step.grant else ""
    right = str(step.grant.right) if step.grant else ""
    run.changes.append({"user": step.user, "do": step.do, "right": right or None, "keys": where or None})
    return f"{step.user}: {step.do}" + (f" {right} {where}" if where else "")


def _summary(made: Iterable[AccountStep]) -> Iterator[str]:
    """Yield a line for each user with changes."""
    by_user: dict[str, Counter[str]] = {}
    for step in made:
        by_user.setdefault(step.user, Counter())[step.do] += 1
    for user, counts in by_user.items():
        yield f"{user}: " + ", ".join(f"{do} ({count} ranges)" if do in {"grant", "revoke"} else do
                                      for do, count in counts.items())  # fmt: skip


def _line(args: argparse.Namespace, text: str) -> None:
    if not args.json:
        write_line(printable(text))


def _ask(run: _Run, kv: Kv) -> None:
    """Ask a person before access control cuts off replicas without certificates. Raises RefusedError."""
    there = sorted({f"{each.mapping} on {each.host}" for each in live_reports(Store(kv, run.keys))})
    if not there or run.args.yes:
        return
    shown = ", ".join(map(printable, there[:_NAMED])) + (" and more" if len(there) > _NAMED else "")
    much = (
        f"replicas are connected ({shown}); access control cuts off those that do not use the certificate of"
        " their service"
    )
    if not is_interactive():
        raise RefusedError(
            f"{much}; nothing was changed at etcd: `--without-auth` makes users and roles only, `--yes` goes on"
        )
    say(much)
    if not confirms("Switch it on?"):
        raise RefusedError("nothing was changed at etcd")


def _switch_on(run: _Run, accounts: Accounts) -> None:
    """Switch access control on, and off again where etcd then refuses a certificate that must work.

    A temporary user with a random password can switch it off again: root has a certificate only, which may be what
    etcd refuses.
    """
    password = secrets.token_urlsafe(32)
    accounts.add_user(SWITCH, password)
    try:
        accounts.give_role(SWITCH, ROOT)
        accounts.enable()
        accounts.users()  # fails where the certificate is not root's
        _verify_by_certificates(run, enabled=True)
        accounts.delete_user(SWITCH)
    except BaseException as error:
        as_switch = msgspec.structs.replace(run.settings, user=SWITCH, password=password, password_file=None)
        with connect(as_switch) as kv:
            kv.accounts.disable()
        accounts.delete_user(SWITCH)
        if isinstance(error, StoreError):
            raise RefusedError(
                f"access control was switched on, and off again: {error}. Is etcd started with"
                " --client-cert-auth, and is the operator's certificate of the user root?"
            ) from error
        raise


def _verify_by_certificates(run: _Run, *, enabled: bool) -> None:
    """Check with each service's certificate that etcd takes it and gives it the planned rights.

    Raises RefusedError naming the service.
    """
    for service in run.services:
        for found in wrong_by_certificate(run.args.out, run.settings, service, enabled=enabled):
            raise RefusedError(f"{service.name}: {found}")

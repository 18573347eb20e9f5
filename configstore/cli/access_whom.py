"""What the verbs of `access` share: the services, the connection as the operator, what a certificate can do."""

import argparse
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import msgspec

from configstore.access import layout
from configstore.cli.arguments import store_settings
from configstore.errors import PermissionDeniedError, RefusedError, StoreError, UsageError
from configstore.model.grants import (
    Beside,
    Grant,
    Right,
    Service,
    beside,
    grants,
    included,
    neighbours,
    wanted,
    words,
)
from configstore.model.keys import Keys
from configstore.model.path import StorePath, printable
from configstore.presets.services import of_presets, of_settings, store_table
from configstore.settings import StoreSettings, endpoints_are_set
from configstore.store.api import Kv, range_all
from configstore.store.connect import connect
from configstore.store.envelope import Envelopes
from configstore.store.items import decode_item
from configstore.store.permissions import may
from configstore.store.values import UnreadableRecord

SWITCH = "configstore-switch"
"""The temporary user that can switch access control off again while it is switched on."""


def services_of(args: argparse.Namespace) -> tuple[Service, ...]:
    """Return the services that the options name. Raises UsageError, and RefusedError as `refuse_beside`."""
    services: tuple[Service, ...]
    if args.config:
        preset = ",".join(args.preset or ())
        services = (of_settings(file=args.config, preset=preset, environ={}, name=args.service or ""),)
    elif args.service and not args.preset:
        raise UsageError("--service: names one sidecar; say which by --config FILE, or by --preset NAME,NAME")
    else:
        services = of_presets(args.preset or ["mailu"], name=args.service or "")
    refuse_beside(beside(services))
    return services


def refuse_beside(found: Sequence[Beside]) -> None:
    """Raise RefusedError where a grant would include a path beside its subtree."""
    if found:
        one = found[0]
        raise RefusedError(
            f"{one.service}: its right to {'write' if one.right is not Right.READ else 'read'} {one.store}"
            f" (mapping {one.mapping}) would include {printable(one.neighbour)}, which lies beside it: one watch"
            " needs one range, and etcd sorts that name into it. Give the neighbour a name that does not begin"
            f" with {one.store} and a sign: move it by `configstore export`, `import` and `rm`"
        )


def settings_of(args: argparse.Namespace) -> StoreSettings:
    """Return how etcd is reached: with the operator's certificate in --out, unless options say otherwise."""
    config = getattr(args, "config", None)
    settings = store_settings(args, store_table(config), config or "")
    out = getattr(args, "out", None)
    if out and settings.cert is None and settings.user is None and all_tls(settings):
        files = layout.operator_files(out)
        if os.path.exists(files.cert):
            cacert = settings.cacert or files.cacert
            settings = msgspec.structs.replace(settings, cacert=cacert, cert=files.cert, key=files.key)
    return settings


def all_tls(settings: StoreSettings) -> bool:
    """Tell whether every endpoint is TLS."""
    return all(url.startswith("https://") for url in settings.endpoints)


def is_named(args: argparse.Namespace) -> bool:
    """Return whether options, variables or the settings file name an endpoint."""
    return endpoints_are_set(os.environ, vars(args)) or "endpoints" in store_table(getattr(args, "config", None))


def wanted_by(keys: Keys, services: Iterable[Service]) -> dict[str, tuple[Grant, ...]]:
    """Return the planned grants of each user's role."""
    return {service.user: grants(keys, service) for service in services}


@contextmanager
def as_root() -> Iterator[None]:
    """Raise RefusedError with what to type where etcd refuses, since only its user root may do this."""
    try:
        yield
    except PermissionDeniedError as error:
        raise RefusedError(
            f"{error}; only the user root may read and change users and roles: use the operator's certificate, by"
            " --out DIR or by --cert and --key"
        ) from error


def wrong_by_certificate(
    out: str | None, settings: StoreSettings, service: Service, *, enabled: bool
) -> Iterator[str]:
    """Yield what a service's certificate cannot do although it must, and can do although it must not."""
    if not out or not all_tls(settings):
        return
    keys = Keys(settings.root)
    files = layout.client_files(out, service.name, service.user)
    if not os.path.exists(files.cert):
        return
    own = msgspec.structs.replace(
        settings, cacert=files.cacert, cert=files.cert, key=files.key, user=None, password=None, password_file=None
    )
    try:
        with connect(own) as kv:
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
            if _is_root(kv):
                yield "its certificate is one of root's"
    except StoreError as error:
        yield f"etcd does not take its certificate {printable(files.cert)}: {error}"


def beside_in_store(kv: Kv, keys: Keys, services: Iterable[Service]) -> list[Beside]:
    """Return the paths of the store, tombstones excepted, that a grant includes beside its subtree."""
    found: dict[tuple[str, str], Beside] = {}
    envelopes = Envelopes(keys.root)
    for service in services:
        for need in service.needs:
            for page in range_all(kv, *neighbours(keys, need)) if need.store else ():
                there = (decode_item(keys, envelopes, item) for item in page.items)
                paths = (
                    StorePath(each.path) for each in there if isinstance(each, UnreadableRecord) or not each.gone
                )
                for one in (one for path in paths for one in included(service, path)):
                    found.setdefault((one.service, one.neighbour), one)
    return list(found.values())


def _is_root(kv: Kv) -> bool:
    try:
        kv.accounts.users()
    except PermissionDeniedError:
        return False
    return True

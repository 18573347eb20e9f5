"""Asks etcd and this machine for everything that `judge` wants to know. Called by `configstore doctor`.

Every endpoint is asked on its own and all at once; what answered is then used as one store. Each of these takes at
most a third of the time for one call, so that the whole takes about that time even when nobody answers.
"""

import errno
import os
import stat
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import TypeVar

import msgspec

from configstore.doctor.endpoints import failure, look_at_all, only
from configstore.doctor.facts import (
    Access,
    Directory,
    Facts,
    Failure,
    Inotify,
    Lack,
    Records,
    Ring,
    Room,
    Sealing,
    ServiceTrial,
    Trial,
)
from configstore.errors import (
    CompactedError,
    PermissionDeniedError,
    StoreError,
    StoreUnavailableError,
    UsageError,
)
from configstore.expiry import validity_of_file
from configstore.keyrings.file import KeyringFile
from configstore.model.grants import Grant, Right, Service, wanted, words
from configstore.model.keys import Keys
from configstore.model.path import ROOT, StorePath, first_component, printable
from configstore.model.replica import MappingState
from configstore.model.seal import Keyring
from configstore.settings import DEFAULT_STATE, StoreSettings
from configstore.store.api import CreateRevision, Delete, Kv, MemberStatus, Put
from configstore.store.connect import connect
from configstore.store.envelope import Envelopes
from configstore.store.lease_queue import held_up
from configstore.store.permissions import may
from configstore.store.replicas import live_reports
from configstore.store.tree import Tree
from configstore.store.values import Writer

TRIAL_TTL = 60
"""Seconds after which the key of a trial is gone, should neither its delete nor its lease's end succeed."""

MAX_FOLDERS = 100_000
"""More are not counted: no limit of inotify would be right for them."""

_CAP_FOWNER, _CAP_LEASE = 3, 28  # linux/capability.h

Found = TypeVar("Found")


def gather(
    settings: StoreSettings,
    writer: Writer,
    directories: Sequence[str] = (),
    service: Service | None = None,
    how: str = "",
    *,
    keyring: str | None = None,
    mappings: Sequence[Sealing] = (),
) -> Facts:
    """Find out all there is. Raises UsageError when a certificate file cannot be read.

    service: whose mappings are mirrored here, if that is known; `how`: the options that told it. keyring: path of
    its file, None for none. mappings: of the sidecar that it is judged for.
    """
    patience = settings.timeout / 3
    connect(settings).close()  # sends nothing, but reads the certificate files
    endpoints = look_at_all(settings, patience)
    ring, keys = _keyring(keyring, mappings) if keyring else (None, None)
    facts = Facts(
        keyring=ring,
        now=time.time(),
        root=settings.root,
        endpoints=endpoints,
        user=settings.user,
        client_certificate=settings.cert is not None,
        client_validity=validity_of_file(settings.cert),
        directories=tuple(map(look_at, directories)),
        state=_state(),
        inotify=_inotify(),
    )
    answering = tuple(each.url for each in endpoints if isinstance(each.status, MemberStatus))
    if not answering:
        return facts
    with connect(only(settings, answering, patience)) as kv:
        envelopes = Envelopes(settings.root, keyring=keys, lenient=True)
        tree = Tree(kv, Keys(settings.root), writer, envelopes=envelopes, patience=patience)
        return _ask(facts, kv, tree, service, how)


def _keyring(path: str, mappings: Sequence[Sealing]) -> tuple[Ring, Keyring | None]:
    """Look at a keyring's file, and at what it is for."""
    file = KeyringFile(path)
    try:
        keys = file.read()
    except UsageError as error:
        return Ring(path=path, failure=str(error), mappings=tuple(mappings)), None
    fitting = tuple(msgspec.structs.replace(each, fits=keys.fits(each.store)) for each in mappings)
    ids = tuple(key.id for key in keys.keys)
    return Ring(path=path, mode=file.mode, master=file.master, keys=ids, mappings=fitting), keys


def _ask(facts: Facts, kv: Kv, tree: Tree, service: Service | None, how: str) -> Facts:
    """Add what the store as a whole says, up to the first call that nobody answers."""
    key = tree.keys.trial(uuid.uuid4().hex)
    try:
        access = _or_failure(lambda: _access(kv, key, user=facts.user is not None))
        facts = msgspec.structs.replace(facts, access=access)
        if isinstance(access, Failure):
            return facts
        if service and access is Access.ON and not _is_person(kv, tree.keys):
            return _ask_as_service(facts, kv, tree, service, how)
        facts = msgspec.structs.replace(facts, trial=try_rights(kv, key))
        facts = msgspec.structs.replace(facts, compacted=_or_failure(lambda: compacted(kv, key)))
        return msgspec.structs.replace(facts, records=_or_failure(lambda: _records(tree)))
    except StoreUnavailableError as error:
        return msgspec.structs.replace(facts, cut_off=failure(error))


def _is_person(kv: Kv, keys: Keys) -> bool:
    """Tell whether the user may do all below the root key. Raises StoreUnavailableError."""
    with suppress(StoreError):
        return may(kv, Grant(f"{keys.root}/".encode(), f"{keys.root}0".encode(), Right.READWRITE))
    return False


def _ask_as_service(facts: Facts, kv: Kv, tree: Tree, service: Service, how: str) -> Facts:
    """As `_ask`, within what a service may do. Raises StoreUnavailableError."""
    facts = msgspec.structs.replace(facts, trial=try_leases(kv))
    part = _or_failure(lambda: _part(kv, tree.keys, service, how))
    facts = msgspec.structs.replace(facts, part=part)
    if isinstance(part, Failure) or part.lacks:
        return facts
    somewhere = tree.keys.file(service.needs[0].store)
    facts = msgspec.structs.replace(facts, compacted=_or_failure(lambda: compacted(kv, somewhere)))
    stores = tuple(need.store for need in service.needs)
    leases = {need.lease for need in service.needs} - {""}
    return msgspec.structs.replace(facts, records=_or_failure(lambda: _records(tree, stores, leases)))


def _part(kv: Kv, keys: Keys, service: Service, how: str) -> ServiceTrial:
    """Try all that a service needs, and what no service may have. Raises StoreError."""
    lacks = tuple(
        Lack(each.mapping, f"{each.grant.right} {words(keys.root, each.grant, printable)}", each.why)
        for each in wanted(keys, service)
        if not may(kv, each.grant)
    )
    start, end = keys.requests()
    beyond = ("write requests/*",) if may(kv, Grant(start, end, Right.WRITE)) else ()
    return ServiceTrial(
        service=service.name,
        how=how,
        mappings=tuple(need.mapping for need in service.needs),
        lacks=lacks,
        beyond=beyond,
    )


def try_leases(kv: Kv) -> Trial:
    """Try what every user may do: to grant, renew and end a lease. Raises StoreUnavailableError."""
    lease = _or_failure(lambda: kv.lease_grant(TRIAL_TTL))
    if isinstance(lease, Failure):
        return Trial(refused={"grant a lease": lease}, untried=("renew a lease",))
    renewed = _or_failure(lambda: kv.lease_keepalive(lease))
    with suppress(StoreError):
        kv.lease_revoke(lease)
    if isinstance(renewed, Failure):
        return Trial(allowed=("grant a lease",), refused={"renew a lease": renewed})
    return Trial(allowed=("grant a lease", "renew a lease"))


def _or_failure(call: Callable[[], Found]) -> Found | Failure:
    """Return a call's outcome. Raises StoreUnavailableError."""
    try:
        return call()
    except StoreUnavailableError:
        raise
    except StoreError as error:
        return failure(error)


def _access(kv: Kv, key: bytes, *, user: bool) -> Access:
    if user:
        return Access.ON if kv.login() else Access.OFF
    try:
        kv.range(key)
    except PermissionDeniedError:  # so it knows who we are, by the client certificate
        return Access.ON
    return Access.ON if kv.accounts.enabled() else Access.OPEN


def try_rights(kv: Kv, key: bytes) -> Trial:
    """Try every right that a person's command needs, on a key that nobody else uses; it does not stay.

    Raises StoreUnavailableError.
    """
    allowed: list[str] = []
    refused: dict[str, Failure] = {}

    def attempt(right: str, call: Callable[[], Found]) -> Found | None:
        found = _or_failure(call)
        if isinstance(found, Failure):
            refused[right] = found
            return None
        allowed.append(right)
        return found

    attempt("read", lambda: kv.range(key))
    lease = attempt("grant a lease", lambda: kv.lease_grant(TRIAL_TTL))
    if lease is None:
        return Trial(
            allowed=tuple(allowed), refused=refused, untried=("renew a lease", "write", "watch", "delete")
        )
    attempt("renew a lease", lambda: kv.lease_keepalive(lease))  # a proxy may grant leases and yet not renew any
    begun, took, left = time.monotonic(), 0.0, False
    try:
        made = attempt("write", lambda: kv.txn((CreateRevision(key, 0),), (Put(key, b"", lease),)))
        if made:
            took, left = time.monotonic() - begun, True
            at = made.revision
            attempt("watch", lambda: _first_event(kv, key, at))
            left = not attempt("delete", lambda: kv.txn((CreateRevision(key, at),), (Delete(key),)))
    finally:
        with suppress(StoreError):
            kv.lease_revoke(lease)
            left = False
    untried = () if made else ("watch", "delete")
    return Trial(allowed=tuple(allowed), refused=refused, untried=untried, took=took, left=left)


def compacted(kv: Kv, key: bytes) -> int:
    """Return the oldest revision that is still there, 0 when etcd was never compacted. Raises StoreError.

    A watch names it, at once when revision 1 is gone; else it would have etcd read its whole history.
    """
    try:
        kv.range(key, revision=1)
    except CompactedError:
        try:
            _first_event(kv, key, 1)
        except CompactedError as error:
            return error.compact_revision
    return 0


def _first_event(kv: Kv, key: bytes, revision: int, patience: float = 2.0) -> bool:
    """Watch a key from a revision on, until something is seen of it. Raises StoreError."""
    watch = kv.watch(key, key + b"\0", start_revision=revision)
    timer = threading.Timer(patience, watch.close)
    timer.start()
    try:
        if not any(batch.events for batch in watch):
            raise StoreError(
                f"nothing was heard of a change within {patience:g} s; does a proxy hold streams back?"
            )
    finally:
        timer.cancel()
        watch.close()
    return True


def _records(tree: Tree, stores: Sequence[StorePath] = (ROOT,), leases: Collection[str] | None = None) -> Records:
    """Look at the records of subtrees and at leases, at all of them unless told otherwise. Raises StoreError."""
    listings = [tree.list(store) for store in stores]
    there = {path for listing in listings for path, found in listing.records.items() if not found.gone}
    reports = live_reports(tree)
    return Records(
        subtrees=tuple(sorted({first_component(path) for path in there})),
        count=len(there),
        unreadable=tuple(sorted({bad.path for listing in listings for bad in listing.bad})),
        live=len({(each.replica, each.host) for each in reports}),
        unwell=tuple(
            printable(f"{each.mapping}: {each.replica}@{each.host}: {each.state}")
            for each in reports
            if each.state is not MappingState.READY
        ),
        held_up=tuple(held_up(tree, time.time(), leases)),
        unopened=Counter(
            found.record.seal.key
            for listing in listings
            for found in listing.records.values()
            if found.record.locked and found.record.seal
        ),
        reports=tuple(reports),
    )


def look_at(path: str) -> Directory:
    """Look at a local directory as the user who runs this."""
    try:
        status = os.stat(path)
        os.listdir(path)
    except OSError as error:
        return Directory(path=path, failure=error.strerror or str(error))
    return Directory(
        path=path,
        writable=os.access(path, os.W_OK | os.X_OK),
        sticky=bool(status.st_mode & stat.S_ISVTX),
        exempt=status.st_uid == os.geteuid() or _has(_CAP_FOWNER),
        leases=os.geteuid() != 0 or _has(_CAP_LEASE),
        room=_room(path),
        folders=_folders(path),
        watched=_try_watch(path),
    )


def _folders(path: str) -> int:
    """Count the folders of a tree, itself included, however deep; at most MAX_FOLDERS."""
    count, todo = 0, [path]
    while todo and count < MAX_FOLDERS:
        count += 1
        with suppress(OSError), os.scandir(todo.pop()) as entries:
            todo += [each.path for each in entries if each.is_dir(follow_symlinks=False)]
    return count


def _room(path: str) -> Room | None:
    with suppress(OSError):
        found = os.statvfs(path)
        return Room(
            free=found.f_bavail * found.f_frsize,
            size=found.f_blocks * found.f_frsize,
            free_inodes=found.f_favail,
            inodes=found.f_files,
        )
    return None


def _try_watch(path: str) -> str:
    """Return why the kernel does not watch a directory for this user; "" when it does."""
    from inotify_simple import INotify, flags  # noqa: PLC0415 - only where a directory is looked at

    try:
        with INotify() as trial:
            trial.add_watch(path, flags.CLOSE_WRITE)
    except OSError as error:
        limits = {errno.EMFILE: "max_user_instances", errno.ENOSPC: "max_user_watches"}
        name = limits.get(error.errno or 0)
        return f"fs.inotify.{name} is used up" if name else error.strerror or str(error)
    return ""


def _state() -> Directory | None:
    """Look at the directory in which a sidecar on this host remembers, where there is one."""
    path = os.environ.get("CONFIGSTORE_STATE") or DEFAULT_STATE
    return look_at(path) if os.path.isdir(path) else None


def _inotify() -> Inotify | None:
    with suppress(OSError, ValueError):
        found = []
        for name in ("max_user_instances", "max_user_watches"):
            with open(f"/proc/sys/fs/inotify/{name}", encoding="ascii") as file:
                found.append(int(file.read()))
        return Inotify(instances=found[0], watches=found[1])
    return None


def _has(capability: int) -> bool:
    """Whether this process has a capability, such as the one to act on any user's files."""
    with suppress(OSError), open("/proc/self/status", encoding="utf-8") as file:
        for line in file:
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
    return False

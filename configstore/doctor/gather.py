"""Asks etcd and this machine for everything that `judge` needs. Called by `configstore doctor`.

Each endpoint is asked on its own, all at the same time. Those that answer are then used as one store. Each of the
two steps takes at most a third of the time of one call, so the doctor ends in about that time even when nothing
answers.
"""

import time
import uuid
from collections import Counter
from collections.abc import Collection, Sequence

from msgspec.structs import replace

from configstore.doctor import machine, trials
from configstore.doctor.endpoints import failure, look_at_all, only
from configstore.doctor.facts import AccessControl, Facts, Failure, KeyringFacts, MappingSealing, Records
from configstore.doctor.trials import or_failure
from configstore.errors import StoreUnavailableError, UsageError
from configstore.expiry import validity_of_file
from configstore.keyrings.file import KeyringFile
from configstore.model.grants import Service
from configstore.model.keys import Keys
from configstore.model.path import ROOT, StorePath, first_component, printable
from configstore.model.replica import MappingState
from configstore.model.seal import Keyring
from configstore.settings import StoreSettings
from configstore.store.api import Kv, MemberStatus
from configstore.store.connect import connect
from configstore.store.envelope import Envelopes
from configstore.store.lease_queue import held_up
from configstore.store.replicas import live_reports
from configstore.store.tree import Tree
from configstore.store.values import Writer


def gather(
    settings: StoreSettings,
    writer: Writer,
    directories: Sequence[str] = (),
    service: Service | None = None,
    options: str = "",
    *,
    keyring: str | None = None,
    mappings: Sequence[MappingSealing] = (),
) -> Facts:
    """Return everything that can be found out. Raises UsageError when a certificate file cannot be read.

    service: the one whose rights are judged, if it is known; options: the command's options that named it.
    keyring: the path of its file, None for none. mappings: of the sidecar that the keyring is judged for.
    """
    patience = settings.timeout / 3
    connect(settings).close()  # sends nothing, but reads the certificate files
    endpoints = look_at_all(settings, patience)
    keyring_facts, keys = _keyring(keyring, mappings) if keyring else (None, None)
    facts = Facts(
        keyring=keyring_facts,
        now=time.time(),
        root=settings.root,
        endpoints=endpoints,
        user=settings.user,
        client_certificate=settings.cert is not None,
        client_validity=validity_of_file(settings.cert),
        directories=tuple(map(machine.look_at, directories)),
        state=machine.state_directory(),
        inotify=machine.inotify_limits(),
    )
    answering = tuple(each.url for each in endpoints if isinstance(each.status, MemberStatus))
    if not answering:
        return facts
    with connect(only(settings, answering, patience)) as kv:
        envelopes = Envelopes(settings.root, keyring=keys, lenient=True)
        tree = Tree(kv, Keys(settings.root), writer, envelopes=envelopes, patience=patience)
        return _ask(facts, kv, tree, service, options)


def _keyring(path: str, mappings: Sequence[MappingSealing]) -> tuple[KeyringFacts, Keyring | None]:
    """Return what a keyring's file is like, and its keys; None when it cannot be read."""
    file = KeyringFile(path)
    try:
        keys = file.read()
    except UsageError as error:
        return KeyringFacts(path=path, failure=str(error), mappings=tuple(mappings)), None
    fitting = tuple(replace(each, fits=keys.fits(each.store)) for each in mappings)
    ids = tuple(key.id for key in keys.keys)
    return KeyringFacts(path=path, mode=file.mode, master=file.master, keys=ids, mappings=fitting), keys


def _ask(facts: Facts, kv: Kv, tree: Tree, service: Service | None, options: str) -> Facts:
    """Add what the store as a whole answers, up to the first call without an answer."""
    key = tree.keys.trial(uuid.uuid4().hex)
    try:
        access = or_failure(lambda: trials.access_control(kv, key, user=facts.user is not None))
        facts = replace(facts, access=access)
        if isinstance(access, Failure):
            return facts
        if service and access is AccessControl.ON and not trials.may_do_everything(kv, tree.keys):
            return _ask_as_service(facts, kv, tree, service, options)
        facts = replace(facts, trial=trials.try_rights(kv, key))
        facts = replace(facts, compacted=or_failure(lambda: trials.compacted(kv, key)))
        return replace(facts, records=or_failure(lambda: _records(tree)))
    except StoreUnavailableError as error:
        return replace(facts, cut_off=failure(error))


def _ask_as_service(facts: Facts, kv: Kv, tree: Tree, service: Service, options: str) -> Facts:
    """As `_ask`, with only the rights that a service has. Raises StoreUnavailableError."""
    facts = replace(facts, trial=trials.try_leases(kv))
    trial = or_failure(lambda: trials.try_service(kv, tree.keys, service, options))
    facts = replace(facts, service=trial)
    if isinstance(trial, Failure) or trial.missing:
        return facts
    readable = tree.keys.file(service.needs[0].store)
    facts = replace(facts, compacted=or_failure(lambda: trials.compacted(kv, readable)))
    stores = tuple(need.store for need in service.needs)
    leases = {need.lease for need in service.needs} - {""}
    return replace(facts, records=or_failure(lambda: _records(tree, stores, leases)))


def _records(tree: Tree, stores: Sequence[StorePath] = (ROOT,), leases: Collection[str] | None = None) -> Records:
    """Return what the records of some subtrees are like, and the leases; None: all leases. Raises StoreError."""
    listings = [tree.list(store) for store in stores]
    there = {path for listing in listings for path, found in listing.records.items() if not found.gone}
    reports = live_reports(tree)
    return Records(
        subtrees=tuple(sorted({first_component(path) for path in there})),
        count=len(there),
        unreadable=tuple(sorted({bad.path for listing in listings for bad in listing.bad})),
        live=len({(each.replica, each.host) for each in reports}),
        unwell=tuple(
            printable(f"{each.mapping}: {each.name}: {each.state}")
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

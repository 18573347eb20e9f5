"""Asks the store for everything that an overview shows, in at most three seconds even when etcd is down.

It works with read rights, and with an etcd that is out of space: where replicas cannot be asked for a new report,
their last one is used. Called by `configstore status` and `ui.monitor`.
"""

import threading
import time

import msgspec

from configstore.doctor.endpoints import failure, look_at_all, only
from configstore.doctor.facts import Failure
from configstore.errors import PermissionDeniedError, StoreError, StoreUnavailableError
from configstore.expiry import validity_of_file
from configstore.model.keys import Keys
from configstore.model.path import ROOT
from configstore.overview.facts import OverviewFacts
from configstore.settings import StoreSettings
from configstore.store.api import MemberStatus
from configstore.store.conflicts import count_sides
from configstore.store.connect import connect
from configstore.store.lease_queue import held_up
from configstore.store.replicas import everyone
from configstore.store.report_feed import PATIENCE, Answers, ask_reports
from configstore.store.store import Store

MEMBERS = 2.3
"""Seconds that members have for their status, while none has answered."""

DEADLINE = 2.7
"""Seconds after which nothing more is waited for."""


def gather(settings: StoreSettings) -> OverviewFacts:
    """Return the facts, after at most three seconds. Raises UsageError for an unreadable certificate file."""
    end = time.monotonic() + DEADLINE
    connect(settings).close()  # sends nothing, but reads the certificate files
    endpoints = look_at_all(settings, MEMBERS)
    facts = OverviewFacts(
        now=time.time(),
        root=settings.root,
        endpoints=endpoints,
        client_certificate=validity_of_file(settings.cert),
    )
    answering = tuple(each.url for each in endpoints if isinstance(each.status, MemberStatus))
    if not answering:
        return facts
    with connect(only(settings, answering, max(0.5, end - time.monotonic()))) as kv:
        over = threading.Timer(max(0.5, end - time.monotonic()), kv.close)
        over.daemon = True
        over.start()
        try:
            return _ask(facts, Store(kv, Keys(settings.root)), end)
        finally:
            over.cancel()


def _ask(facts: OverviewFacts, store: Store, end: float) -> OverviewFacts:
    """Add what the store holds, up to the first call that fails."""
    replace = msgspec.structs.replace
    try:
        first = store.below(ROOT, limit=1, keys_only=True)
        facts = replace(facts, revision=first.revision, empty=not first.items)
        answers, stale = _reports(store, end)
        known = answers.everyone
        facts = replace(
            facts,
            now=time.time(),
            reports=tuple(answers.fresh),
            late=tuple(answers.late),
            stale=stale,
            hasty=answers.hasty,
            gone=tuple(gone for gone, _ in known.gone(store.keys).values()),
            unread=known.unread,
        )
        facts = replace(facts, conflicts=count_sides(store))
        return replace(facts, held_up=tuple(held_up(store, facts.now)))
    except StoreError as error:
        if facts.revision and isinstance(error, StoreUnavailableError):
            return replace(facts, cut_off=Failure(f"not all could be read within {DEADLINE:g} s"))
        return replace(facts, cut_off=failure(error))


def _reports(store: Store, end: float) -> tuple[Answers, str]:
    """Return the replicas' reports, and why replicas could not be asked for new ones ("" when they could)."""
    patience = max(0.0, min(PATIENCE, end - time.monotonic()))
    try:
        return ask_reports(store, patience), ""
    except StoreUnavailableError:
        raise
    except StoreError as error:
        why = "this user may read only" if isinstance(error, PermissionDeniedError) else str(error)
    found = everyone(store)
    return Answers(fresh=[report for report, _ in found.live.values()], late=[], everyone=found), why

"""The contact with the store as text: for the log, for each line of `/readyz`, and for the control socket."""

import logging
from datetime import UTC, datetime

from configstore.clock import boottime
from configstore.errors import StoreUnavailableError
from configstore.store.api import Contact

log = logging.getLogger(__name__)


class ContactLog:
    """Writes one line when the store has fallen silent, and one when it answers again."""

    def __init__(self) -> None:
        self._lost_at: float | None = None

    def changed(self, contact: Contact) -> None:
        """Take the contact that `Kv.follow_contact` reports."""
        if not contact.connected:
            self._lost_at = boottime() - contact.silent
            extra = {"last_contact": last_contact(contact) or "never", "reason": contact.reason}
            log.warning("the store does not answer; files stay as they are, edits wait", extra=extra)
        elif self._lost_at is not None:
            away = f"{boottime() - self._lost_at:.1f} s"
            self._lost_at = None
            log.warning("the store answers again", extra={"away": away})


def last_contact(contact: Contact) -> str | None:
    """Return when the store last answered, such as `2026-11-28T14:39:46Z`; None for never."""
    return f"{datetime.fromtimestamp(contact.last, UTC):%Y-%m-%dT%H:%M:%SZ}" if contact.last else None


def silence(contact: Contact) -> str:
    """Return a sentence while the store is silent, else ""."""
    if contact.connected:
        return ""
    last = last_contact(contact)
    since = f"has not answered since {last}" if last else "has not answered yet"
    return f"the store {since} ({contact.silent:.0f} s): {contact.reason}"


def is_silence(error: Exception, contact: Contact, begun: float) -> bool:
    """Return whether a failure is only the store's silence, which is logged once for all callers that it hits.

    begun: when the failed call was begun, on the clock `boottime`. If the store answered any call since then, the
    failure is one of its own.
    """
    return isinstance(error, StoreUnavailableError) and boottime() - begun <= contact.silent


def fields(contact: Contact) -> dict[str, object]:
    """Return the contact for programs; `last_contact` is UTC or None, `silent` in seconds."""
    return {
        "connected": contact.connected,
        "last_contact": last_contact(contact),
        "silent": round(contact.silent, 1),
        "reason": contact.reason,
    }

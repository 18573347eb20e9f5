"""What is said of the contact with the store: in the log, at the end of each line of `/readyz`, in the status."""

import logging
from collections.abc import Callable
from datetime import UTC, datetime

from configstore.clock import boottime
from configstore.errors import StoreUnavailableError
from configstore.store.api import Contact

log = logging.getLogger(__name__)


class ContactLog:
    """Writes one line when the store has fallen silent, and one when it answers again."""

    def __init__(self, clock: Callable[[], float] = boottime) -> None:
        self._clock = clock
        self._lost_at: float | None = None

    def told(self, contact: Contact) -> None:
        """Take what `Kv.follow_contact` tells."""
        if not contact.connected:
            self._lost_at = self._clock() - contact.silent
            extra = {"last_contact": last_contact(contact) or "never", "reason": contact.reason}
            log.warning("the store does not answer; files stay as they are, edits wait", extra=extra)
        elif self._lost_at is not None:
            away = f"{self._clock() - self._lost_at:.1f} s"
            self._lost_at = None
            log.warning("the store answers again", extra={"away": away})


def last_contact(contact: Contact) -> str | None:
    """Return when the store last answered, such as `2026-11-28T14:39:46Z`; None for never."""
    return f"{datetime.fromtimestamp(contact.last, UTC):%Y-%m-%dT%H:%M:%SZ}" if contact.last else None


def silence(contact: Contact) -> str:
    """Return what is to be said beside everything else while the store is silent; empty while it is not."""
    if contact.connected:
        return ""
    last = last_contact(contact)
    since = f"has not answered since {last}" if last else "has not answered yet"
    return f"the store {since} ({contact.silent:.0f} s): {contact.reason}"


def is_silence(error: Exception, contact: Contact, begun: float) -> bool:
    """Tell whether a failure is but the store's silence, of which one line is written for all who meet it.

    begun: when what failed was begun, on the clock `boottime`. An answer since then, to whomever, makes it a
    failure of its own.
    """
    return isinstance(error, StoreUnavailableError) and boottime() - begun <= contact.silent


def fields(contact: Contact) -> dict[str, object]:
    """Return it for programs; `last_contact` is UTC or None, `silent` in seconds."""
    return {
        "connected": contact.connected,
        "last_contact": last_contact(contact),
        "silent": round(contact.silent, 1),
        "reason": contact.reason,
    }

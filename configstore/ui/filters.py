"""The filters of the templates: values as text or HTML. Called by the templates and by `proposals`.

All text from the store is escaped twice: for HTML, and so that nothing unprintable, such as a mark that turns the
direction of text, can make one path look like another.
"""

import re
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from configstore.model.path import printable, shown
from configstore.model.record import Entry, Kind, Origin

_TICKED = re.compile(r"`([^`]+)`")
_WHOLE = re.compile(r"configstore |etcdctl ")
_PLACEHOLDER = re.compile(r"\b[A-Z]{2,}\b")


def visible(value: object) -> object:
    """Escape unprintable characters of any text; the templates' `finalize`."""
    if isinstance(value, Markup) or not isinstance(value, str):
        return value
    return printable(value)


def ticked(text: str) -> Markup:
    """Return a text as HTML, with the commands between backticks as code."""
    parts = _TICKED.split(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(printable(part)) if number % 2 else escape(printable(part))
        for number, part in enumerate(parts)
    )


def commands(text: str) -> list[str]:
    """Return the commands between backticks in a text that can be typed as they are, without placeholders."""
    return [each for each in _TICKED.findall(text) if _WHOLE.match(each) and not _PLACEHOLDER.search(each)]


def age(seconds: float) -> str:
    """Return how long ago something was; ui.js renews it in the same words."""
    for limit, size, unit in ((90, 1, "s"), (5400, 60, "min"), (172800, 3600, "h"), (float("inf"), 86400, "days")):
        if abs(seconds) < limit:
            return f"{abs(seconds) / size:.0f} {unit}" + (" ago" if seconds >= 0 else " ahead")
    raise AssertionError("unreachable: the last limit is endless")


def when(text: str, now: datetime | None = None) -> Markup:
    """Return a time of RFC 3339 as HTML with its age, or the text itself when it is no such time."""
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except ValueError:
        return escape(printable(text) or "unknown")
    return _time(moment, now)


def clock(text: str) -> str:
    """Return a time of RFC 3339 for a sentence, or the text itself when it is no such time."""
    try:
        return datetime.fromisoformat(text).astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except ValueError:
        return printable(text) or "an unknown time"


def since(seconds: float, now: datetime | None = None) -> Markup:
    """Return a time in Unix seconds as HTML with its age; 0 is never."""
    return _time(datetime.fromtimestamp(seconds, UTC), now) if seconds else escape("never")


def _time(moment: datetime, now: datetime | None) -> Markup:
    now = now or datetime.now(UTC)
    exact = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    plain = moment.strftime("%H:%M:%S UTC" if moment.date() == now.date() else "%Y-%m-%d %H:%M:%S UTC")
    return Markup(
        '<time datetime="{}" title="{}"><span class="age">{}</span> <span class="at">{}</span></time>'
    ).format(exact, clock(exact), age((now - moment).total_seconds()), plain)


def size(count: int) -> str:
    """Return a size in bytes in a suitable unit."""
    if count < 10000:
        return f"{count} B"
    return f"{count / 1024:.0f} KiB" if count < 10 * 2**20 else f"{count / 2**20:.0f} MiB"


def what(entry: Entry) -> str:
    """Return kind, mode and size of a path."""
    if entry.kind is Kind.GONE:
        return "deleted"
    if entry.kind is Kind.SYMLINK:
        return f"link to {printable(entry.target)}" if entry.target else "link, sealed"
    mode = f"{entry.mode:04o}"
    return f"directory, {mode}" if entry.kind is Kind.DIR else f"file, {mode}, {size(entry.size)}"


def owner(entry: Entry) -> str:
    """Return a path's owner and group."""
    if entry.uid is None and entry.user is None:
        return "left to each replica"
    user = entry.user or str(entry.uid)
    group = entry.group or ("" if entry.gid is None else str(entry.gid))
    return printable(f"{user}:{group}" if group else user)


def who(origin: Origin) -> str:
    """Return the replica, host and lease that wrote a record."""
    lease = f" under lease {origin.lease}" if origin.lease else ""
    return printable(f"{origin.replica}@{origin.host}{lease}")


def link(path: str) -> str:
    """Return a path quoted for a URL."""
    return quote(path, safe="/")


FILTERS = {
    "age": age,
    "commands": commands,
    "link": link,
    "owner": owner,
    "shown": shown,
    "since": since,
    "size": size,
    "ticked": ticked,
    "what": what,
    "when": when,
    "who": who,
}

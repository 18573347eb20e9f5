"""Short phrases that several rooms print: a list cut short, a count with its noun, a size. Pure."""

from collections.abc import Sequence


def first_of(names: Sequence[str], limit: int, *, total: int | None = None, separator: str = ", ") -> str:
    """Return the first `limit` names and how many more there are, such as `a, b and 3 more`.

    total: how many there are in all, where not all of their names are known.
    """
    named = names[:limit]
    more = (len(names) if total is None else total) - len(named)
    text = separator.join(named)
    if more <= 0:
        return text
    return f"{text}{'' if separator == ', ' else separator.rstrip()} and {more} more"


def counted(count: int, noun: str) -> str:
    """Return a count with its noun, in the plural unless there is one: `1 edit`, `2 edits`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def mib(size: float) -> str:
    """Return a size in bytes as MiB."""
    return f"{size / 2**20:.1f} MiB"

"""The page of the figures of `/metrics`, made from the table that the sidecar serves them by."""

from sidecar.reporting.metrics import SERIES
from tests.reference.markdown import MADE, code, plain, sentence, table

PAGE = """\
# Metrics

What `/metrics` of a sidecar serves, in Prometheus' text format (version 0.0.4), at the address of
`[health] listen` ([settings](../settings.md#the-rest)): by default for this host alone. A scrape never asks the
store. Times are seconds; those that end in `_timestamp_seconds` count from 1970. A figure with the label `mapping`
is served for each mapping, one with the label `lease` for each lease of a mapping. What cannot be known is left
out. [Monitoring](../monitoring/README.md) says what to do with them.

{table}
"""


def page() -> str:
    """Return the page."""
    return f"{MADE}\n\n{PAGE.format(table=table(['name', 'type', 'labels', 'meaning'], rows()))}"


def rows() -> list[list[str]]:
    """Return a row for each series, in the order in which they are served."""
    found = []
    for each in SERIES.values():
        labels = ", ".join(map(code, each.labels))
        found.append([code(f"configstore_{each.name}"), each.kind, labels, sentence(plain(each.words))])
    return found

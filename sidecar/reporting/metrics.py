"""What `/metrics` tells: every series in one table, and the text format of Prometheus (version 0.0.4).

`docs/reference/metrics.md` is made from it. Values are handed in: nothing here asks the store, the disk or an
engine. Called by `health`; the daemon measures what belongs to no mapping.
"""

import sys
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence

import msgspec

from configstore import __version__
from configstore.store.api import Contact
from sidecar.reporting.latency import BUCKETS, Latency
from sidecar.reporting.status import Status


class Series(msgspec.Struct, frozen=True):
    """One series: its name without `configstore_`, gauge, counter or histogram, its labels, and what it is."""

    name: str
    kind: str
    labels: tuple[str, ...]
    words: str


class Sample(msgspec.Struct, frozen=True):
    """A value of a series. values: of its labels, in their order."""

    series: str
    values: tuple[str, ...]
    value: float | Latency


_OF_MAPPING = ("mapping",)
_OF_LEASE = ("lease",)

SERIES = {
    each.name: each
    for each in (
        Series("build_info", "gauge", ("version", "python"), "1; its labels say what runs here"),
        Series("connected", "gauge", (), "1 while the store answers writes and linearizable reads"),
        Series("last_contact_timestamp_seconds", "gauge", (), "When the store last answered; 0 for never"),
        Series("log_dropped_total", "counter", (), "Log lines lost because nobody read them"),
        Series(
            "certificate_begin_timestamp_seconds",
            "gauge",
            ("certificate", "path"),
            "From when on that certificate is valid: what lives shortly is renewed late",
        ),
        Series(
            "certificate_expiry_timestamp_seconds",
            "gauge",
            ("certificate", "path"),
            "When the first certificate to end of a file ends by which etcd is reached: of `cacert` or of `cert`",
        ),
        Series(
            "keyring_unreadable",
            "gauge",
            (),
            "1 while the keyring's file is gone or cannot be read, so that the one before it is used",
        ),
        Series(
            "mapping_info",
            "gauge",
            ("mapping", "service"),
            "1; its labels say whose container a mapping of a preset is for",
        ),
        Series("ready", "gauge", _OF_MAPPING, "1 while it may be served: it was complete, and no more"),
        Series("complete", "gauge", _OF_MAPPING, "1 while every record of the mapping is applied"),
        Series("degraded", "gauge", _OF_MAPPING, "1 while it is served although a path has a problem"),
        Series("halted", "gauge", _OF_MAPPING, "1 while the mapping waits for a person"),
        Series("waiting", "gauge", _OF_MAPPING, "1 while the mapping cannot go on by itself"),
        Series("stuck", "gauge", _OF_MAPPING, "1 while its engine makes no progress, so that /livez fails"),
        Series(
            "watch_incomplete",
            "gauge",
            _OF_MAPPING,
            "1 while not every change of a file here is noticed at once, such as where files are polled",
        ),
        Series("problems", "gauge", _OF_MAPPING, "Paths that cannot be mirrored now"),
        Series(
            "unopened",
            "gauge",
            _OF_MAPPING,
            "Those of the problems that are about sealing: a record that no key here opens, or that is plain where"
            " it may not be",
        ),
        Series(
            "conflicts", "gauge", _OF_MAPPING, "Losing sides of conflicts that the store keeps for the mapping"
        ),
        Series("paths", "gauge", _OF_MAPPING, "Paths on which store and replica agree"),
        Series("pending", "gauge", _OF_MAPPING, "Paths that wait to travel"),
        Series("pending_seconds", "gauge", _OF_MAPPING, "Age of the oldest waiting path"),
        Series("behind", "gauge", _OF_MAPPING, "Paths of which the store has a newer record than is applied here"),
        Series("revision", "gauge", _OF_MAPPING, "Store revision up to which the mapping has seen"),
        Series("pushed_total", "counter", _OF_MAPPING, "Paths written to the store"),
        Series("pulled_total", "counter", _OF_MAPPING, "Paths written to the local directory"),
        Series("cycles_total", "counter", _OF_MAPPING, "Cycles made"),
        Series(
            "set_latency_seconds",
            "histogram",
            _OF_MAPPING,
            "From the first change of a set noticed here until all of it that was sent is committed, `settle`"
            " included; or from a set's arrival from the store until it is applied here. Deletions alone, which"
            " wait on purpose, are not counted",
        ),
        Series("lease_held", "gauge", _OF_LEASE, "1 while a client of this sidecar holds the lease"),
        Series("lease_held_seconds", "gauge", _OF_LEASE, "For how long it has held it; 0 while none does"),
        Series("lease_waiting", "gauge", _OF_LEASE, "Clients of this sidecar that wait for the lease"),
        Series(
            "lease_waiting_seconds", "gauge", _OF_LEASE, "For how long the first of them has waited; 0 for none"
        ),
    )
}
"""All that there is, in the order in which it is told."""

_FROM_STATUS: dict[str, Callable[[Status, float], float]] = {
    "ready": lambda status, _: status.ready,
    "complete": lambda status, _: status.complete,
    "degraded": lambda status, _: status.degraded,
    "halted": lambda status, _: status.halted is not None,
    "waiting": lambda status, _: status.waiting_for is not None,
    "watch_incomplete": lambda status, _: status.watch_incomplete,
    "problems": lambda status, _: len(status.problems),
    "unopened": lambda status, _: sum(problem.sealing for problem in status.problems),
    "paths": lambda status, _: status.paths,
    "pending": lambda status, _: status.pending,
    "pending_seconds": lambda status, now: (
        0 if status.pending_since is None else max(0, now - status.pending_since)
    ),
    "behind": lambda status, _: status.behind,
    "revision": lambda status, _: status.revision,
    "pushed_total": lambda status, _: status.pushed,
    "pulled_total": lambda status, _: status.pulled,
    "cycles_total": lambda status, _: status.cycles,
}


def metrics(statuses: Sequence[Status], contact: Contact, now: float, others: Iterable[Sample] = ()) -> str:
    """Return the text that Prometheus reads. now: on the engines' clock. others: what the statuses do not say."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for sample in (*_of_process(contact), *_of_mappings(statuses, now), *others):
        samples[sample.series].append(sample)
    return "".join(f"{line}\n" for series in SERIES.values() for line in _lines(series, samples[series.name]))


def _of_process(contact: Contact) -> Iterator[Sample]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Sample("build_info", (__version__, python), 1)
    yield Sample("connected", (), contact.connected)
    yield Sample("last_contact_timestamp_seconds", (), contact.last)


def _of_mappings(statuses: Sequence[Status], now: float) -> Iterator[Sample]:
    for name, value in _FROM_STATUS.items():
        for status in statuses:
            yield Sample(name, (status.mapping,), value(status, now))


def _lines(series: Series, samples: Sequence[Sample]) -> Iterator[str]:
    """Yield the lines of one series; none when there is nothing to tell of it."""
    if not samples:
        return
    name = f"configstore_{series.name}"
    yield f"# HELP {name} {series.words}."
    yield f"# TYPE {name} {series.kind}"
    for sample in samples:
        labels = dict(zip(series.labels, sample.values, strict=True))
        if isinstance(sample.value, Latency):
            yield from _histogram(name, labels, sample.value)
        else:
            yield _line(name, labels, sample.value)


def _histogram(name: str, labels: dict[str, str], latency: Latency) -> Iterator[str]:
    counts, total = latency.seen()
    below = 0
    for bound, count in zip((*map("{:g}".format, BUCKETS), "+Inf"), counts, strict=True):
        below += count
        yield _line(f"{name}_bucket", {**labels, "le": bound}, below)
    yield _line(f"{name}_sum", labels, total)
    yield _line(f"{name}_count", labels, below)


def _line(name: str, labels: dict[str, str], value: float) -> str:
    shown = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
    return f"{name}{{{shown}}} {float(value):.15g}" if shown else f"{name} {float(value):.15g}"


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace('"', r"\"").replace("\n", r"\n")

"""The answer of `/metrics`: every series in one table, and the text format of Prometheus (version 0.0.4).

`docs/reference/metrics.md` is made from the table. Values are handed in: nothing here asks the store, the disk or
an engine. Called by `health`; the samples that no status has come from `daemon.parts`.
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
    """One series: its name without `configstore_`, gauge, counter or histogram, its labels, and its help text.

    of_status: returns its value from a mapping's status and the engines' clock; None where samples are handed in.
    """

    name: str
    kind: str
    labels: tuple[str, ...]
    words: str
    of_status: Callable[[Status, float], float] | None = None


class Sample(msgspec.Struct, frozen=True):
    """A value of a series. values: those of its labels, in their order."""

    series: str
    values: tuple[str, ...]
    value: float | Latency


def _gauge(name: str, labels: str, words: str) -> Series:
    return Series(name, "gauge", tuple(labels.split()), words)


def _of_status(
    name: str, words: str, value: Callable[[Status, float], float] | None = None, kind: str = "gauge"
) -> Series:
    """Return a series of each mapping; without `value` it is the field of the status that has its name."""
    return Series(name, kind, ("mapping",), words, value or (lambda status, _: getattr(status, name)))


def _pending_seconds(status: Status, now: float) -> float:
    return 0 if status.pending_since is None else max(0, now - status.pending_since)


SERIES = {
    each.name: each
    for each in (
        _gauge("build_info", "version python", "1; its labels say what runs here"),
        _gauge("connected", "", "1 while the store answers writes and linearizable reads"),
        _gauge("last_contact_timestamp_seconds", "", "When the store last answered; 0 for never"),
        Series("log_dropped_total", "counter", (), "Log lines lost because nobody read them"),
        _gauge(
            "certificate_begin_timestamp_seconds",
            "certificate path",
            "From when on that certificate is valid: what lives shortly is renewed late",
        ),
        _gauge(
            "certificate_expiry_timestamp_seconds",
            "certificate path",
            "When the first certificate to end of a file ends by which etcd is reached: of `cacert` or of `cert`",
        ),
        _gauge(
            "keyring_unreadable",
            "",
            "1 while the keyring's file is gone or cannot be read, so that the one before it is used",
        ),
        _gauge(
            "mapping_info", "mapping service", "1; its labels say whose container a mapping of a preset is for"
        ),
        _of_status("ready", "1 while it may be served: it was complete, and no more"),
        _of_status("complete", "1 while every record of the mapping is applied"),
        _of_status("degraded", "1 while it is served although a path has a problem"),
        _of_status("halted", "1 while the mapping waits for a person", lambda now, _: now.halted is not None),
        _of_status(
            "waiting", "1 while the mapping cannot go on by itself", lambda now, _: now.waiting_for is not None
        ),
        _gauge("stuck", "mapping", "1 while its engine makes no progress, so that /livez fails"),
        _of_status(
            "watch_incomplete",
            "1 while not every change of a file here is noticed at once, such as where files are polled",
        ),
        _of_status("problems", "Paths that cannot be mirrored now", lambda now, _: len(now.problems)),
        _of_status(
            "unopened",
            "Those of the problems that are about sealing: a record that no key here opens, or that is plain where"
            " it may not be",
            lambda now, _: sum(problem.sealing for problem in now.problems),
        ),
        _gauge("conflicts", "mapping", "Losing sides of conflicts that the store keeps for the mapping"),
        _of_status("paths", "Paths on which store and replica agree"),
        _of_status("pending", "Paths that wait to travel"),
        _of_status("pending_seconds", "Age of the oldest waiting path", _pending_seconds),
        _of_status("behind", "Paths of which the store has a newer record than is applied here"),
        _of_status("revision", "Store revision up to which the mapping has seen"),
        _of_status("pushed_total", "Paths written to the store", lambda now, _: now.pushed, "counter"),
        _of_status("pulled_total", "Paths written to the local directory", lambda now, _: now.pulled, "counter"),
        _of_status("cycles_total", "Cycles made", lambda now, _: now.cycles, "counter"),
        Series(
            "set_latency_seconds",
            "histogram",
            ("mapping",),
            "From the first change of a set noticed here until all of it that was sent is committed, `settle`"
            " included; or from a set's arrival from the store until it is applied here. Deletions alone, which"
            " wait on purpose, are not counted",
        ),
        _gauge("lease_held", "lease", "1 while a client of this sidecar holds the lease"),
        _gauge("lease_held_seconds", "lease", "For how long it has held it; 0 while none does"),
        _gauge("lease_waiting", "lease", "Clients of this sidecar that wait for the lease"),
        _gauge("lease_waiting_seconds", "lease", "For how long the first of them has waited; 0 for none"),
    )
}
"""All series, in the order of the answer and of the reference."""


def metrics(statuses: Sequence[Status], contact: Contact, now: float, others: Iterable[Sample] = ()) -> str:
    """Return the text that Prometheus reads. now: on the engines' clock. others: samples that no status has."""
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
    for series in SERIES.values():
        if series.of_status:
            for status in statuses:
                yield Sample(series.name, (status.mapping,), series.of_status(status, now))


def _lines(series: Series, samples: Sequence[Sample]) -> Iterator[str]:
    """Yield the lines of one series; none without a sample."""
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

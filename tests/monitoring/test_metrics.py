"""A live sidecar's metrics: every series, in the format that Prometheus reads."""

import re

import pytest

from configstore import __version__
from sidecar.reporting.latency import BUCKETS
from sidecar.reporting.metrics import SERIES

pytestmark = pytest.mark.xdist_group("monitoring")


def test_prometheus_reads_them_and_has_nothing_to_complain_of(promtool, live):
    assert promtool("check", "metrics", content=live) == ""


def test_every_series_is_told_and_no_other(live):
    told = re.findall(r"^# TYPE configstore_(\w+) (\w+)$", live, re.MULTILINE)
    assert told == [(each.name, each.kind) for each in SERIES.values()]
    for each in SERIES.values():
        assert live.count(f"# HELP configstore_{each.name} {each.words}.\n") == 1


def test_each_sample_has_the_labels_of_its_series(live):
    for line in live.splitlines():
        if not line.startswith("#"):
            name, labels = re.fullmatch(r"configstore_(\w+?)(?:\{(.*)\})? \S+", line).groups()
            found = re.findall(r'(\w+)="[^"]*"', labels or "")
            series = SERIES.get(name) or SERIES[re.sub(r"_(bucket|sum|count)$", "", name)]
            assert tuple(found) == series.labels + (("le",) if name.endswith("_bucket") else ())


def test_the_histogram_adds_up(live):
    line = r'^configstore_set_latency_seconds_bucket\{mapping="data",le="(.*)"\} (\d+)$'
    lines = re.findall(line, live, re.MULTILINE)
    bounds, counts = zip(*lines, strict=True)
    assert bounds == (*(f"{bound:g}" for bound in BUCKETS), "+Inf")
    assert list(counts) == sorted(counts, key=int)
    assert f'configstore_set_latency_seconds_count{{mapping="data"}} {counts[-1]}\n' in live
    (total,) = re.findall(r'^configstore_set_latency_seconds_sum\{mapping="data"\} (\S+)$', live, re.MULTILINE)
    assert 0.02 <= float(total) < 60  # its settle time, at least


def test_they_say_what_runs_and_how_it_stands(live):
    assert f'configstore_build_info{{version="{__version__}",python="3.' in live
    for line in ('ready{mapping="data"} 1', 'stuck{mapping="data"} 0', "connected 1", "log_dropped_total 0",
                 'lease_held{lease="certbot"} 0', 'lease_waiting{lease="certbot"} 0',
                 'conflicts{mapping="data"} 0', 'watch_incomplete{mapping="data"} 0'):  # fmt: skip
        assert f"configstore_{line}\n" in live
    ends = re.findall(r'configstore_certificate_expiry_timestamp_seconds\{certificate="(\w+)",path="\S+"\}', live)
    assert ends == ["cacert", "cert"]

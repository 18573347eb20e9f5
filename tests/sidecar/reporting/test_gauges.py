"""What the figures tell of conflicts and certificates."""

import os
import time

import pytest

from configstore.errors import PermissionDeniedError
from configstore.expiry import Validity, first_to_end, last_to_end
from configstore.model.keys import Keys
from configstore.settings import StoreSettings
from configstore.store.api import Put
from sidecar.mapping import Mapping
from sidecar.reporting.gauges import GaugeCollector
from tests.harness.certificates import Authority
from tests.harness.waiting import wait_until
from tests.memory_store.state import MemoryStore
from tests.memory_store.store import MemoryKv

KEYS = Keys()
MAPPINGS = (
    Mapping(name="outer", store="over", path="/over", holes=("in",), exclude=("*.log",)),
    Mapping(name="inner", store="over/in", path="/over/in"),
    Mapping(name="all", store="", path="/all"),
)


@pytest.fixture
def kv():
    return MemoryKv(MemoryStore(clock=lambda: 0.0))


def samples(outside, series):
    return {each.values: each.value for each in outside.samples() if each.series == series}


def test_each_mapping_counts_the_losing_sides_of_what_it_selects(kv):
    sides = ["over/a", "over/a", "over/b/c", "over/in/d", "over/x.log", "overall/e"]
    keys = [KEYS.conflict(path, f"id{number}") for number, path in enumerate(sides)]
    keys.append(KEYS.conflict_chunk("over/a", "id0", "0" * 64))  # is a part of one of them
    keys.append(KEYS.conflict_root() + b"\xff//id")
    kv.txn((), [Put(key, b"", 0) for key in keys])
    outside = GaugeCollector(kv, StoreSettings(), MAPPINGS)
    assert samples(outside, "conflicts") == {}
    outside.read()
    assert samples(outside, "conflicts") == {("outer",): 3, ("inner",): 1, ("all",): 6}


def test_what_a_service_may_not_read_is_not_told_as_none(kv, monkeypatch):
    def refused(*_, **__):
        raise PermissionDeniedError("no right")

    monkeypatch.setattr(kv, "range", refused)
    outside = GaugeCollector(kv, StoreSettings(), MAPPINGS)
    outside.read()
    assert samples(outside, "conflicts") == {}


def test_only_a_conflict_that_was_lost_here_is_a_reason_to_look_sooner(kv, monkeypatch):
    """Every replica hears of every change: one that only came in must not have each read the store again."""
    monkeypatch.setattr("sidecar.reporting.gauges.PAUSE", 0.0)
    monkeypatch.setattr("sidecar.reporting.gauges.PERIOD", 600.0)
    lost, ranged, reads = [0], kv.range, []
    monkeypatch.setattr(kv, "range", lambda *a, **b: reads.append(a) or ranged(*a, **b))
    outside = GaugeCollector(kv, StoreSettings(), MAPPINGS[2:], lambda: list(lost))
    outside.start()
    wait_until(lambda: samples(outside, "conflicts") == {("all",): 0})
    first = len(reads)
    outside.wake()
    assert not outside._due.is_set()
    kv.txn((), [Put(KEYS.conflict("a", "id"), b"", 0)])
    lost[0] += 1
    outside.wake()
    wait_until(lambda: samples(outside, "conflicts") == {("all",): 1})
    assert len(reads) == 2 * first
    outside.close()


@pytest.fixture
def outside(kv, tmp_path):
    """Return a look at the files of an authority, which a test may change."""
    authority = Authority(tmp_path)
    pem = authority.issue("client", days=5)
    settings = StoreSettings(
        endpoints=("https://h:1",), cacert=str(authority.cacert), cert=str(pem.cert), key=str(pem.key)
    )
    looked = GaugeCollector(kv, settings, ())
    looked.read()
    looked.authority, looked.paths = authority, (str(authority.cacert), str(pem.cert))
    return looked


def days(outside):
    found = samples(outside, "certificate_expiry_timestamp_seconds")
    return {name: round((end - time.time()) / 86400) for (name, _), end in found.items()}


def test_it_tells_when_the_certificates_end_and_a_renewal(outside):
    assert days(outside) == {"cacert": 1, "cert": 5}
    named = set(samples(outside, "certificate_expiry_timestamp_seconds"))
    assert named == {("cacert", outside.paths[0]), ("cert", outside.paths[1])}
    outside.authority.issue("client", days=90)
    outside.read()
    assert days(outside) == {"cacert": 1, "cert": 90}


def test_a_file_is_read_again_only_when_it_was_changed(outside, monkeypatch):
    read = []
    for which in ("first_to_end", "last_to_end"):
        monkeypatch.setattr(f"sidecar.reporting.gauges.{which}", read.append)
    outside.read()
    assert read == []
    os.utime(outside.paths[1])
    outside.read()
    assert len(read) == 1


def test_a_file_that_is_gone_has_no_end(outside):
    os.unlink(outside.paths[1])
    outside.read()
    assert days(outside) == {"cacert": 1}


def test_without_tls_no_certificate_is_told(kv, tmp_path):
    looked = GaugeCollector(kv, StoreSettings(cacert=str(Authority(tmp_path).cacert)), ())
    looked.read()
    assert list(looked.samples()) == []


def test_of_several_certificates_the_first_to_end_counts(tmp_path):
    authority = Authority(tmp_path)
    chain = [authority.issue(name, days=left).cert.read_bytes() for name, left in (("a", 30), ("b", 3), ("c", 9))]
    assert round((first_to_end(b"".join(chain)).end - time.time()) / 86400) == 3
    assert first_to_end(b"no certificate") is None
    broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    assert first_to_end(chain[0] + broken) is None


def test_what_ends_within_thirty_days_is_a_trouble_with_its_mend(kv, tmp_path, monkeypatch):
    pair = Authority(tmp_path / "a", "a").issue("client", days=300)
    settings = StoreSettings(endpoints=("https://etcd:2379",), cert=str(pair.cert), key=str(pair.key))
    outside = GaugeCollector(kv, settings, ())
    outside.read()
    now = time.time()
    for days, words in ((301, "has ended: renew it"), (271, "ends in 29 days: renew it"), (269, "")):
        monkeypatch.setattr("sidecar.reporting.gauges.time.time", lambda days=days: now + days * 86400)
        told = " ".join(outside.notes())
        assert words in told
        assert bool(told) == bool(words)


@pytest.mark.parametrize(
    ("life", "left", "soon"),
    [(825, 29, True), (825, 31, False), (90, 22, True), (90, 23, False), (1, 0.3, False), (1, 0.2, True)],
)
def test_what_lives_shortly_is_about_to_end_late(life, left, soon):
    validity = Validity(0.0, life * 86400.0)
    assert validity.ends_soon((life - left) * 86400.0) == soon


def test_a_bundle_of_authorities_ends_with_its_last(tmp_path):
    authority = Authority(tmp_path / "a", "a")
    chain = b"".join(authority.issue(f"d{days}", days=days).cert.read_bytes() for days in (-9, 90))
    assert round((last_to_end(chain).end - time.time()) / 86400) == 90
    assert last_to_end(b"no certificate") is None


def test_one_mapping_without_the_right_hides_no_other(kv, monkeypatch):
    outside = GaugeCollector(kv, StoreSettings(), MAPPINGS)
    outside.read()
    count = outside._count

    def refused(mapping):
        if mapping.name == "outer":
            raise PermissionDeniedError("no right")
        return count(mapping)

    monkeypatch.setattr(outside, "_count", refused)
    outside.read()
    assert set(samples(outside, "conflicts")) == {("inner",), ("all",)}

"""Asking every endpoint at once, whatever hangs: a name that does not resolve, a server that drips."""

import threading

import pytest

from configstore.doctor import endpoints
from configstore.doctor.endpoints import look_at_all
from configstore.doctor.facts import Failure, HttpAnswer
from configstore.settings import StoreSettings
from configstore.store.api import MemberStatus

WELL = MemberStatus(cluster_id=1, member_id=1, version="3.6.14", revision=1)


@pytest.fixture
def never():
    over = threading.Event()
    yield lambda *_: over.wait()
    over.set()


def test_what_hangs_is_not_waited_for(monkeypatch, never):
    monkeypatch.setattr(endpoints.http_probe, "probe", never)
    monkeypatch.setattr(endpoints, "_status", never)
    (found,) = look_at_all(StoreSettings(endpoints=("http://nowhere:2379",)), 0.1)
    assert isinstance(found.status, Failure)
    assert (found.status.exit_code, found.http.silent) == (4, "does not answer")
    assert "http://nowhere:2379" in found.status.reason


def test_one_that_hangs_does_not_hold_up_the_others(monkeypatch, never):
    monkeypatch.setattr(endpoints, "ENOUGH", 0.1)
    monkeypatch.setattr(endpoints.http_probe, "probe", lambda *_: HttpAnswer())
    monkeypatch.setattr(endpoints, "_status", lambda url, *_: never() if "nowhere" in url else (WELL, 0.001))
    settings = StoreSettings(endpoints=("http://nowhere:2379", "http://etcd:2379"))
    silent, well = look_at_all(settings, 3600.0)
    assert isinstance(silent.status, Failure)
    assert well.status == WELL

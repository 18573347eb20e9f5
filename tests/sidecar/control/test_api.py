"""What a client of the control socket may ask: each request as a checked value, or refused with the reason."""

import pytest

from configstore.errors import UsageError
from sidecar.control.api import (
    ChangesRequest,
    FlushRequest,
    HoldRequest,
    ReleaseRequest,
    Seen,
    WaitRequest,
    checked,
)


@pytest.mark.parametrize(
    ("body", "request_"),
    [
        (b'{"mapping":"certs"}', FlushRequest(mapping="certs", timeout=60.0)),
        (b'{"mapping":"certs","applied":"all"}', WaitRequest(mapping="certs", applied="all", revision=None)),
        (b'{"mapping":"certs","revision":0}', WaitRequest(mapping="certs", applied="here", revision=0)),
        (b'{"mapping":"certs","after":null}', ChangesRequest(mapping="certs", after=None, timeout=30.0)),
        (
            b'{"mapping":"certs","after":{"session":"s","count":3}}',
            ChangesRequest(mapping="certs", after=Seen(session="s", count=3)),
        ),
        (b'{"lease":"job"}', HoldRequest(lease="job", mapping=None, ttl=None, wait=None)),
        (b'{"exit":null}', ReleaseRequest(exit=None)),
    ],
)
def test_what_is_left_out_has_its_default(body, request_):
    assert checked(body, type(request_)) == request_


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        (b"", FlushRequest, "bad request"),
        (b"[]", FlushRequest, "bad request"),
        (b'{"mapping":""}', FlushRequest, "mapping"),
        (b'{"mapping":"certs","timeout":3601}', FlushRequest, "timeout"),
        (b'{"mapping":"certs","until":1}', FlushRequest, "until"),
        (b'{"mapping":"certs","revision":-1}', WaitRequest, "revision"),
        (b'{"mapping":"certs","timeout":61}', ChangesRequest, "timeout"),
        (b'{"lease":"../job"}', HoldRequest, "lease"),
        (b'{"lease":"job","command":"certbot\\u001b[2J"}', HoldRequest, "control characters"),
        (b'{"lease":"job","ttl":0}', HoldRequest, "ttl"),
        (b'{"exit":256}', ReleaseRequest, "exit"),
        (b"{}", ReleaseRequest, "exit"),
    ],
)
def test_what_is_no_request_is_refused_with_what_is_wrong(body, kind, words):
    with pytest.raises(UsageError, match="bad request") as refused:
        checked(body, kind)
    assert words in str(refused.value)

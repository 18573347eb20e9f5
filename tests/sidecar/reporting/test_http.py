"""Which requests are taken, and what becomes of the server when one cannot be answered."""

import socket
from http import HTTPStatus

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.reporting.http import LINES, HttpRequest, MalformedError, Server, parse


@pytest.mark.parametrize(
    ("head", "expected"),
    [
        (b"GET /livez HTTP/1.1", HttpRequest("GET", "/livez")),
        (b"GET /livez HTTP/1.0", HttpRequest("GET", "/livez")),
        (b"GET / HTTP/1.1\nHost: x", HttpRequest("GET", "/")),
        (
            b"POST /v1/wait HTTP/1.1\r\nHost: localhost\r\ncontent-length:\t17 ",
            HttpRequest("POST", "/v1/wait", 17),
        ),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 1", HttpRequest("POST", "/", 1)),
    ],
)
def test_a_request_is_its_method_its_target_and_the_length_of_its_content(head, expected):
    assert parse(head) == expected


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"", 400),
        (b"GET /livez", 400),
        (b"GET /livez HTTP/2.0", 400),
        (b"GET http://host/livez HTTP/1.1", 400),
        (b"GET /a b HTTP/1.1", 400),
        (b"GET /\x00 HTTP/1.1", 400),
        (b"GET /\xff HTTP/1.1", 400),
        (b"GET / HTTP/1.1\r\nno colon", 400),
        (b"GET / HTTP/1.1\r\nHost: x\r\n folded", 400),
        (b"GET / HTTP/1.1\r\nHost : x", 400),
        (b"GET / HTTP/1.1\r\nHost: \x00", 400),
        (b"GET / HTTP/1.1\r\nHost: a\rb", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: -1", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1_0", 400),
        (b"POST / HTTP/1.1\r\nContent-Length: " + b"9" * 5000, 400),
        (b"POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2", 400),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked", 501),
        (b"GET / HTTP/1.1" + b"\r\na: b" * (LINES + 1), 431),
    ],
)
def test_anything_else_is_refused_with_a_status(head, status):
    with pytest.raises(MalformedError) as refused:
        parse(head)
    assert refused.value.status == status


@given(st.binary(max_size=300) | st.from_regex(rb"(GET|POST) /\S* HTTP/1\.[01](\r?\n.*){0,5}", fullmatch=True))
@example(b"GET / HTTP/1.1\r\nContent-Length: \xb2")
def test_whatever_bytes_come_it_is_a_request_or_refused(head):
    try:
        found = parse(head)
    except MalformedError:
        return
    assert found.target.startswith("/")
    assert found.target.isascii()
    assert found.length >= 0


def test_what_nobody_foresaw_ends_a_connection_and_not_its_thread_or_the_server():
    def serve(exchange, request):
        if request.target == "/fault":
            raise RuntimeError("nobody foresaw it")
        exchange.answer(HTTPStatus.OK, "text/plain", b"well")

    server = Server(listener := socket.create_server(("127.0.0.1", 0)), serve, name="test")

    def ask(target):
        with socket.create_connection(listener.getsockname(), timeout=10) as connection:
            connection.sendall(f"GET {target} HTTP/1.1\r\n\r\n".encode())
            with connection.makefile("rb") as answer:
                return answer.read()

    try:
        assert ask("/fault") == b""
        assert ask("/").endswith(b"well")
    finally:
        server.close()

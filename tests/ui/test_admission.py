"""Who may come in, who may change something, and what is never sent: over HTTP, against the running command."""

import asyncio
import contextlib
import html
import http.client
import os
import re
import socket
import sys
import time
import urllib.parse

import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from configstore.cli import main
from configstore.embedded import EmbeddedEtcd
from configstore.model.record import Kind
from configstore.model.replica import MappingState, Report, encode
from configstore.store.api import ModRevision, Put
from configstore.ui.serving import _broken
from tests.harness.servers import Proxy, connect, run_etcdctl
from tests.harness.waiting import wait_until
from tests.ui.client import Client
from tests.ui.cluster import OPEN, SECRET, Cluster, Ui, tree_of

pytestmark = pytest.mark.xdist_group("ui")

PAGES = ["/", "/tree/", "/mapping/overrides", "/conflicts", "/leases", "/store", "/path/overrides/postfix.cf"]


@pytest.fixture(scope="module")
def reader(reading):
    return Client(reading).enter()


@pytest.fixture(scope="module")
def writer(writing):
    return Client(writing).enter()


def test_it_listens_on_loopback_and_prints_an_address_that_lets_in(reading, reader):
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/\?token=[\w-]{40,}", reading.url)
    cookie = reader.seen[0].headers["set-cookie"]
    assert {"HttpOnly", "SameSite=Strict", "Path=/"} <= set(cookie.split("; "))
    assert _listens_at(reading.process.pid) == [("127.0.0.1", reading.port)]


@pytest.mark.parametrize("foreign", ['a={"x":1, "y":2}', "foo[bar]=1", "a=b c", "bare", "x=\xe9"])
def test_another_programs_cookie_on_this_host_locks_nobody_out(reading, reader, foreign):
    client = Client(reading)
    for cookie in (f"{foreign}; {reader.cookie}", f"{reader.cookie}; {foreign}"):
        assert client.ask("/", Cookie=cookie).status == 200


@pytest.mark.parametrize("path", [*PAGES, "/events", "/static/ui.js", "/confirm/restore?path=a&revision=1"])
def test_without_token_or_cookie_nobody_sees_anything(reading, path):
    for cookie in (None, f"configstore-ui-{reading.port}=guess", "token=x"):
        answer = Client(reading).ask(path, Cookie=cookie)
        assert answer.status == 401
        assert "overrides" not in answer.text
    assert Client(reading).ask("/?token=guess").status == 401


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "evil.example:{port}",
        "127.0.0.1.evil.example",
        "localhost.evil.example",
        "a@127.0.0.1",
        None,
    ],
)
def test_a_name_that_a_stranger_rebound_to_loopback_is_turned_away(reader, host):
    host = host and host.format(port=reader.ui.port)
    answer = reader.ask("/", Host=host)
    assert answer.status in {400, 421}
    assert "overrides" not in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:{port}", "localhost:8000", "[::1]:8000"])
def test_loopback_is_welcome_also_through_a_tunnel(reader, host):
    assert reader.ask("/", Host=host.format(port=reader.ui.port)).status == 200


@pytest.mark.parametrize("path", PAGES)
def test_every_page_answers_with_a_policy_that_lets_nothing_foreign_in(reader, path):
    answer = reader.ask(path)
    assert answer.status == 200
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert answer.headers["cache-control"] == "no-store"
    assert not re.search(r"<style|<script(?! src=\"/static/)|\son\w+=|\sstyle=|https?://(?!127)", answer.text)


def test_other_sites_read_nothing_and_odd_methods_are_refused(reader):
    assert reader.ask("/", **{"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors"}).status == 403
    for method in ("PUT", "DELETE", "OPTIONS", "TRACE", "PATCH"):
        assert reader.ask("/", method=method).status in {405, 400}


def confirmed(writer, path="overrides/postfix.cf"):
    """Return where the form that restores a path is sent, with its fields."""
    history = writer.ask(f"/path/{path}")
    link = html.unescape(re.search(r'href="(/confirm/restore[^"]+)"', history.text)[1])
    (form,) = writer.ask(link).forms().items()
    return form


ACTIONS = [
    "/do/restore",
    "/do/resolve",
    "/do/resume",
    "/do/break",
    "/",
    "/confirm/restore",
    "/path/overrides/postfix.cf",
]


@pytest.mark.parametrize("action", ACTIONS)
def test_without_write_nothing_changes_and_no_page_offers_it(reader, writer, action):
    _, fields = confirmed(writer)
    answer = reader.ask(action, fields)
    assert answer.status == 403
    assert "--write" in answer.text
    assert reader.ask("/confirm/restore?path=overrides/postfix.cf&revision=1").status == 403
    assert "/confirm/" not in "".join(reader.ask(path).text for path in PAGES)


def test_a_change_is_refused_from_any_other_origin(writer, found):
    action, fields = confirmed(writer)
    before = found.get("overrides/postfix.cf")
    strangers = ["http://evil.example", "null", "http://127.0.0.1:1", f"https://127.0.0.1:{writer.ui.port}", ""]
    for origin in strangers:
        assert writer.ask(action, fields, Origin=origin).status == 403
    assert writer.ask(action, fields, **{"Sec-Fetch-Site": "cross-site"}).status == 403
    assert writer.ask(action, fields, **{"Sec-Fetch-Site": "same-site"}).status == 403
    assert writer.ask(action, fields, Host="evil.example", Origin="http://evil.example").status == 421
    assert found.get("overrides/postfix.cf") == before


def test_a_change_needs_the_forms_own_secret_the_cookie_and_a_post(writer, reading, found):
    action, fields = confirmed(writer)
    before = found.get("overrides/postfix.cf")
    assert writer.ask(action, fields | {"form": "guess"}).status == 403
    assert writer.ask(action, {key: value for key, value in fields.items() if key != "form"}).status == 403
    assert writer.ask(action, fields, Cookie=None).status == 401
    token = writer.ui.url.partition("?")[2]
    assert Client(writer.ui).ask(f"{action}?{token}", fields).status == 401, "a token is for coming in alone"
    assert writer.ask(f"{action}?{urllib.parse.urlencode(fields)}").status in {404, 405}
    assert writer.ask(action, fields, **{"Content-Type": "text/plain"}).status == 415
    assert found.get("overrides/postfix.cf") == before


def crawled(client, limit=400):
    """Return the answers to all pages that links lead to, from the first one on."""
    todo, seen = ["/"], {}
    while todo and len(seen) < limit:
        path = todo.pop(0)
        if path in seen:
            continue
        answer = seen[path] = client.ask(path)
        links = re.findall(r'(?:href|src)="([^"#]+)"', answer.text)
        todo += [urllib.parse.urljoin(path, html.unescape(each)) for each in links if "/many/" not in each]
    return seen


def test_no_private_content_is_in_any_page_whatever_is_asked_for(reader, writer, found):
    found.put("overrides/was-open.txt", f"{SECRET} 5\n", 0o600)
    found.put("overrides/was-open.txt", f"{SECRET} 5\n")
    for client in (reader, writer):
        pages = crawled(client)
        assert {"/path/overrides/sasl.txt", "/path/overrides/was-open.txt", "/conflicts"} <= pages.keys()
        assert {answer.status for answer in pages.values()} <= {200, 404}
        assert any(OPEN in answer.text for answer in pages.values()), "what everybody may read is shown"
        assert not [path for path, answer in pages.items() if SECRET in answer.text]
    for path in (
        "dkim/example.org.dkim.key",
        "overrides/open.key",
        "overrides/was-open.txt",
        "overrides/sasl.txt",
    ):
        for query in ("", "?old=1&new=2", "?new=x", "?old="):
            answer = reader.ask(f"/path/{path}{query}")
            assert SECRET not in answer.text
            assert "private" in answer.text


def test_binary_content_is_summed_up_and_its_digest_told(reader):
    text = reader.ask("/path/overrides/logo.bin").text
    assert "binary, or very long: no file there, 2048 bytes here; the content differs" in text


def test_faults_are_shown_with_their_mends(reader, found):
    def told():
        text = html.unescape(re.sub(r"<[^>]+>", "", reader.ask("/").text))
        return text if "refused to delete 30 of" in text and "three" in text else None

    text = wait_until(told, 30, what="the halt on the page")
    assert "configstore resume overrides --take store" in text
    assert "overrides/main.conf" in text
    assert re.search(r"three\S* *(✕ silent|✕ gone)", re.sub(r"\s+", " ", text))
    sides = html.unescape(reader.ask("/conflicts").text)
    assert "one says 1" in sides
    assert "two says 2" in sides
    assert SECRET not in sides


def test_news_come_as_events_for_a_bounded_number_of_pages(reader, found):
    from configstore.ui.events import MAX_CLIENTS  # noqa: PLC0415 - needs the extra

    def listen():
        connection = http.client.HTTPConnection("127.0.0.1", reader.ui.port, timeout=20)
        connection.request("GET", "/events", headers={"Cookie": reader.cookie})
        return connection, connection.getresponse()

    streams = [listen()]
    try:
        assert streams[0][1].readline() == b"event: hello\n"
        found.put("certs/news.txt", "fresh news\n")
        lines = (streams[0][1].readline() for _ in range(40))  # an event, of three lines, comes each 5 s at least
        line = next(line for line in lines if b"certs/news.txt" in line)
        assert b"fresh news" not in line
        streams += [listen() for _ in range(MAX_CLIENTS)]
        assert [stream.status for _, stream in streams].count(200) <= MAX_CLIENTS
        assert streams[-1][1].status == 503
        assert reader.ask("/").status == 200, "who only reads is served all the same"
    finally:
        for connection, stream in streams:
            stream.close()
            connection.close()
    wait_until(lambda: _serves_events(listen), 20)


def _serves_events(listen):
    connection, stream = listen()
    status = stream.status
    stream.close()
    connection.close()
    return status == 200


TOKEN = "0123456789abcdef" * 3


@pytest.fixture(scope="module")
def odd(found, tmp_path_factory):
    """Return a page behind an operator's proxy, with a token from a file, and its way to the store."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    options = ("--write", "--proxy-origin", "https://store.example.org", "--token-file", str(file))
    with Proxy(int(found.endpoint.rpartition(":")[2])) as way:
        ui = Ui(found, *options, endpoint=way.endpoint)
        assert ui.url == f"https://store.example.org/?token={TOKEN}"
        ((_, ui.port),) = _listens_at(ui.process.pid)
        yield ui, way
        way.heal()
        ui.end()


def test_a_proxy_of_the_operators_is_another_origin_with_the_token_of_a_file(odd):
    ui, _ = odd
    client = Client(ui)
    answer = client.ask(f"/?token={TOKEN}", Host="store.example.org")
    assert answer.status == 200
    assert "Secure" in answer.headers["set-cookie"]
    client.cookie = answer.headers["set-cookie"].partition(";")[0]
    fields = {"path": "overrides/postfix.cf"}
    for origin in ("http://store.example.org", f"http://127.0.0.1:{ui.port}", "https://evil.example"):
        assert "another origin" in client.ask("/do/restore", fields, Host="store.example.org", Origin=origin).text
    answer = client.ask("/do/restore", fields, Host="store.example.org", Origin="https://store.example.org")
    assert "this form is not one of this page" in answer.text, "the origin is right"


def test_a_silent_store_is_shown_with_its_last_contact_and_never_as_fine(odd):
    ui, way = odd
    client = Client(ui)
    cookie = client.ask(f"/?token={TOKEN}").headers["set-cookie"]
    assert "Secure" not in cookie, "on loopback there is no https"
    client.cookie = cookie.partition(";")[0]
    assert "store answers" in client.ask("/").text
    way.freeze()
    text = wait_until(lambda: (text := client.ask("/").text) and "The store is silent" in text and text, 30)
    assert re.search(r"Its last answer came <time datetime=\"20", text)
    assert "was fresh" in text
    assert not re.search(r"✓</span> fresh|All is well|store answers", text)
    wait_until(lambda: "no answer" in client.ask("/store").text, 30, what="the member on the page of the store")
    answer = client.ask("/path/overrides/postfix.cf")
    assert (answer.status, "it has been silent for" in answer.text) == (503, True)
    way.heal()
    wait_until(lambda: "store answers" in client.ask("/").text, 30)


def test_a_stop_ends_it_at_once_although_a_page_listens(odd):
    ui, _ = odd
    client = Client(ui)
    client.cookie = client.ask(f"/?token={TOKEN}").headers["set-cookie"].partition(";")[0]
    connection = http.client.HTTPConnection("127.0.0.1", ui.port, timeout=20)
    connection.request("GET", "/events", headers={"Cookie": client.cookie})
    connection.getresponse().readline()
    begun = time.monotonic()
    assert ui.end() == 0
    assert time.monotonic() - begun < 10
    connection.close()


def test_a_user_who_may_only_read_has_the_page_all_the_same():
    with EmbeddedEtcd() as server, connect(server.endpoint) as kv:
        found = Cluster(server.endpoint, "/read", tree_of(kv, "/read"))
        found.put("certs", "", 0o755, Kind.DIR)
        found.put("certs/cert.pem", "certificate\n")
        report = Report(
            mapping="certs",
            replica="r1",
            host="h",
            session="s",
            store="certs",
            state=MappingState.READY,
            revision=99,
        )
        key = found.tree.keys.replica("certs", "r1")
        kv.txn((ModRevision(key, 0),), (Put(key, encode(report)),))
        for words in (
            "user add root:secret",
            "user grant-role root root",
            "role add reader",
            "role grant-permission reader read /read/ --prefix",
            "user add reader:secret",
            "user grant-role reader reader",
            "auth enable",
        ):
            run_etcdctl(server.endpoint, *words.split())
        ui = Ui(found, CONFIGSTORE_USER="reader", CONFIGSTORE_PASSWORD="secret")
        try:
            client = Client(ui).enter()
            text = client.ask("/").text
            assert "Replicas cannot be asked for new figures: this user may read only" in text
            assert "✓</span> fresh" in text
            assert [client.ask(path).status for path in ("/conflicts", "/leases", "/path/certs/cert.pem")] == [
                200
            ] * 3
        finally:
            ui.end()


def test_wrong_options_end_with_words(tmp_path, capfd):
    (tmp_path / "token").write_text("short")
    for words in (
        ("--port", "65536"),
        ("--port", "x"),
        ("--proxy-origin", "https://x.example/path"),
        ("--proxy-origin", "https://user@x.example"),
        ("--token-file", str(tmp_path / "token")),
    ):
        assert main(["--endpoints", "http://127.0.0.1:1", "ui", "--no-browser", *words]) == 2
        assert "expected" in capfd.readouterr().err
    assert main(["--endpoints", "http://127.0.0.1:1", "--timeout", "100ms", "ui", "--no-browser"]) == 4


def test_a_port_that_is_taken_is_named(reading, found, capfd):
    options = ("--endpoints", found.endpoint, "--root", found.root)
    assert main([*options, "ui", "--no-browser", "--port", str(reading.port)]) == 2
    assert f"127.0.0.1:{reading.port}: Address already in use; choose another --port" in capfd.readouterr().err


def test_a_page_that_fails_repeats_no_word_of_a_file(capfd):
    async def fails(_):
        raise ValueError(SECRET)

    async def receive():
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message):
        sent.append(message)

    sent = []
    app = Starlette(routes=[Route("/path/a", fails)], exception_handlers={Exception: _broken})
    scope = {"type": "http", "method": "GET", "path": "/path/a", "query_string": b"", "headers": [], "app": app}
    with pytest.raises(ValueError, match=SECRET):  # which uvicorn would log: that is switched off
        asyncio.run(app(scope, receive, send))
    assert sent[0]["status"] == 500
    told = sent[1]["body"].decode() + capfd.readouterr().err
    assert "ValueError at" in told
    assert SECRET not in told


def test_without_the_extra_it_says_what_to_type(monkeypatch, capfd):
    monkeypatch.delitem(sys.modules, "configstore.ui.admission", raising=False)
    monkeypatch.setitem(sys.modules, "starlette.types", None)
    assert main(["ui", "--no-browser"]) == 2
    assert "pip install 'mailu-configstore[ui]'" in capfd.readouterr().err


def _listens_at(pid):
    """Return the addresses at which a process listens."""
    inodes, found = set(), []
    for name in os.listdir(f"/proc/{pid}/fd"):
        with contextlib.suppress(FileNotFoundError):  # closed meanwhile
            inodes.add(os.readlink(f"/proc/{pid}/fd/{name}"))
    for name, family in (("tcp", socket.AF_INET), ("tcp6", socket.AF_INET6)):
        with open(f"/proc/net/{name}", encoding="ascii") as table:
            for line in list(table)[1:]:
                cells = line.split()
                if cells[3] == "0A" and f"socket:[{cells[9]}]" in inodes:
                    host, _, port = cells[1].partition(":")
                    raw = b"".join(bytes.fromhex(host[at : at + 8])[::-1] for at in range(0, len(host), 8))
                    found.append((socket.inet_ntop(family, raw), int(port, 16)))
    return found

"""One function for each parser: it takes any bytes, and fails when the parser does other than it promises.

`test_bytes` feeds them a bounded number of inputs in every run of the tests, `make fuzz` as many as time allows.
SEEDS are what they rightly read, to begin from.
"""

import os
import tempfile
from contextlib import suppress

import msgspec
from hypothesis import strategies as st

from configstore import client
from configstore.errors import UsageError
from configstore.model import lease, record, replica
from configstore.model.keys import Keys
from configstore.model.path import PathError, parse_path, printable, printable_json, shown, unsafe_target
from configstore.model.problem import Problem
from configstore.model.untrusted import UntrustedError
from configstore.settings import read_toml
from configstore.store.api import Item
from configstore.store.envelope import Envelopes
from configstore.store.items import decode_item, decode_superseded
from configstore.store.values import Stored, UnreadableRecord
from sidecar.config.settings import load_config
from sidecar.control import api

KEYS = Keys("/test")
LONGEST = 9000
"""Characters of the longest reason, which may name a path with all its signs escaped."""


def reads_records(text):
    """`record.decode`: a record that is written and read again as the same, or RecordError."""
    try:
        found = record.decode(text)
    except record.RecordError as error:
        return _is_shown(str(error))
    assert record.decode(record.encode(found)) == found
    return None


def reads_reports(text):
    """`replica.decode_report`: a report that a table can show, or UntrustedError."""
    try:
        found = replica.decode_report(text)
    except UntrustedError as error:
        return _is_shown(str(error))
    assert replica.decode_report(replica.encode(found)) == found
    assert all(each.shown(found.store).isprintable() for each in found.problems)
    return None


def reads_requests(text):
    """`replica.decode_request`: a request, or UntrustedError."""
    try:
        found = replica.decode_request(text)
    except UntrustedError as error:
        return _is_shown(str(error))
    assert replica.decode_request(replica.encode(found)) == found
    assert found.who.isprintable()
    return None


def reads_asks(text):
    """`replica.decode_ask`: an ask for a report and nothing else, or UntrustedError."""
    try:
        found = replica.decode_ask(text)
    except UntrustedError as error:
        return _is_shown(str(error))
    assert replica.decode_ask(replica.encode(found)) == found
    return None


def reads_claims_and_intents(text):
    """`lease.decode_contender`, `decode_intent`: words that may be printed and handed to a command, or nothing."""
    claim = lease.decode_contender(text)
    if claim:
        assert lease.decode_contender(lease.encode(claim)) == claim
        _is_shown(claim.text)
    try:
        _is_shown(lease.decode_intent(text).text)
    except UntrustedError as error:
        _is_shown(str(error))


def reads_the_bodies_of_requests(text):
    """`api.checked`: a request of the control socket, or UsageError."""
    for kind in (api.FlushRequest, api.WaitRequest, api.ChangesRequest, api.HoldRequest, api.ReleaseRequest):
        with suppress(UsageError):
            api.checked(text, kind)


def reads_answers(text):
    """The drop-in client's `read_answer`: an object, or ValueError."""
    with suppress(ValueError):
        found = client.read_answer(text)
        for name in found:
            with suppress(ValueError):
                assert client.words_of(found, name).isprintable()
            with suppress(ValueError):
                assert 0 <= client.number_of(found, name, client.MOST) <= client.MOST


def reads_keys(text):
    """`Keys` and `items`: a path that may be mirrored, or a reason that may be shown."""
    item = Item(key=b"/test/files/" + text, value=b"x\n", create_revision=1, mod_revision=1, version=1, lease=0)
    found = decode_item(KEYS, Envelopes(KEYS.root), item)
    assert isinstance(found, UnreadableRecord)
    _is_shown(found.path if found.key else shown(found.path)), _is_shown(found.reason)
    for prefix in (b"/test/past/", b"/test/conflicts/", b"/test/files/", b""):
        for read in (KEYS.path_of_past, KEYS.path_of_conflict, KEYS.path_of_file):
            try:
                read(prefix + text)
            except PathError as error:
                _is_shown(str(error))
    past = decode_superseded(KEYS, Envelopes(KEYS.root), msgspec.structs.replace(item, key=b"/test/past/" + text))
    assert past is None or isinstance(past, UnreadableRecord | Stored)


def reads_paths(text):
    """`parse_path`, `printable` and `unsafe_target`: a path below the root, or PathError."""
    words = text.decode("utf-8", "surrogateescape")
    assert printable(words).isprintable()
    assert printable_json(text.decode("utf-8", "replace")).replace("\n", "").isprintable()
    try:
        path = parse_path(words)
    except PathError as error:
        return _is_shown(str(error))
    assert not {"", ".", ".."}.intersection(path.split("/"))
    unsafe_target(path, words)
    return None


def reads_settings(text):
    """`load_config`: settings, or UsageError; of a TOML file, and of a mapping's list in a variable."""
    with tempfile.NamedTemporaryFile(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as file:
        file.write(text)
        file.flush()
        with suppress(UsageError):
            read_toml(file.name)
        with suppress(UsageError):
            load_config(file=file.name, environ={}, options={})
    word = text.decode("utf-8", "replace").replace("\0", "")
    for name in ("EXCLUDE", "ON_CHANGE", "KEEP", "MAX_DELETE", "OWNER", "SIGNAL", "SETTLE"):
        with suppress(UsageError):
            load_config(file=None, environ={f"CONFIGSTORE_MAPPING_DATA_{name}": word}, options={})


def _is_shown(words):
    assert words.isprintable(), words
    assert len(words) < LONGEST


_ORIGIN = {"write_id": "w", "replica": "r", "host": "h", "time": "2026-01-01T00:00:00Z"}
_HEADERS = (
    {"kind": "file", "mode": "0600", "size": 1, "sha256": record.sha256(b"x"), "uid": 0, "user": "root"},
    {"kind": "dir", "mode": "0755"},
    {"kind": "symlink", "target": "../x"},
    {"kind": "gone", "deletion": {"id": "d", "count": 2}},
    {"kind": "symlink", "target": "x", "mode": "0600", "size": 3, "sha256": "1" * 64},
    {"kind": "file", "mode": "0600", "size": 600_000, "sha256": "1" * 64, "chunks": ["2" * 64, "3" * 64]},
)
_REPORT = replica.Report(
    mapping="data",
    replica="r",
    host="h",
    session="s",
    store="data",
    state=replica.MappingState.HALTED,
    reason="why",
    problems=(Problem(path="a", reason="why", word="$'a'"),),
)
_CONTENDER = lease.QueueEntry(replica="r", host="h", command="c", time="t")

TARGETS = {
    reads_records: [
        msgspec.json.encode({"v": 1} | header | _ORIGIN) + b"\n" + (b"x" if header.get("size") == 1 else b"")
        for header in _HEADERS
    ],
    reads_reports: [replica.encode(_REPORT)],
    reads_requests: [
        replica.encode(replica.Request(id="i", verb=replica.Verb.RESUME, by="ann@h", mapping="data", path="a/b"))
    ],
    reads_asks: [replica.encode(replica.Ask(id="i", replica="r", revision=3))],
    reads_claims_and_intents: [
        lease.encode(_CONTENDER),
        lease.encode(lease.Intent(token=3, contender=_CONTENDER, begun="t", exit=1)),
    ],
    reads_the_bodies_of_requests: [
        b'{"mapping": "data", "timeout": 1.5}',
        b'{"mapping": "data", "applied": "all", "revision": 3}',
        b'{"mapping": "data", "after": {"session": "s", "count": 1}}',
        b'{"lease": "l", "command": "c", "ttl": 30, "wait": null}',
        b'{"exit": 1}',
    ],
    reads_answers: [b'{"event": "held", "id": "x", "ttl": 29, "token": 4, "unfinished": null}', b'{"left": -1.5}'],
    reads_keys: [b"a/b", b"a//00000000000000000007", b"a//0123456789abcdef", b"a/../b"],
    reads_paths: [b"certs/cert.pem", b"../../archive/x/cert1.pem"],
    reads_settings: [
        b'[store]\nroot = "/x"\n[[mapping]]\nname = "a"\npath = "/a"\nsettle = "20ms"\nmax_delete = 0.5\n',
        b'["a", "b"]',
        b"100:101",
    ],
}
"""Each parser with what it reads without complaint."""

ODD = (
    b"[" * 998,
    b"[" * 60_000,
    b'{"x":' * 900 + b"1" + b"}" * 900,
    b'{"v":1,"v":2}',
    b"9" * 5000,
    b'{"x":' + b"9" * 5000 + b"}",
    b'{"x":1e999}',
    b'{"x":NaN}',
    b'{"x":"\xff"}',
    b'{"x":"\\ud800"}',
    b'{"x":"\xed\xa0\x80"}',
    b'"\x1b[2J\x07\\u001b\xc2\x9b"',
    b"\0" * 100,
    b"x" * 100_000,
    b"a = " + b"[" * 5000,
    b"a" + b".a" * 5000 + b" = 1",
    b"a = " + b"9" * 5000,
    b"a = 0x" + b"f" * 5000,
    b'mapping = [[["a"]]]',
    b"a//" + b"9" * 5000,
    b"a//" + b"x" * 5000,
)
"""What came to mind, for all of them; in a record it is followed by a line end."""


def altered(target):
    """Return a strategy for inputs: what a parser reads, or what is odd, with a piece of it replaced."""
    whole = st.one_of(st.sampled_from(TARGETS[target]), st.sampled_from(ODD), st.binary(max_size=200))
    put = st.one_of(st.binary(max_size=8), st.sampled_from(ODD))
    pieces = st.tuples(whole, st.integers(0, 400), st.integers(0, 30), put)
    return pieces.map(lambda drawn: drawn[0][: drawn[1]] + drawn[3] + drawn[0][drawn[1] + drawn[2] :])

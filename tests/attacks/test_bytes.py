"""Bytes of strangers in the store: no command and no sidecar dies of any, and none reaches a terminal as it is."""

import json
import re

import pytest
from hypothesis import HealthCheck, given, settings

from configstore.errors import CorruptError, UsageError
from configstore.model.lease import QueueEntry, encode
from configstore.model.problem import Problem
from configstore.model.record import RecordError, decode, sha256
from configstore.model.replica import MappingState, Report
from configstore.model.replica import encode as encode_report
from configstore.model.untrusted import LIMIT, MAX_DEPTH
from configstore.store.api import Page, Put, range_all
from sidecar.config.settings import load_config
from tests.fuzz.targets import ODD, TARGETS, altered
from tests.harness.waiting import wait_until
from tests.memory_store.store import MemoryKv

FIELDS = {"v": 1, "kind": "file", "mode": "0600", "size": 4, "sha256": sha256(b"evil"), "write_id": "x"}
RAW = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]|\xc2[\x80-\x9f]")  # what a terminal obeys; C1 is two bytes in UTF-8
EVIL = "\x1b]0;owned\x07\x1b[2J\r\nok: all well\x9b31m\x00\u202e"


def header(**fields):
    return json.dumps(FIELDS | fields).encode() + b"\nevil"


def with_raw(member):
    """Return a record whose header has one more member, as it is written here."""
    return json.dumps(FIELDS).encode()[:-1] + b", " + member + b"}\nevil"


DEEP = b'"x": ' + b"[" * 998 + b"]" * 998
HUGE = b'"x": ' + b"9" * 5000
TWICE = b'"kind": "dir"'

UNREADABLE = {
    "nested deep in a field that nobody reads": with_raw(DEEP),
    "nested just too deep": with_raw(b'"x": ' + b"[" * MAX_DEPTH + b"]" * MAX_DEPTH),
    "nested and never closed": b'{"x":' + b"[" * 60_000 + b"\n",
    "a number of 5,000 digits in a field that nobody reads": with_raw(HUGE),
    "a number of 4,000 digits in one that is read": with_raw(b'"supersedes": ' + b"9" * 4000),
    "a number of more than 64 bits": with_raw(b'"supersedes": ' + b"9" * 20),
    "a key twice": with_raw(TWICE),
    "a key twice, once escaped": with_raw(b'"\\u006bind": "dir"'),
    "a key twice, deep in a field that nobody reads": with_raw(b'"x": [{"a": 1, "a": 2}]'),
    "bad UTF-8 in a field that nobody reads": with_raw(b'"x": "\xff"'),
    "half a surrogate in UTF-8": with_raw(b'"host": "\xed\xa0\x80"'),
    "NaN": with_raw(b'"x": NaN'),
    "a header that is too long": with_raw(b'"x": "' + b"y" * LIMIT + b'"'),
    "a word that is too long": header(kind="x" * 50_000),
    "not JSON": b"\x00\xff\n",
}


@pytest.mark.parametrize("value", UNREADABLE.values(), ids=UNREADABLE)
def test_a_header_that_two_readers_may_read_differently_is_no_record(value):
    with pytest.raises(RecordError) as caught:
        decode(value)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 300


def test_what_a_later_minor_version_adds_to_a_header_is_passed_over():
    assert decode(with_raw(b'"mood": [{"good": 1.5}, "\xc3\xa9", null, -3]')).content == b"evil"


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.__name__)
def test_every_parser_keeps_its_promise_for_any_bytes(target):
    settings(max_examples=200, deadline=None, database=None, suppress_health_check=list(HealthCheck))(
        given(altered(target))(target)
    )()
    for text in ODD:
        target(text)
        target(text + b"\n")


def hostile_keys(root):
    """Return what anybody with write access could put into each part of a store, by key."""
    deep = b'{"x":' + b"[" * 998
    claim = encode(QueueEntry(replica=EVIL, host=EVIL, command=EVIL, time=EVIL))
    report = Report(
        mapping=EVIL,
        replica=EVIL,
        host=EVIL,
        session="s",
        store="data",
        state=MappingState.HALTED,
        reason=EVIL,
        problems=(Problem(path=EVIL, reason=EVIL, word=EVIL),),
    )
    found = {f"files/data/bad{number}": value for number, value in enumerate(UNREADABLE.values())} | {
        "files/data/deep": deep + b"\n",
        "files/data/evil": header(replica=EVIL, host=EVIL, time="\x1b[2J", user=EVIL, group=EVIL),
        "files/data/link": header(
            kind="symlink", mode=None, size=0, sha256="", target="x" + EVIL.replace("\0", "")
        )[:-4],
        f"files/data/{EVIL}": header(),
        "files/data/" + "long/" * 1000: header(),
        "past/data/bad0//" + "9" * 5000: header(),
        "past/data/bad0//" + "9" * 19: deep,
        "past/data/bad0//00000000000000000001": header(host=EVIL),
        "past/data/deep//00000000000000000002": deep + b"\n",
        "past/data//x": deep,
        "conflicts/data/bad0//deep": deep + b"\n",
        "conflicts/data/bad0//deep//" + "1" * 64: b"a piece",
        "conflicts/data/bad1//" + "x" * 5000: header(),
        "conflicts/data/evil//evil": header(replica=EVIL, host=EVIL, time=EVIL[:60]),
        f"conflicts/data/evil//{EVIL}": header(),
        "chunks/data/bad0//" + "9" * 5000: deep,
        "chunks/data/bad0": deep,
        "leases/evil/1": claim,
        f"leases/{EVIL}/2": claim,
        "leases/deep/" + "9" * 5000: deep,
        "leases/nobody": deep,
        "intents/evil": json.dumps({"token": 1, "claim": json.loads(claim), "begun": EVIL}).encode(),
        "intents/deep": deep,
        f"replicas/{EVIL}/{EVIL}": encode_report(report),
        "replicas/data/deep": deep,
        "replicas/data/other": encode_report(report),
        "replicas/data/huge": b'{"revision":' + b"9" * 4000 + b"}",
        "asks/deep": deep,
        "asks/huge": b'{"id":"i","verb":"report","revision":' + b"9" * 4000 + b"}",
        "asks/evil": json.dumps({"id": EVIL, "verb": EVIL, "replica": EVIL}).encode(),
        "requests/deep": deep,
        "requests/huge": b'{"id":"i","verb":"report","revision":' + b"9" * 4000 + b"}",
        "requests/path": b'{"id":"i","verb":"resume","by":"x","take":"local","path":"../../etc"}',
        "requests/evil": json.dumps({"id": EVIL, "verb": "resume", "by": EVIL, "mapping": EVIL, "v": 7}).encode(),
        "requests/flush": json.dumps({"id": EVIL, "verb": "flush", "by": EVIL}).encode(),
        "requests/long": json.dumps({"id": "i", "verb": "resume", "by": "x" * 300}).encode(),
        "doctor/deep": deep,
    }
    more = {b"files/data/\xff\xfe": header(), b"leases/\xff/\xff": claim, b"past/\xff//1": deep}
    prefix = f"{root}/".encode()
    return {prefix + key.encode(): value for key, value in found.items()} | {
        prefix + key: value for key, value in more.items()
    }


def fill(kv, kv_root):
    """Put all that is hostile into the store, one request each."""
    for key, value in hostile_keys(kv_root).items():
        kv.txn([], [Put(key, value)])


COMMANDS = [
    (("ls", "-l", "-R", "--all", "data"), {1}),
    (("ls", "-lR", "/"), {1}),
    (("stat", "data/evil"), {0}),
    (("stat", "data/bad0"), {1}),
    (("history", "data/bad0"), {1}),
    (("history", "data/evil"), {0}),
    (("diff", "data/evil"), {0, 1}),
    (("replicas",), {1}),
    (("status",), {1}),
    (("leases",), {0}),
    (("conflicts",), {1}),
]


@pytest.fixture
def hostile(kv, kv_root, run, monkeypatch):
    """Return the command on a store that is full of hostile bytes."""
    monkeypatch.setattr("configstore.overview.gather.PATIENCE", 0.2)
    assert run("mkdir", "data").code == 0
    assert run("put", "data/good", stdin=b"good").code == 0
    fill(kv, kv_root)
    return run


@pytest.mark.parametrize("as_json", [False, True], ids=["words", "json"])
def test_every_listing_survives_whatever_lies_in_the_store_and_shows_it_escaped(hostile, as_json):
    for words, codes in COMMANDS:
        if as_json and words[0] == "diff":
            continue
        done = hostile(*words, *(["--json"] if as_json else []))
        assert done.code in codes, (words, done)
        if as_json and done.out:
            done.json()
        for said in (done.out, done.err.encode()):
            assert not RAW.search(said), (words, RAW.search(said), said[:2000])
            assert "\u202e".encode() not in said


def test_whatever_lies_in_the_store_can_be_removed(hostile, kv, kv_root):
    for number in range(len(UNREADABLE)):
        assert hostile("rm", f"data/bad{number}").code == 0
    done = hostile("rm", "-r", "--yes", "data")
    assert done.code == 1, "keys that no path has are named"
    assert "Traceback" not in done.err
    assert {line for line in hostile("ls", "-R", "data").out.splitlines() if line} == set()
    assert hostile("conflicts", "data/bad0").code == 1
    assert hostile("conflicts", "data/bad0", "--show", "deep").code == 1
    assert hostile("resolve", "data/bad0", "--take", "store").code == 0
    left = [item.key for page in range_all(kv, b"\0", b"\xff", keys_only=True) for item in page.items]
    assert not [key for key in left if key.startswith(f"{kv_root}/conflicts/data/bad0/".encode())]


def test_a_key_too_long_to_be_typed_is_removed_by_its_beginning(run, kv, kv_root):
    long = f"{kv_root}/files/{'x' * 100_000}"
    kv.txn([], [Put(long.encode(), b"x")])
    run("put", "x", stdin=b"x")
    said = run("ls", "/").err
    assert len(said) < 8000
    (typed,) = re.findall(r"`etcdctl del --prefix (\S+)` removes it", said)
    assert long.startswith(typed)
    assert len(typed) > 4096


def test_a_sidecar_and_init_survive_whatever_lies_in_the_store(replica, configstore, kv, kv_root):
    configstore("put", "data/good", content=b"good")
    fill(kv, kv_root)
    one = replica("one")
    done = one.command("init", "--timeout", "20s")
    assert (done.returncode, "Traceback" in done.stderr) == (1, False)
    assert "incomplete" in done.stderr
    one.start()
    wait_until((one.folder / "good").exists)
    for key, value in hostile_keys(kv_root).items():
        kv.txn([], [Put(key, value)])
    configstore("put", "data/good", content=b"better")
    wait_until(lambda: (one.folder / "good").read_bytes() == b"better", 20)
    (one.folder / "mine").write_bytes(b"mine")
    wait_until(lambda: b"mine" in configstore("ls", "data", code=1), 20)
    assert not RAW.search(done.stderr.encode())
    plan = one.command("plan")
    assert (plan.returncode, RAW.search(plan.stdout.encode())) == (0, None)


def test_a_server_that_announces_more_keys_for_ever_is_told_so():
    class Endless(MemoryKv):
        def range(self, *_, **__):
            return Page(items=(), revision=1, cluster_id=1, more=True)

    with pytest.raises(CorruptError, match="announces more"):
        list(range_all(Endless(), b"a", b"b"))


@pytest.mark.parametrize(
    "text",
    [
        b"a = " + b"[" * 5000,
        b"a = " + b"9" * 5000,
        b"[" + b"a." * 5000 + b"a]",
        b"a = {" * 5000,
        b"\xff",
        b"a = '\0'",
    ],
    ids=["arrays", "digits", "tables", "inline tables", "no UTF-8", "NUL"],
)
def test_a_hostile_settings_file_is_a_wrong_setting(text, tmp_path):
    file = tmp_path / "c.toml"
    file.write_bytes(text)
    with pytest.raises(UsageError, match=re.escape(str(file))):
        load_config(file=str(file), environ={}, options={})


@pytest.mark.parametrize("word", ["[" * 5000, "[" * 900 + "]" * 900, "[" + "9" * 5000 + "]"])
def test_a_hostile_list_in_a_variable_is_a_wrong_setting(word):
    with pytest.raises(UsageError, match="CONFIGSTORE_MAPPING_DATA_EXCLUDE"):
        load_config(file=None, environ={"CONFIGSTORE_MAPPING_DATA_EXCLUDE": word}, options={})

"""What people are used to: help with examples, `did you mean`, JSON of what is done, no wait without endpoint."""

import json
import re
import shlex
import time
from pathlib import Path

import pytest

from configstore.cli import build_parser
from configstore.cli.examples import EXAMPLES, SECTIONS
from configstore.model.keys import Keys
from configstore.model.lease import QueueEntry
from configstore.model.path import StorePath
from configstore.model.replica import MappingState, Report, encode
from configstore.settings import StoreSettings
from configstore.store.api import Put
from configstore.store.leases import Lease
from configstore.store.store import Store
from sidecar.__main__ import parser as sidecar_parser
from tests.harness.named import a_file

DOCS = Path(__file__).parents[2] / "docs/cli.md"
COMMANDS = sorted(build_parser().commands)


@pytest.mark.parametrize("command", COMMANDS)
def test_a_commands_help_shows_it_in_use_and_spares_the_stores_options(offline, command):
    text = offline(command, "--help").out.decode()
    assert f"  $ configstore {command}" in text
    assert "--server-name" not in text
    assert len(text.splitlines()) <= 45
    assert max(map(len, text.splitlines())) <= 110


@pytest.mark.parametrize("line", [line for lines in EXAMPLES.values() for line in lines])
def test_every_example_can_be_typed(line):
    words = shlex.split(re.sub(r" [<>] .*", "", line))
    assert words[0] == "configstore"
    build_parser().parse_args(words[1:])


def test_the_main_help_groups_all_commands_and_tells_of_the_store_once(offline):
    text = offline("--help").out.decode()
    for title, names in SECTIONS.items():
        section = re.search(rf"^{title}:\n((?:  .*\n)+)", text, re.MULTILINE)[1]
        assert re.findall(r"^  (\S+)", section, re.MULTILINE) == [name for name in names if name in COMMANDS]
    assert set(re.findall(r"^  ([a-z-]+) ", text, re.MULTILINE)) >= set(COMMANDS)
    assert text.count("--endpoints URL") == 1


@pytest.mark.parametrize("command", ["run", "init", "plan", "health", "completion"])
def test_the_sidecars_help_shows_it_in_use(command, capsys):
    with pytest.raises(SystemExit):
        sidecar_parser().parse_args([command, "--help"])
    text = capsys.readouterr().out
    assert f"$ configstore-sidecar {command}" in text
    assert "--server-name" not in text
    with pytest.raises(SystemExit):
        sidecar_parser().parse_args(["--help"])
    assert "--server-name NAME" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("statsu",), "did you mean `status`?"),
        (("--root", "/x", "hsitory", "a"), "did you mean `history`?"),
        (("ls", "--recursiv"), "did you mean --recursive?"),
        (("put", "a", "--if-revison=3"), "did you mean --if-revision?"),
        (("--endpoint", "http://a:1", "ls"), "did you mean --endpoints?"),
        (("presets", "mailu/frnt"), "did you mean mailu/front?"),
        (("bootstrap", "--preset", "mialu", "--endpoints", "http://127.0.0.1:1"), "did you mean mailu?"),
    ],
)
def test_what_was_probably_meant_is_said(offline, words, hint):
    done = offline(*words)
    assert (done.code, hint in done.err) == (2, True)


def test_nothing_is_guessed_where_nothing_is_near(offline):
    assert "did you mean" not in offline("zzzzzzzz").err
    assert "did you mean" not in offline("ls", "--zzzzzzzz").err


@pytest.fixture
def filled(run):
    """Return `run`, with some files in the store, one of them deleted."""
    for path in ("overrides/nginx/proxy.conf", "certs/cert.pem", "certs/key.pem", "certs/kez.pem"):
        assert run("put", path, stdin=b"x").code == 0
    assert run("rm", "certs/kez.pem").code == 0
    return run


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (("get", "overrides/nginx/prox.conf"), "did you mean overrides/nginx/proxy.conf?"),
        (("get", "overides/nginx/proxy.conf"), "did you mean overrides?"),
        (("stat", "certs/crt.pem"), "did you mean certs/cert.pem?"),
        (("ls", "cert"), "did you mean certs?"),
        (("rm", "certs/kej.pem"), "did you mean certs/key.pem?"),
        (("history", "certs/cert.pm"), "did you mean certs/cert.pem?"),
        (("diff", "certs/cert.pm"), "did you mean certs/cert.pem?"),
        (("restore", "certs/cert.pm", "--revision", "1"), "did you mean certs/cert.pem?"),
        (("export", "overridess", "/nowhere"), "did you mean overrides?"),
    ],
)
def test_of_a_path_that_is_not_there_the_nearest_name_is_said(filled, words, hint):
    done = filled(*words)
    assert (done.code, hint in done.err) == (1, True), done.err


def test_what_was_deleted_is_not_suggested(filled):
    assert "did you mean certs/key.pem?" in filled("get", "certs/kez.pe").err


def test_a_name_behind_very_many_is_found_all_the_same(run, tmp_path):
    for number in range(250):
        (tmp_path / f"{number}.key").write_bytes(b"k")
    assert run("import", str(tmp_path), "dkim").code == 0
    assert run("mkdir", "webmail").code == 0
    assert "did you mean webmail?" in run("get", "webmial").err


def test_without_any_endpoint_it_is_said_at_once_what_to_type(offline, monkeypatch):
    for name in ("CONFIGSTORE_ENDPOINTS", "ETCDCTL_ENDPOINTS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("configstore.cli.session.DEFAULT_ENDPOINT", "http://127.0.0.1:1")
    begun = time.monotonic()
    done = offline("ls")
    assert time.monotonic() - begun < 5  # of the 10 that a call may take
    assert (done.code, done.out) == (4, b"")
    assert "no endpoint is set" in done.err
    assert "CONFIGSTORE_ENDPOINTS=" in done.err
    nowhere = StoreSettings(endpoints=("http://127.0.0.1:1",), timeout=0.3)
    for command in ("status", "doctor"):
        monkeypatch.setattr(f"configstore.cli.{command}.store_settings", lambda *_: nowhere)
        done = offline(command)
        assert (done.code, "no endpoint is set" in done.err) == (4, True)


def test_the_default_endpoint_is_used_where_something_answers(run, environment, monkeypatch):
    monkeypatch.setattr("configstore.cli.session.DEFAULT_ENDPOINT", environment["CONFIGSTORE_ENDPOINTS"])
    monkeypatch.delenv("CONFIGSTORE_ENDPOINTS")
    assert "no endpoint is set" not in run("ls", "--timeout", "300ms").err


def documented():
    """Return the fields that docs/cli.md tells of each command's JSON."""
    section = DOCS.read_text().partition("\n## JSON\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ((?:`[^`]+`(?:, )?)+) \| (.*) \|$", section, re.MULTILINE)
    return {
        command: set(re.findall(r"`([a-z_0-9]+)`", fields))
        for commands, fields in rows
        for command in re.findall(r"`([^`]+)`", commands)
    }


def fields(found):
    """Return the names of an object's fields, or of all objects' of a list."""
    return set().union(*found) if isinstance(found, list) else set(found)


def test_what_is_done_is_said_as_json_and_as_documented(run, tmp_path, tree, kv):
    told = documented()
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_bytes(b"1")

    def check(name, *words, code=0, stdin=b""):
        done = run(*words, "--json", stdin=stdin)
        assert done.code == code, done.err
        found = done.json()
        assert fields(found) == told[name] or (name == "presets" and fields(found) <= told[name]), name
        return found

    assert check("put", "put", "d/a", stdin=b"1")["size"] == 1
    first = check("put", "put", "d/a", stdin=b"22")["revision"]
    assert check("get", "get", "d/a")["base64"] == "MjI="
    assert check("get", "get", "d/a", "-o", str(tmp_path / "o"))["base64"] is None
    assert (tmp_path / "o").read_bytes() == b"22"
    check("stat", "stat", "d/a")
    assert check("diff", "diff", "d/a", code=1)["now"] == first
    check("history", "history", "d/a")
    assert check("mkdir", "mkdir", "e")["made"][0]["path"] == "e"
    assert check("mkdir", "mkdir", "e") == {"made": [], "there": ["e"]}
    assert len(check("bootstrap", "bootstrap", "--preset", "mailu/front", "--yes")["made"]) == 3
    removed = check("rm", "rm", "d/a")["removed"]
    assert removed == [{"path": "d/a", "revision": run("stat", "d/a", "--json").json()["revision"]}]
    restored = check("restore", "restore", "d/a", "--revision", str(first))
    assert restored["changed"][0]["what"] == "restored"
    assert run("get", "d/a").out == b"22"
    assert check("import", "import", str(tmp_path / "in"), "f")["revision"] > first
    check("export", "export", "f", str(tmp_path / "out"))
    check("presets", "presets", "mailu/front")
    check("doctor", "doctor")


def test_a_conflict_that_is_resolved_is_said_as_json(run, tree):
    run("put", "a", stdin=b"winner")
    name = tree.keep_conflict("a", a_file(b"lost"), b"lost", retention=60)
    assert fields(run("conflicts", "--json").json()) == documented()["conflicts"]
    done = run("resolve", "a", "--take", name, "--json").json()
    assert set(done) == documented()["resolve"]
    assert (done["dropped"], done["revision"]) == ([name], run("stat", "a", "--json").json()["revision"])


def test_a_lease_that_is_broken_is_said_as_json(run, kv, kv_root):
    holder = Lease(Store(kv, Keys(kv_root)), "job", QueueEntry(replica="mail-1", host="h"), ttl=10)
    holder.acquire(0.0)
    try:
        (row,) = run("leases", "--json").json()
        assert set(row) == documented()["leases"]
        assert run("leases").out.decode().splitlines()[0].split() == [
            "LEASE",
            "HOLDER",
            "SINCE",
            "WAITING",
            "NOTE",
        ]
        assert "did you mean job?" in run("leases", "break", "jbo", "--yes").err
        done = run("leases", "break", "job", "--yes", "--json").json()
        assert set(done) == documented()["leases break"]
        assert (done["taken_from"]["replica"], done["holder"]) == ("mail-1", None)
    finally:
        holder.abandon()


def test_watch_prints_an_object_per_line(start, run):
    process = start("watch", "--json")
    assert b"watching" in process.stderr.readline()
    run("put", "a", stdin=b"1")
    assert set(json.loads(process.stdout.readline())) == documented()["watch"]
    process.terminate()
    assert process.wait(90) == 0


def test_every_command_that_prints_or_does_something_takes_json():
    commands = {
        f"{name} {verb}".strip(): parser
        for name, each in build_parser().commands.items()
        for verb, parser in (each.commands or {"": each}).items()
    }
    without = {name for name, each in commands.items() if "--json" not in each.options}
    assert without <= {"completion", "run", "ui"}  # a script; the command's own output; see the others


def test_of_a_mapping_that_nobody_mirrors_the_nearest_is_said(run, kv, kv_root):
    known = Report(
        mapping="overrides-nginx",
        replica="r",
        host="h",
        session="s",
        store=StorePath("overrides/nginx"),
        state=MappingState.READY,
    )
    kv.txn((), (Put(Keys(kv_root).replica(known.mapping, known.replica), encode(known)),))
    for command in ("wait", "flush"):
        done = run(command, "overides-nginx", "--socket", "")
        assert (done.code, "did you mean overrides-nginx?" in done.err) == (1, True)

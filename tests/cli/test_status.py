"""The one screen: what it says of stores and replicas that are not well, and how long it takes for that."""

import json
import os
import pty
import re
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest

from configstore.embedded import EmbeddedEtcd
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.model.problem import Problem
from configstore.model.replica import Alike, ExpectedReplica, MappingState, Report, encode
from configstore.store.api import Put
from configstore.store.report_feed import MANY, QUIET, ask_reports
from configstore.store.store import Store
from tests.e2e.faults import says
from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT
from tests.harness.servers import connect, run_etcdctl
from tests.harness.waiting import freeze, wait_until


def status(endpoint, *words, root="/configstore", **environment):
    command = ["--endpoints", endpoint, "--root", root, "status", *words]
    done = zygote.run_text("configstore", command, ENVIRONMENT | environment)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def own(binary_named):
    with EmbeddedEtcd(binary=binary_named("debian")) as server, connect(server.endpoint) as kv:
        yield server, kv


def write(kv, keys, *reports):
    for each in reports:
        kv.txn((), (Put(keys.replica(each.mapping, each.replica), encode(each)),))


def report(replica, **fields):
    fields = {"state": MappingState.READY, "ready": True, "complete": True} | fields
    return Report(mapping="certs", replica=replica, host="h", session="s", store=StorePath("certs"), **fields)


def test_a_thousand_replicas_with_ten_thousand_problems_are_one_screen(run, kv, kv_root):
    keys = Keys(kv_root)
    for number in range(0, 1000, 100):
        puts = [
            Put(keys.replica("certs", f"r{each}"), encode(report(
                f"r{each}", degraded=True, problem_count=10,
                problems=tuple(Problem(path=f"p{path}", reason=f"reason {path}") for path in range(10)),
                alike=tuple(Alike(reason=f"reason {path}", count=1) for path in range(10)),
            )))
            for each in range(number, number + 100)
        ]  # fmt: skip
        kv.txn((), puts)
    done = run("status")
    assert done.code == 1
    lines = done.out.decode().splitlines()
    assert len(lines) <= 24
    assert " 0 of 1000 " in done.out.decode()
    assert any("r0@h, r1@h, r10@h and 997 more: no answer" in line for line in lines)
    everything = run("status", "--all").out.decode()
    assert all(f"reason {path}" in everything for path in range(10))


@pytest.mark.parametrize(("count", "hasty"), [(MANY, False), (MANY + 1, True)])
def test_many_that_are_silent_are_not_waited_for(kv, kv_root, count, hasty):
    keys = Keys(kv_root)
    write(kv, keys, *(report(f"r{number}") for number in range(count)))
    found = ask_reports(Store(kv, keys), 100 * QUIET if hasty else 2 * QUIET)
    assert (len(found.late), found.hasty) == (count, hasty)


def test_who_may_read_only_sees_all_as_it_was_reported_last(own):
    server, kv = own
    write(kv, Keys("/configstore"), report("one", problem_count=1, problems=(Problem(path="a", reason="why"),)))
    for words in (
        ("user", "add", "root:root"), ("user", "grant-role", "root", "root"),
        ("role", "add", "look"), ("role", "grant-permission", "look", "read", "/configstore/", "--prefix"),
        ("user", "add", "eve:eve"), ("user", "grant-role", "eve", "look"), ("auth", "enable"),
    ):  # fmt: skip
        run_etcdctl(server.endpoint, *words)
    code, out, err = status(server.endpoint, CONFIGSTORE_USER="eve", CONFIGSTORE_PASSWORD="eve")
    assert (code, err) == (1, "")
    assert "as they reported last: this user may read only" in out
    assert "certs: one@h: certs/a: why" in out


def test_an_etcd_out_of_space_is_named_and_the_rest_is_shown(binary_named):
    with EmbeddedEtcd(binary=binary_named("debian"), arguments=("--quota-backend-bytes=2097152",)) as server:
        with connect(server.endpoint) as kv:
            write(kv, Keys("/configstore"), report("one"))
            run_until_full(kv)
        code, out, _ = status(server.endpoint)
    assert code == 1
    assert says("no space in etcd", out), out
    assert says("little space in etcd", out), out
    assert " 1 of 1 " in out


def run_until_full(kv):
    from configstore.errors import NoSpaceError  # noqa: PLC0415

    for number in range(100):
        try:
            kv.txn((), (Put(f"/fill/{number}".encode(), b"x" * 500_000),))
        except NoSpaceError:
            return
    raise AssertionError("never full")


def test_with_no_etcd_it_says_so_at_once(own):
    server, _ = own
    begun = time.monotonic()
    assert status(server.endpoint)[0] == 1  # empty
    usual = time.monotonic() - begun
    server.kill()

    def is_said():
        begun = time.monotonic()
        code, out, _ = status(server.endpoint)
        assert time.monotonic() - begun < 3 + 2 * usual
        assert code == 4
        return says("no etcd", out)  # a process that got no time for 2.3 s says that nothing answered in them

    wait_until(is_said, what="a refused connection to be told")


def test_an_etcd_that_hangs_is_named_in_three_seconds(own):
    server, _ = own
    begun = time.monotonic()
    assert status(server.endpoint)[0] == 1  # empty
    usual = time.monotonic() - begun
    freeze(server.process)
    begun = time.monotonic()
    code, out, _ = status(server.endpoint, "--json")
    assert time.monotonic() - begun < 3 + 2 * usual
    found = json.loads(out)
    assert (code, found["exit_code"], found["endpoints"][0]["answers"]) == (4, 4, False)
    assert any(says("an etcd that hangs", f"{need['found']} {need['mend']}") for need in found["needs"]), out


def test_one_that_went_without_a_goodbye_is_named_until_it_is_forgotten(run, kv, kv_root):
    keys = Keys(kv_root)
    gone = ExpectedReplica(
        mapping="certs", replica="two", host="node-2", directory="/certs", time="2026-01-01T00:00:00+00:00"
    )
    kv.txn((), (Put(keys.expected("certs", "two"), encode(gone)),))
    write(kv, keys, report("one"))
    said = run("status").out.decode()
    assert "certs: two@node-2: went without a goodbye" in said
    assert "configstore replicas forget two" in said
    assert run("replicas", "forget", "one").code == 1  # who is alive and not expected
    assert run("replicas", "forget").code == 2
    assert run("replicas", "forget", "two").code == 0
    assert "goodbye" not in run("status").out.decode()
    assert run("replicas", "forget", "two").code == 1


def test_who_lives_is_not_forgotten(run, kv, kv_root):
    keys = Keys(kv_root)
    kv.txn(
        (),
        (Put(keys.expected("certs", "one"), encode(ExpectedReplica(mapping="certs", replica="one", host="h"))),),
    )
    write(kv, keys, report("one"))
    done = run("replicas", "forget", "one")
    assert done.code == 5
    assert "it is alive" in done.err


def test_a_terminal_sees_colours_and_a_pipe_and_who_wants_none_do_not(environment):
    command = [sys.executable, "-m", "configstore", "status"]

    def shown(**variables):
        master, slave = pty.openpty()
        variables = environment | {"TERM": "xterm", "COLUMNS": "80"} | variables
        with subprocess.Popen(command, stdout=slave, env=variables):
            os.close(slave)
            text = b""
            while chunk := _read(master):
                text += chunk
        os.close(master)
        return text.decode()

    coloured = shown()
    assert "\x1b[" in coloured
    assert "\x1b" not in shown(NO_COLOR="1")
    assert b"\x1b" not in subprocess.run(command, capture_output=True, env=environment, check=False).stdout
    assert max(len(re.sub(r"\x1b\[[0-9;]*m", "", line)) for line in coloured.splitlines()) <= 80


def _read(descriptor):
    try:
        return os.read(descriptor, 65536)
    except OSError:  # what a terminal says at its end
        return b""


def test_a_piped_watch_speaks_when_something_changed(start, kv, kv_root):
    keys = Keys(kv_root)
    watching = start("status", "--watch", "--json", text=True, stderr=subprocess.DEVNULL)
    assert json.loads(watching.stdout.readline())["mappings"] == []
    for count in (1, 2, 3):
        write(kv, keys, report(f"r{count}"))
        found = json.loads(watching.stdout.readline())
        assert [row["expected"] for row in found["mappings"]] == [count]  # each state once


def test_what_programs_read_is_as_its_schema_says(run, kv, kv_root):
    write(kv, Keys(kv_root), report("one", problem_count=1, problems=(Problem(path="a", reason="why"),)))
    schema = json.loads((Path(__file__).parents[2] / "docs/reference/status.schema.json").read_text())
    jsonschema.validate(run("status", "--json").json(), schema)

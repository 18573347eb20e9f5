"""What the programs load: memory of every sidecar, and time of every command. One process a case."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configstore.cli import GROUPS, build_parser
from tests.harness.named import a_dir, a_tree, put
from tests.harness.servers import connect
from tests.harness.waiting import wait_until

TELLING = """
import atexit, json, sys
from configstore.process.later import loads_later
told = sys.argv.pop(1)
def tell():
    loaded = [name for name, module in list(sys.modules.items()) if module and not loads_later(module)]
    with open(told, "w") as file:
        json.dump(loaded, file)
atexit.register(tell)
from {module} import main
sys.exit(main())
"""

NEVER = {
    "asyncio.events": "an event loop",
    "email.message": "mail, for http.client",
    "grpc.aio._channel": "gRPC for asyncio",
    "google.protobuf.internal.decoder": "messages in pure Python",
    "google.protobuf.text_format": "messages as text",
    "http.client": "a client for HTTP",
    "http.server": "a server for HTTP",
    "_hashlib": "OpenSSL's library",
    "_ssl": "OpenSSL's library",
    "cryptography": "certificates",
    "nacl": "the cipher, without a keyring",
    "watchdog": "the polling observer, with inotify",
    "difflib": "what was probably meant",
    "etcd3": "etcd's interface, which is read as data",
    "xml": "nothing of ours",
    "unittest": "nothing of ours",
}
"""What neither a sidecar nor a command that works with one file loads, and what it would be for."""

WITH_STORE = {"grpc", "google.protobuf"}
"""What only who connects loads."""

OTHERS = {"configstore.cli.history", "configstore.cli.leases", "configstore.overview", "sidecar"}
"""What other commands than `get`, `put` and `status` load."""

FOR_STATUS = {"configstore.overview", "http.client", "email.message"}
"""Members tell over HTTP whether they are well, and what time it is."""


def loaded_by(tmp_path, module, *arguments, until=None):
    """Run a program, until something holds where it would not end, and return the names of what it loaded."""
    told = tmp_path / "modules"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CONFIGSTORE_")}
    command = [sys.executable, "-c", TELLING.format(module=module), str(told), *arguments]
    process = subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL)
    try:
        if until:
            wait_until(until, 60)
            process.send_signal(signal.SIGTERM)
        assert process.wait(60) in {0, 1}
    finally:
        process.kill()
        process.wait()
    return set(json.loads(told.read_text()))


def unwanted(loaded, names):
    """Return what was loaded of some modules, or below them."""
    return {name for name in loaded for other in names if name == other or name.startswith(f"{other}.")}


@pytest.fixture(scope="module")
def options(etcd):
    """Return the options for a store with one file."""
    root = f"/test-imports-{os.getpid()}"
    with connect(etcd.endpoint) as kv:
        put(a_tree(kv, root), {"box": a_dir(), "box/file": b"x"}, retention=0)
    return ["--endpoints", etcd.endpoint, "--root", root]


@pytest.mark.parametrize("line", ["get box/file", "put new /dev/null", "status"])
def test_a_command_loads_nothing_for_others(options, tmp_path, line):
    words = line.split()
    loaded = loaded_by(tmp_path, "configstore.cli", *options, *words)
    assert unwanted(loaded, {*NEVER, *OTHERS} - (FOR_STATUS if words == ["status"] else set())) == set()
    assert loaded >= {"configstore.store.etcd.client", "grpc", "tenacity"}


def test_a_command_that_does_not_connect_loads_no_client(tmp_path):
    loaded = loaded_by(tmp_path, "configstore.cli", "presets", "mailu/front")
    assert unwanted(loaded, {*NEVER, *WITH_STORE, *OTHERS}) == set()


@pytest.mark.parametrize("command", ["init", "run"])
def test_a_sidecar_loads_nothing_that_it_does_not_use(options, tmp_path, command):
    settings = tmp_path / "sidecar.toml"
    settings.write_text(
        f'[state]\ndirectory = "{tmp_path}/state"\n[control]\nsocket = "{tmp_path}/control/socket"\n'
        '[health]\nlisten = "127.0.0.1:0"\n[log]\nlevel = "error"\n'
        f'[[mapping]]\nname = "box"\npath = "{tmp_path}/box"\n'
    )
    file = tmp_path / "box" / "file"
    arguments = [command, *options, "--config", str(settings)]
    loaded = loaded_by(tmp_path, "sidecar.__main__", *arguments, until=file.exists if command == "run" else None)
    assert file.read_bytes() == b"x"
    assert unwanted(loaded, {*NEVER, "configstore.cli", "configstore.client", "subprocess", "tempfile"}) == set()
    assert loaded >= {"configstore.store.etcd.client", "grpc", "inotify_simple", "tenacity"}


def test_the_table_of_commands_is_what_the_modules_add():
    assert list(build_parser().commands) == [name for names in GROUPS.values() for name in names]
    for names in GROUPS.values():
        assert tuple(build_parser(names[:1]).commands) == names


def test_what_is_loaded_later_is_there_when_it_is_used():
    script = """
import sys
from configstore.process.later import load_later, loads_later
load_later("asyncio", "colorsys", "sys", "no.such.module")
import asyncio, colorsys
assert [loads_later(each) for each in (asyncio, colorsys, sys)] == [True, True, False]
async def one(): return 1
assert asyncio.run(one()) == 1
from colorsys import rgb_to_hsv
assert rgb_to_hsv(1, 0, 0) == (0.0, 1.0, 1)
assert not loads_later(asyncio) and not loads_later(colorsys) and sys.modules["asyncio"] is asyncio
try:
    colorsys.nothing
except AttributeError as error:
    print(error)
assert "no.such.module" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "module 'colorsys' has no attribute 'nothing'\n"


def test_a_python_without_hashes_of_its_own_has_those_of_openssl():
    """Some distributions build it so; without OpenSSL's there would be none, and no program of ours began."""
    script = """
import sys
sys.modules |= dict.fromkeys(("_sha2", "_sha256", "_sha512"))
import configstore.process.lean, hashlib
print(hashlib.sha256(b"").hexdigest()[:8])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout == "e3b0c442\n"


def test_only_the_store_reaches_through_to_its_connection():
    reached = re.compile(r"(?:tree|store)\.kv\.")
    files = [each for room in ("configstore", "sidecar") for each in sorted(Path(room).rglob("*.py"))]
    outside = [each for each in files if "configstore/store" not in str(each)]
    assert len(outside) > 100
    assert not [str(each) for each in outside if reached.search(each.read_text())]

"""docs/upgrading.md: what it types is there, and what it says of 0.1.0 is so."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from configstore.cli import build_parser
from configstore.model.replica import Request, Take, Verb, encode

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "upgrading.md").read_text()
BLOCKS = re.findall(r"(?:^ {4,}\S.*\n)+", PAGE, re.MULTILINE)
TYPED = [
    match[1]
    for text in (*re.findall(r"`([^`\n]+)`", PAGE), *"".join(BLOCKS).splitlines())
    for match in [re.search(r"(?:^|configstore |[\"'] )configstore ((?!-)[a-z-]+(?: [^|;>&…]*)?)$", text.strip())]
    if match
]


def test_every_command_of_the_page_can_be_typed():
    assert len(TYPED) > 15
    for words in TYPED:
        said = io.StringIO()
        with contextlib.redirect_stderr(said):
            try:
                build_parser().parse_args(
                    shlex.split(words.replace("{0,1,2}", "0").replace("{,.mailu.svc.cluster.local}", ""))
                )
            except SystemExit:
                pytest.fail(f"{words}: {said.getvalue()}")


def test_every_service_volume_and_config_of_the_page_is_there():
    compose = yaml.safe_load((DOCS / "deploy/compose/configstore.yml").read_text())["services"]
    (loop,) = re.findall(r"for service in ([a-z ]+);", PAGE)
    assert {f"{name}-sidecar" for name in loop.split()} == {name for name in compose if name.endswith("-sidecar")}
    stack = yaml.safe_load((DOCS / "deploy/swarm/stack.yml").read_text())
    for kind, key in (("service", "services"), ("config", "configs"), ("volume", "volumes")):
        (names,) = re.findall(rf"docker {kind} rm ([\w -]+)", PAGE)
        assert {name.removeprefix("mailu_") for name in names.split()} <= stack[key].keys()
    for folder in re.search(r"for map in (.*);", PAGE)[1].split():
        assert (DOCS / folder).is_dir()


def test_contacts_are_taken_out_and_put_back_as_the_page_says(tmp_path):
    storage = tmp_path / "before" / "example.org" / "user"
    storage.mkdir(parents=True)
    (storage / "AddressBook.sqlite").write_bytes(b"contacts")
    (storage / "settings").write_bytes(b"mirrored")
    (tmp_path / "after").mkdir()
    command = re.search(r"contacts='(.*)'", PAGE)[1].replace(
        "/data/_data_/_default_/storage", str(tmp_path / "before")
    )
    taken = subprocess.run(["sh", "-c", command], stdout=subprocess.PIPE, check=True).stdout
    subprocess.run(["tar", "x", "-C", str(tmp_path / "after"), "-f", "-"], input=taken, check=True)
    found = [path.relative_to(tmp_path / "after") for path in (tmp_path / "after").rglob("*") if path.is_file()]
    assert found == [Path("example.org/user/AddressBook.sqlite")]
    assert (tmp_path / "after" / found[0]).read_bytes() == b"contacts"


UNKNOWN = {
    "[state]": ('[state]\ndirectory = "/x"\n', {}),
    "[seal]": ('[seal]\nkeyring = "/x"\n', {}),
    "[local]": ('[local]\ndirectory = "/x"\n', {}),
    "run_as": ('[[mapping]]\nname = "a"\nrun_as = "1:1"\n', {}),
    "on_problem": ('[[mapping]]\nname = "a"\non_problem = ["true"]\n', {}),
    "seal": ('[[mapping]]\nname = "a"\nseal = "off"\n', {}),
    "CONFIGSTORE_STATE": ("", {"CONFIGSTORE_STATE": "/x"}),
    "CONFIGSTORE_LOCAL": ("", {"CONFIGSTORE_LOCAL": "/x"}),
    "CONFIGSTORE_CONTROL_GROUPS": ("", {"CONFIGSTORE_CONTROL_GROUPS": "front:1"}),
    "CONFIGSTORE_HEALTH_LISTEN": ("", {"CONFIGSTORE_HEALTH_LISTEN": "none"}),
    "CONFIGSTORE_CONTROL_SOCKET": ("", {"CONFIGSTORE_CONTROL_SOCKET": "none"}),
}
"""Settings of today, by the name that the page and 0.1.0 have for them."""

TRY_EACH = """
import json, os, sys
from sidecar.__main__ import main
for name, (text, variables) in json.load(sys.stdin).items():
    with open("settings", "w") as file:
        file.write(text)
    os.environ.update(variables)
    print(name, file=sys.stderr)
    print(main(["plan", "--config", "settings"]))
    for each in variables:
        del os.environ[each]
"""


def test_0_1_0_refuses_by_name_what_it_does_not_know(tmp_path, old_environment):
    command = [sys.executable, "-c", TRY_EACH]
    cases = json.dumps(UNKNOWN).encode()
    done = subprocess.run(command, input=cases, env=old_environment, cwd=tmp_path, capture_output=True, check=True)
    assert done.stdout.split() == [b"2"] * len(UNKNOWN)
    for name, said in zip(
        UNKNOWN, re.split(rf"(?m)^(?:{'|'.join(map(re.escape, UNKNOWN))})$", done.stderr.decode())[1:], strict=True
    ):
        assert name.strip("[]") in said, f"{name}: {said}"
        assert f"`{name}`" in PAGE


def test_a_choice_of_todays_command_is_one_for_0_1_0(old_environment):
    request = Request(id="1", verb=Verb.RESUME, by="a person", mapping="data", take=Take.LOCAL, reason="r")
    script = "from sys import stdin; from configstore.model.replica import decode_request as read"
    command = [sys.executable, "-c", f"{script}; print(read(stdin.buffer.read()))"]
    done = subprocess.run(command, input=encode(request), env=old_environment, capture_output=True, check=True)
    for said in (b"resume", b"mapping='data'", b"local", b"reason='r'"):
        assert said in done.stdout

"""The commands that the documents show in ```console blocks are run, in order, page by page."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configstore.embedded import free_ports
from tests.cli.test_import_export import MAILU, lay

HERE = Path(__file__).parents[1]
BLOCK = re.compile(r"^```console\n(.*?)^```", re.MULTILINE | re.DOTALL)
PAGES = [
    path for path in [HERE / "README.md", *sorted((HERE / "docs").rglob("*.md"))] if BLOCK.search(path.read_text())
]
PATIENCE = 60  # seconds for a command that works only when another one got going
TRY = """
try() {
  until eval "$1"; do
    [ $SECONDS -lt %d ] || { echo "failed: $1" >&2; exit 1; }
    read -rt 0.2 <> <(:) || :
  done
}
"""


def commands(page):
    """Return what is typed on a page, each with the lines of its here-document.

    A block with prompts is a dialogue: what follows a prompt is typed. In one without, to be copied whole, all is.
    """
    found = []
    for block in BLOCK.findall(page):
        end, prompted = None, re.search(r"^\$ ", block, re.MULTILINE)
        for line in block.splitlines():
            if end is not None:
                found[-1] += f"\n{line}"
                end = None if line == end else end
            elif line and (line.startswith("$ ") or not prompted):
                found.append(line.removeprefix("$ "))
                here = re.search(r"<<'?(\w+)'?", line)
                end = here[1] if here else None
    return found


@pytest.fixture
def shell(etcd, kv_root, tmp_path):
    """Return a function that runs commands in a folder with a host's /mailu, each until it succeeds.

    Or, pasted, as they come: the first that fails ends them. It returns the folder.
    """
    lay(tmp_path / "mailu", MAILU)
    lay(
        tmp_path,
        {"new-certs/cert.pem": b"certificate 2\n", "new-certs/key.pem": b"key 2\n", "proxy.conf": b"# none\n"},
    )
    (tmp_path / ".venv/bin").mkdir(parents=True)
    for name in ("configstore", "configstore-sidecar"):
        (tmp_path / ".venv/bin" / name).symlink_to(Path(sys.executable).with_name(name))
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))
    }
    environment |= {
        "CONFIGSTORE_ENDPOINTS": etcd.endpoint,
        "CONFIGSTORE_ROOT": kv_root,
        "PATH": f"{tmp_path}/.venv/bin:{os.environ['PATH']}",
    }
    port = str(free_ports(1)[0])
    places = {
        " /mailu": f" {tmp_path}/mailu",
        " /backup": f" {tmp_path}/backup",
        "/dev/shm": f"{tmp_path}",
        "2379": port,
    }
    running = []

    def run(typed, *, pasted=False):
        for ours, theirs in places.items():
            typed = [line.replace(ours, theirs) for line in typed]
        steps = [line if pasted or line.endswith("&") else f"try {shlex.quote(line)}" for line in typed]
        script = "\n".join(["set -e" if pasted else TRY % PATIENCE, *steps])
        with (tmp_path / "said").open("wb") as said:
            process = subprocess.Popen(
                ["bash", "-c", script],
                cwd=tmp_path,
                env=environment,
                start_new_session=True,
                stdout=said,
                stderr=subprocess.STDOUT,
            )
        running.append(process)
        run.process = process
        code = process.wait(2 * PATIENCE)
        assert code == 0, (tmp_path / "said").read_text()[-2000:]
        return tmp_path

    yield run
    for process in running:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(HERE)) for page in PAGES])
def test_the_commands_of_a_page_work(shell, page):
    if page.name == "backup.md":
        shell(["configstore import /mailu / --preset mailu"])
    if page.name == "troubleshooting.md":
        shell(["configstore bootstrap --preset mailu"])  # in an empty store something needs a look
    shell(commands(page.read_text()))


def test_the_block_of_the_readme_works_when_it_is_pasted_and_leaves_nothing_behind(shell):
    folder = shell(commands((HERE / "README.md").read_text()), pasted=True)
    said = (folder / "said").read_text()
    assert re.search(r"^-rw-.* 17\d\d .* example.org.dkim.key$", said, re.MULTILINE), said
    assert "2 of 2" in said
    assert not {"one", "two", "one.toml", "two.toml"} & {path.name for path in folder.iterdir()}
    with pytest.raises(ProcessLookupError):
        os.killpg(shell.process.pid, 0)


def test_what_is_copied_from_a_page_has_no_prompts():
    """`moving-in.md` and transcripts, which show answers as well, excepted."""
    guides = [HERE / "README.md", HERE / "docs/backup.md", *(HERE / "docs/deploy").rglob("*.md")]
    assert not [page.name for page in guides if re.search(r"^ *\$ ", page.read_text(), re.MULTILINE)]


def test_there_are_pages_with_commands():
    assert {"README.md", "moving-in.md", "backup.md"} <= {page.name for page in PAGES}

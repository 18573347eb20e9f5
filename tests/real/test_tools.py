"""Real programs at work while their directory is scanned: what is known at the end is what lies there."""

import shutil
import subprocess
import sys

import pytest

from tests.harness.waiting import wait_until
from tests.sidecar.local.named import Mirrored, differences, write

TOOLS = {
    "git": """
        git clone -q "$outside/origin" "$top/clone"
        cd "$top/clone"
        git checkout -q older && git checkout -q newer
        git gc -q --prune=now
        cp -a "$top/clone" "$top/copy$1" && rm -rf "$top/clone"
        rm -rf "$top/copy$(($1 - 1))"
    """,
    "rsync": """
        rsync -a --delete "$outside/old/" "$top/synced/"
        rsync -a --delete "$outside/new/" "$top/synced/"
        rm -rf "$top/synced"
    """,
    "tar": """
        mkdir -p "$top/unpacked" && tar x -C "$top/unpacked" -f "$outside/old.tar"
        sed -i s/old/new/ "$top"/unpacked/a/file*
        mv "$top/unpacked" "$top/moved$1"
        rm -rf "$top/moved$(($1 - 1))"
    """,
    "venv": """
        "$python" -m venv --without-pip "$top/venv"
        cp -a "$top/venv" "$top/kept$1" && rm -rf "$top/venv" "$top/kept$(($1 - 1))"
    """,
}
ROUNDS = {"git": 6, "rsync": 25, "tar": 25, "venv": 6}


@pytest.fixture
def outside(tmp_path):
    """Return a directory with what the tools work from."""
    outside = tmp_path / "outside"
    for version in ("old", "new"):
        for number in range(30):
            write(
                outside / version / "abc"[number % 3] / f"file{number % 20 + len(version) % 2}", version * number
            )
    subprocess.run(["tar", "c", "-C", outside / "old", "-f", outside / "old.tar", "."], check=True)
    made = """
        git init -q "$1" && cd "$1" && git config user.email a@example.org && git config user.name a
        cp -r "$2/old/." . && git add . && git commit -qm old && git tag older
        rm -rf a && cp -r "$2/new/." . && git add -A && git commit -qm new && git tag newer
    """
    subprocess.run(["bash", "-ec", made, "-", outside / "origin", outside], check=True, capture_output=True)
    return outside


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_did_during_scans_is_known_as_it_is(tmp_path, outside, woken, tool):
    if tool != "venv" and not shutil.which(tool):
        pytest.fail(f"this test runs {tool}: install it", pytrace=False)
    top = tmp_path / "top"
    here = Mirrored(top, watch=woken.watch)
    here.scan()
    script = f"for n in $(seq 1 {ROUNDS[tool]}); do set -- $n; {TOOLS[tool]}\ncd /\ndone"
    environment = {"top": str(top), "outside": str(outside), "python": sys.executable, "PATH": "/usr/bin:/bin"}

    def look():
        news = woken.news()
        directories, news.directories = news.directories, set()
        written, news.written = news.written, set()
        if directories:
            here.scan(*directories, written=written)

    with subprocess.Popen(["bash", "-ec", script], env=environment, stderr=subprocess.PIPE) as working:
        while working.poll() is None:
            look()
        assert working.returncode == 0, working.stderr.read()
    wait_until(lambda: look() or not differences(here), what="what is known to be what is there")
    here.scan()
    assert differences(here) == set()
    here.close()

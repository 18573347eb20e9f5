"""Real tools make, change, move and remove trees in a mirrored directory, on a real etcd.

Whatever moment of a scan they meet: in the end both replicas hold what the tool left, nothing waits, and nobody is
busy. What cannot be mirrored is named, and nothing else suffers from it.
"""

import json
import shutil
import subprocess
import sys
import threading

import pytest

from configstore.model.record import Kind
from tests.e2e.conftest import equal
from tests.harness.trees import tree
from tests.harness.waiting import wait_until

TOOLS = {
    "git": """
        git clone -q "$outside/origin" "$top/clone"
        cd "$top/clone"; pause
        git checkout -q older; pause; git checkout -q newer
        git config user.email a@example.org; git config user.name a
        git checkout -q -b topic older; echo topic > topic; git add topic; git commit -q -m topic; pause
        git rebase -q newer; pause
        git gc -q --prune=now
        cp -a "$top/clone" "$top/copy$1"; pause; rm -rf "$top/clone" "$top/copy$before"
    """,
    "git-init": """
        git init -q "$top/repository$1"; pause
        cd "$top/repository$1"
        git config user.email a@example.org; git config user.name a
        cp -r "$outside/old/." .; git add .; git commit -q -m old; pause
        rm -r a; git add -A; git commit -q -m new; git checkout -q HEAD~1; pause
        rm -rf "$top/repository$before"
    """,
    "rsync": """
        rsync -ac --delete "$outside/old/" "$top/synced/"; pause
        rsync -ac --delete "$outside/new/" "$top/synced/"; pause
        rsync -ac --delete "$outside/old/" "$top/synced/"
        rsync -ac --delete "$top/synced/" "$top/back/"; pause
        rsync -ac --delete "$outside/new/" "$top/back/"
    """,
    "tar": """
        mkdir -p "$top/unpacked"; tar x -C "$top/unpacked" -f "$outside/old.tar"; pause
        sed -i s/old/new/ "$top"/unpacked/a/file*
        mv "$top/unpacked" "$top/moved$1"; pause
        rm -rf "$top/moved$before"
    """,
    "venv": """
        "$python" -m venv --without-pip "$top/venv"; pause
        cp -a "$top/venv" "$top/kept$1"; rm -rf "$top/venv"; pause; rm -rf "$top/kept$before"
    """,
    "mv": """
        mkdir -p "$top/here/deep"
        for each in 1 2 3 4 5; do echo $1 > "$top/here/deep/$each"; done; pause
        (for each in 1 2 3; do echo edited >> "$top/here/deep/$each" || true; done) 2>/dev/null &
        mv "$top/here" "$top/there$1"; wait; pause
        echo late > "$top/there$1/deep/4"; mv "$top/there$1/deep" "$top/there$1/moved"
        rm -rf "$top/there$before"
    """,
    "editors": """
        echo $1 > "$top/in-place"
        echo $1 > "$top/.renamed.swp"; pause; mv "$top/.renamed.swp" "$top/renamed"
        [ ! -e "$top/backed-up" ] || cp -p "$top/backed-up" "$top/backed-up~"; pause; echo $1 > "$top/backed-up"
        [ ! -e "$top/moved" ] || mv "$top/moved" "$top/moved~"; pause; echo $1 > "$top/moved"; rm -f "$top/moved~"
    """,
    "install-and-ln": """
        echo $1 > "$outside/built"; install -m 0640 "$outside/built" "$top/installed"; pause
        install -D -m 0755 "$outside/built" "$top/bin/tool"; ln -sfn tool "$top/bin/link"; pause
        ln -f "$top/installed" "$top/linked"; pause; rm "$top/linked"
    """,
    "rotation": """
        [ ! -e "$top/log.1" ] || mv "$top/log.1" "$top/log.2"; [ ! -e "$top/log" ] || mv "$top/log" "$top/log.1"
        : > "$top/log"; chmod 0640 "$top/log"; pause; echo $1 >> "$top/log"; echo more >> "$top/log"
    """,
}
ROUNDS = {"git": 4, "git-init": 4, "rsync": 6, "tar": 10, "venv": 4, "mv": 12, "editors": 20, "rotation": 20}

PAUSES = "pauses=(0 0.002 0.01 0.022 0.04 0.15); pause() { sleep ${pauses[$((turn++ % 6))]}; }; turn=0"
"""Tools meet the look at what the one before did at its beginning, in it, and after it."""


@pytest.fixture
def pair(replica):
    """Return two running replicas, ready, in which a tool may remove more than it leaves."""
    one, two = (replica(name, "max_delete = 1.0").start() for name in ("one", "two"))
    return one.ready(), two.ready()


@pytest.fixture
def outside(tmp_path):
    """Return a directory with what the tools work from."""
    outside = tmp_path / "outside"
    for version in ("old", "new"):
        for number in range(24):
            file = outside / version / "abc"[number % 3] / f"file{number % 20 + len(version + str(number)) % 2}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(version * number)
    shutil.rmtree(outside / "new" / "b")
    (outside / "new" / "b").write_text("a file where a directory was\n")
    made = """
        tar c -C "$1/old" -f "$1/old.tar" .
        git init -q "$1/origin"; cd "$1/origin"; git config user.email a@example.org; git config user.name a
        cp -r "$1/old/." .; git add .; git commit -q -m old; git tag older
        rm -r a b; cp -r "$1/new/." .; git add -A; git commit -q -m new; git tag newer
    """
    subprocess.run(["bash", "-ec", made, "-", outside], check=True, capture_output=True)
    return outside


def work(script, rounds, *, top, outside):
    """Run rounds of a tool's script, each knowing its number and the one before."""
    lines = f"{PAUSES}\nfor n in $(seq 1 {rounds}); do set -- $n; before=$((n - 1))\n{script}\ncd /\ndone"
    environment = {"top": str(top), "outside": str(outside), "python": sys.executable, "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        ["bash", "-ec", lines], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def report(configstore):
    """Return of each replica what `status` says of it."""
    return {each["replica"]: each for each in json.loads(configstore("status", "--json"))["replicas"]}


def links(path):
    """Return how many names a file has."""
    return path.lstat().st_nlink


def are_quiet(*replicas):
    """Tell whether replicas have nothing to do, and do nothing: at most a look or two within half a second."""
    if any(one.metric("pending") for one in replicas):
        return False
    before = [one.metric("cycles_total") for one in replicas]
    threading.Event().wait(0.5)
    return all(one.metric("cycles_total") - made <= 2 for one, made in zip(replicas, before, strict=True))


def differences(one, two, wanted):
    """Say what is not as a tool left it, and what both have said of it."""
    here, there = one.tree(), two.tree()
    names = sorted(
        path for path in here | there | wanted if not here.get(path) == there.get(path) == wanted.get(path)
    )
    lines = [f"{path}: left {wanted.get(path)}, one {here.get(path)}, two {there.get(path)}" for path in names]
    asked = [f"{each.name}: {each.ask('/readyz')}\n{each.words()[-3000:]}" for each in (one, two)]
    return "\n".join(["what the tool left to be everywhere", *lines, *asked])


def end_well(one, two, configstore, *, problems=frozenset(), perhaps=frozenset()):
    """Wait until both replicas are at rest, the first with just these problems, and perhaps some of the others."""
    wait_until(lambda: are_quiet(one, two), 30, what="both to be at rest")
    for each in (one, two):
        assert each.ask("/readyz")[0] == 200
        assert each.ask("/livez")[0] == 200

    def told():
        found = report(configstore)
        mine = {problem["path"] for problem in found["one"]["problems"]}
        as_it_is = problems <= mine <= problems | perhaps and not found["two"]["problems"]
        return as_it_is and all(each["ready"] and not each["pending"] for each in found.values())

    wait_until(told, 20, what=f"just {sorted(problems) or 'nothing'} to be named by status")


@pytest.mark.parametrize("tool", TOOLS)
def test_what_a_tool_left_is_everywhere_and_quiet_returns(pair, configstore, outside, tool):
    one, two = pair
    work(TOOLS[tool], ROUNDS.get(tool, 12), top=one.folder, outside=outside)
    left = one.tree()
    names_outside = {path for path, (kind, _, target) in left.items() if kind is Kind.SYMLINK and target[0] == "/"}
    wanted = {path: look for path, look in left.items() if path not in names_outside}
    assert wanted
    wait_until(lambda: two.tree() == wanted, what=lambda: differences(one, two, wanted))
    end_well(one, two, configstore, problems=frozenset(names_outside))
    assert one.tree() == left
    assert configstore("conflicts") == b""


def test_a_clone_with_hard_links_is_named_and_what_is_beside_it_travels(pair, configstore, outside):
    """Git links the objects of a local clone to those of its origin, which may change by that no more."""
    one, two = pair
    work('git clone -q --no-local "$outside/origin" "$top/origin"', 1, top=one.folder, outside=outside)
    equal(one, two, 30)
    before = one.tree()
    work(
        'git clone -q --local "$top/origin" "$top/clone"; pause; echo beside > "$top/beside"',
        1,
        top=one.folder,
        outside=outside,
    )
    linked = {
        path for path, (kind, _, _) in one.tree().items() if kind is Kind.FILE and links(one.folder / path) > 1
    }
    new = frozenset(linked - before.keys())
    known = frozenset(linked - new)  # unchanged, so that the next look at everything is soon enough
    assert new
    assert known
    wanted = {path: look for path, look in one.tree().items() if path not in new}
    wait_until(lambda: two.tree() == wanted, 30, what="all but what has hard links")
    end_well(one, two, configstore, problems=new, perhaps=known)
    work('rm -rf "$top/origin"', 1, top=one.folder, outside=outside)
    assert equal(one, two, 30).keys() >= new  # what was linked is a file of its own now
    end_well(one, two, configstore)


def test_trees_that_the_other_side_gets_are_changed_and_removed_there(pair, configstore, outside):
    one, two = pair
    forth = 'rsync -ac --delete "$outside/old/" "$top/shared/"; pause; rm -rf "$top/shared/c"'
    back = 'rsync -ac --delete "$outside/new/" "$top/shared/"; pause; mv "$top/shared/c" "$top/shared/d"'
    for _ in range(3):
        work(forth, 1, top=one.folder, outside=outside)
        equal(one, two, 30)
        work(back, 1, top=two.folder, outside=outside)
        equal(one, two, 30)
    new = tree(outside / "new")
    wanted = {f"d{path[1:]}" if path.startswith("c") else path: look for path, look in new.items()}
    assert tree(two.folder / "shared") == wanted
    end_well(one, two, configstore)

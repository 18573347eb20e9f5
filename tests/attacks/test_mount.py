"""The application's directory: nothing in it makes a root sidecar leave it, hang, or end."""

import json
import os
import shutil
import stat
from pathlib import Path

import pytest

from tests.attacks.application import UID
from tests.harness.waiting import wait_until

PLANT = """
mine = folder + "/.configstore-mine"
os.makedirs(mine + "/staging")
"""

SWAP = 'exchange(mine, folder + "/.configstore")'

IN_ITS_PLACE = """os.rename(folder + "/.configstore", folder + "/.configstore-aside")
os.rename(mine, folder + "/.configstore")"""

UNSEEN = 'exclude = [".configstore-*"]'
"""The policy of a mapping that is not told of what was moved aside."""

PRIVATE_NAMES = ("configstore-mark", "baseline", "baseline.new", "intent", "intent.new")


def still_mirrors(one, configstore, name="sign-of-life"):
    """Wait until an edit travels, and a change comes."""
    (one.folder / name).write_text("1")
    wait_until(lambda: name.encode() in configstore("ls", "data"), 30, what=f"an edit to travel: {one.words()}")
    configstore("put", f"data/back-{name}", content=b"2")
    wait_until((one.folder / f"back-{name}").exists, 30, what=f"a change to come: {one.words()}")


def a_secret(volume):
    """Lay a file of root's where the application cannot come, and return it."""
    private = volume / "private"
    private.mkdir(mode=0o700)
    (private / "key").write_text("SECRET")
    (private / "key").chmod(0o600)
    return private / "key"


def untouched(secret):
    found = secret.stat()
    return (secret.read_text(), found.st_uid, stat.S_IMODE(found.st_mode), os.listdir(secret.parent)) == (
        "SECRET",
        0,
        0o600,
        ["key"],
    )


# What is planted under our own names


SIGNATURE = [1, 0o100600, 0, 0, 6, 0, 0]


def intents(victim):
    """Return a journal that would move, remove and unlock what lies elsewhere."""
    lines = []
    for path in (str(victim), "../private/key", "a"):
        for name in (str(victim), "../../private/key", "0"):
            place = {"laid": SIGNATURE, "expected": None, "entry": {"kind": "file"}, "remote": None}
            remove = {"expected": {"signature": SIGNATURE}}
            for kind, more in (("place", place), ("remove", remove)):
                lines.append(json.dumps({"type": kind, "path": path, "name": name, "group": 1, **more}))
        lines.append(json.dumps({"type": "unlock", "path": path, "mode": 0o777}))
    return lines


def test_a_forged_journal_moves_nothing(attacked, configstore, volume):
    secret = a_secret(volume)
    one = attacked().start().ready()
    still_mirrors(one, configstore)
    for number, line in enumerate(intents(secret)):
        script = PLANT + 'open(mine + "/intent", "w").write(sys.argv[1] + "\\n")\n' + SWAP
        script += f'\nos.rename(mine, folder + "/.configstore-old{number}")'
        one.application(script, line)
    still_mirrors(one, configstore, "after-it")
    one.end()
    assert one.start().ready()
    still_mirrors(one, configstore, "after-a-restart")
    assert untouched(secret)


FORGED = {
    "a FIFO": 'os.mkfifo(f"{mine}/{name}")',
    "a directory": 'os.makedirs(f"{mine}/{name}/" + "deep/" * 200)',
    "a link to a secret": 'os.symlink(sys.argv[1], f"{mine}/{name}")',
    "a link to itself": 'os.symlink(name, f"{mine}/{name}")',
    "a file without an end": 'open(f"{mine}/{name}", "wb").truncate(3 << 30)',
    "bytes": 'open(f"{mine}/{name}", "wb").write(b"\\xff\\x00{" * 1000 + b"\\n")',
    "nested": 'open(f"{mine}/{name}", "wb").write(b"[" * 5000 + b"\\n")',
}


@pytest.mark.parametrize("forged", FORGED)
def test_whatever_lies_under_our_names_neither_hangs_nor_ends_it(attacked, configstore, volume, forged):
    secret = a_secret(volume)
    one = attacked(policy=UNSEEN).start().ready()
    script = f"{PLANT}\nfor name in {PRIVATE_NAMES!r}:\n    {FORGED[forged]}\n{SWAP}"
    one.application(script, secret)
    still_mirrors(one, configstore)
    assert one.end() == 0
    one.application(script.replace(SWAP, IN_ITS_PLACE).replace("-mine", "-again"), secret)
    one.start().ready()
    still_mirrors(one, configstore, "after-a-restart")
    assert untouched(secret)


@pytest.mark.parametrize(
    "lay",
    ['os.mkfifo(f"{mine}/staging/0")', 'os.makedirs(f"{mine}/staging/0/" + "deep/" * 700)',
     '[os.symlink(sys.argv[1], f"{mine}/staging/{n}") for n in range(50)]'],
    ids=["a FIFO", "a deep directory", "links"],
)  # fmt: skip
def test_what_is_planted_for_staging_is_not_used(attacked, configstore, volume, lay):
    secret = a_secret(volume)
    one = attacked().start().ready()
    one.application(f"{PLANT}\n{lay}\n{SWAP}", secret)
    still_mirrors(one, configstore)
    assert untouched(secret)


def test_our_own_directory_is_never_published_wherever_it_is_moved(attacked, configstore):
    one = attacked().start().ready()
    still_mirrors(one, configstore)
    one.application('os.rename(folder + "/.configstore", folder + "/moved")')
    still_mirrors(one, configstore, "after-it")
    assert b"moved" not in configstore("ls", "-R", "data")
    wait_until(lambda: "that was moved here: remove it" in one.ask("/readyz")[1], 20)


# Where the directory lies


def in_a_volume_of_the_application(attacked, volume):
    """Return a sidecar that mirrors a subdirectory of what the application owns."""
    one = attacked(base=volume / "mine")
    for path in (one.log, one.settings, volume / "mine/one"):
        assert path.exists() or path == one.log
    return one


def test_a_directory_swapped_for_a_link_is_not_followed(attacked, configstore, volume):
    secret = a_secret(volume)
    one = in_a_volume_of_the_application(attacked, volume).start().ready()
    still_mirrors(one, configstore)
    one.application('os.rename(folder, folder + ".x"); os.symlink(sys.argv[1], folder)', secret.parent)
    wait_until(lambda: "is reached through the symlink one, which another user" in one.words(), 30)
    configstore("put", "data/more", content=b"from the store")
    wait_until(lambda: one.ask("/readyz")[0] == 503, 20)
    one.end()
    one.start()
    wait_until(lambda: one.ask("/readyz")[0] == 503, 20)
    assert b"key" not in configstore("ls", "-R", "data")
    assert untouched(secret)


def test_a_directory_of_roots_put_in_its_place_is_not_taken(attacked, configstore, volume):
    roots = volume / "mine/roots"
    roots.mkdir(mode=0o700)
    (roots / "key").write_text("SECRET")
    one = in_a_volume_of_the_application(attacked, volume).start().ready()
    one.application('os.rename(folder, folder + ".x"); os.rename(os.path.dirname(folder) + "/roots", folder)')
    wait_until(lambda: "can put what it likes here" in one.words(), 30)
    one.end()
    one.start()
    wait_until(lambda: one.ask("/readyz")[0] == 503, 20)
    assert b"key" not in configstore("ls", "-R", "data")
    assert os.listdir(one.folder) == ["key"]


# Races


RACE = """
import random, time
chance, names, end = random.Random(int(sys.argv[1])), ["d", "e", "f"], time.monotonic() + 60
outside = sys.argv[2]
os.chdir(folder)
count = 0
for count in range(int(sys.argv[3])):
    a, b = chance.sample(names, 2)
    try:
        match chance.randrange(7):
            case 0: os.rename(a, a + ".x"); os.symlink(outside, a)
            case 1: os.unlink(a)
            case 2: os.rename(a + ".x", a)
            case 3: os.symlink(outside + "/key", a + "/key")
            case 4: os.link(outside + "/key", a + "/link")
            case 5: exchange(a, b)
            case 6: os.makedirs(a, exist_ok=True); open(a + "/key", "w").write(str(count))
    except OSError:
        pass
    if time.monotonic() > end:
        break
print(count)
"""


@pytest.mark.parametrize("seed", range(2))
def test_whoever_races_with_it_leads_it_nowhere(attacked, configstore, volume, seed):
    secret = a_secret(volume)
    one = attacked(policy='settle = "1ms"\ndelete_settle = "10ms"\nmax_delete = 1.0').start().ready()
    for name in "def":
        configstore("put", f"data/{name}/key", content=b"from the store")
    tried = 0
    for each in range(6):
        tried += int(one.application(RACE, seed * 100 + each, secret.parent, 5000).stdout)
        for name in "def":
            configstore("put", f"data/{name}/key", content=b"again %d" % each)
    print(f"{tried} steps of the racer")
    one.application('[os.path.islink(p) and os.unlink(p) for p in (f"{folder}/{n}" for n in "def")]')
    still_mirrors(one, configstore)
    assert untouched(secret)
    values = configstore("export", "data", str(volume / "out"))
    assert values is not None
    found = [
        path.read_text() for path in Path(volume / "out").rglob("*") if path.is_file() and not path.is_symlink()
    ]
    assert not [text for text in found if "SECRET" in text]
    assert one.process.poll() is None


def test_a_check_writes_nowhere_but_in_what_it_is_shown(attacked, configstore, volume):
    secret = a_secret(volume)
    script = f'echo x > "$1/note"; echo x >> "$1/a"; echo x > {secret}; cp {secret} {volume}/stolen; true'
    check = json.dumps(["sh", "-c", script, "-", "{}"])
    one = attacked(policy=f'check = {check}\nrun_as = "{UID}:{UID}"')
    one.under = (
        *one.under[:1],
        "--bounding-set=-all,+chown,+dac_override,+fowner,+lease,+setuid,+setgid",
        *one.under[2:],
    )
    one.start().ready()
    one.application('os.symlink(sys.argv[1], folder + "/note")', secret)
    configstore("put", "data/a", content=b"1")
    wait_until((one.folder / "a").exists, 30, what=one.words())
    assert (one.folder / "a").read_bytes() == b"1"
    assert untouched(secret)
    assert not (volume / "stolen").exists()
    shutil.rmtree(volume / "out", ignore_errors=True)

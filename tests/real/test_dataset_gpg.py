"""Roundcube's keyrings: a real gpg makes and uses keys in one home, and another replica's home follows."""

import json
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness.waiting import freeze, wait_until
from tests.real.acme import program
from tests.real.preset import PresetReplica

USER = "user@example.org"
# Longer than any test takes, so that no delete travels which gpg takes back.
PATIENT = {"gpg": 'delete_settle = "60s"'}


class Webmail(PresetReplica):
    """A webmail with the home of one user."""

    @property
    def home(self):
        return self.at(f"/data/gpg/{USER}")

    def gpg(self, *arguments, data=b"", code=0):
        """Run gpg on the user's home and return what it prints."""
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        command = [
            program("gpg"),
            "--homedir",
            str(self.home),
            "--batch",
            "--yes",
            "--no-tty",
            "--pinentry-mode",
            "loopback",
        ]
        done = subprocess.run(
            [*command, "--passphrase", "", *arguments], input=data, capture_output=True, check=False
        )
        assert done.returncode == code, done.stderr.decode()
        return done.stdout

    def generate(self, name):
        self.gpg("--quick-gen-key", name, "ed25519", "sign", "never")

    def knows(self, name):
        """Tell whether the secret key of a name is in the home."""
        if not (self.home / "pubring.kbx").exists():
            return False
        command = [program("gpg"), "--homedir", str(self.home), "--batch", "--list-secret-keys", name]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    def __exit__(self, *_):
        if self.home.exists():
            subprocess.run(
                ["gpgconf", "--homedir", str(self.home), "--kill", "all"], capture_output=True, check=False
            )
        super().__exit__()


@pytest.fixture
def pair(etcd, kv_root, configstore):
    """Return two webmails, in short paths, as gpg's sockets want them."""
    configstore("bootstrap", "--preset", "mailu/webmail")
    base = Path(tempfile.mkdtemp(prefix="cs-gpg-"))
    made = [
        Webmail(name, base, etcd.endpoint, kv_root, "mailu/webmail", lambda _: PATIENT) for name in ("one", "two")
    ]
    for each in made:
        each.start()
    yield [each.ready() for each in made]
    for each in made:
        each.__exit__()
    shutil.rmtree(base)


def test_a_key_made_in_one_home_signs_in_the_other(pair):
    one, two = pair
    one.generate("a@example.org")
    wait_until(lambda: two.knows("a@example.org"), 20)
    signed = two.gpg("--clearsign", "-u", "a@example.org", data=b"text\n")
    one.gpg("--verify", data=signed)
    modes = {
        path.name: path.stat().st_mode & 0o777
        for path in [two.home, *two.home.rglob("*.key"), *two.home.glob("*.kbx")]
    }
    assert modes.pop(USER) == 0o700
    assert set(modes.values()) == {0o600}


def test_an_imported_key_travels_and_locks_sockets_and_copies_stay(pair, configstore):
    one, two = pair
    one.generate("a@example.org")
    wait_until(lambda: two.knows("a@example.org"), 20)
    two.gpg("--export-ownertrust")  # starts what keeps sockets and locks there
    two.generate("b@example.org")
    wait_until(lambda: one.knows("b@example.org") and one.knows("a@example.org"), 20)
    assert (two.home / "pubring.kbx~").exists()
    stored = configstore("ls", "-R", "webmail/gpg").decode().split()
    kept = {path.rpartition("/")[2] for path in stored if not path.endswith("/")}
    assert {name for name in kept if not name.endswith((".key", ".rev"))} <= {"pubring.kbx", "trustdb.gpg"}
    assert {"pubring.kbx", "trustdb.gpg"} <= kept


def test_a_keyring_that_is_missing_for_a_moment_is_not_deleted(pair, configstore):
    one, two = pair
    one.generate("a@example.org")
    wait_until(lambda: two.knows("a@example.org"), 20)
    for number in range(5):
        one.generate(f"more-{number}@example.org")  # each renames the keyring away and a new one in
    wait_until(lambda: two.knows("more-4@example.org"), 20)
    history = json.loads(configstore("history", f"webmail/gpg/{USER}/pubring.kbx", "--json"))
    assert len(history) > 1
    assert {each["kind"] for each in history} == {"file"}


def test_of_two_edits_of_one_keyring_one_wins_and_the_other_is_kept(pair, configstore):
    one, two = pair
    one.generate("a@example.org")
    wait_until(lambda: two.knows("a@example.org"), 20)
    freeze(two.process)
    one.generate("from-one@example.org")
    two.generate("from-two@example.org")
    lies_there = (one.home / "pubring.kbx").read_bytes()
    wait_until(lambda: configstore("get", f"webmail/gpg/{USER}/pubring.kbx") == lies_there)
    loser = (two.home / "pubring.kbx").read_bytes()
    two.process.send_signal(signal.SIGCONT)
    wait_until(lambda: (two.home / "pubring.kbx").read_bytes() == lies_there, 20)
    kept = json.loads(configstore("conflicts", f"webmail/gpg/{USER}/pubring.kbx", "--json"))
    assert configstore("conflicts", f"webmail/gpg/{USER}/pubring.kbx", "--show", kept[0]["id"]) == loser
    assert one.knows("from-one@example.org")

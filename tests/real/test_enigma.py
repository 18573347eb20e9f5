"""Two Roundcubes of one user, with enigma's own sequence of commands; and homes that an old image began."""

import shutil
import tempfile
from pathlib import Path

import pytest

from tests.harness.waiting import wait_until
from tests.real.enigma import Roundcube

pytestmark = pytest.mark.timeout(600)  # some fifty times gpg, each with an agent of its own


@pytest.fixture
def pair(etcd, kv_root, configstore):
    """Return two webmails, in short paths, as gpg's sockets want them."""
    configstore("bootstrap", "--preset", "mailu/webmail")
    base = Path(tempfile.mkdtemp(prefix="cs-en-"))
    made = [
        Roundcube(name, base, etcd.endpoint, kv_root, "mailu/webmail", lambda _: {}).start()
        for name in ("one", "two")
    ]
    yield [each.ready() for each in made]
    for each in made:
        each.__exit__()
    shutil.rmtree(base)


@pytest.fixture
def elsewhere():
    """Return what makes keys in a home of its own, which nobody mirrors."""
    base = Path(tempfile.mkdtemp(prefix="cs-en-"))
    made = Roundcube.__new__(Roundcube)
    made.at = lambda _: base
    yield made
    made.end_agent()
    shutil.rmtree(base)


def mirrored(webmail):
    """Return what of a home is mirrored: its path, and its content."""
    names = ("pubring.kbx", "pubring.gpg", "secring.gpg", "trustdb.gpg", ".gpg-v21-migrated")
    files = [path for path in webmail.home.rglob("*") if path.is_file()]
    found = [path for path in files if path.name in names or path.suffix in {".key", ".rev"}]
    return {str(path.relative_to(webmail.home)): path.read_bytes() for path in found}


def settle(one, two):
    """Wait until two homes are equal, and have keys."""

    def equal():
        try:
            return mirrored(one) == mirrored(two) and mirrored(one)
        except FileNotFoundError:  # removed since it was listed
            return False

    wait_until(equal, 40, what="two equal homes")


def old_home(home, maker, key):
    """Lay a home as GnuPG 1.4 and 2.0 kept it: all public keys in one file, all secret ones in another."""
    home.mkdir(mode=0o700, parents=True)
    (home / "pubring.gpg").write_bytes(maker.run("--export", key).stdout)
    (home / "secring.gpg").write_bytes(maker.run("--batch", "--export-secret-keys", key).stdout)
    for path in home.iterdir():
        path.chmod(0o600)


def test_whatever_enigma_does_in_one_webmail_counts_in_the_other(pair, configstore):
    one, two = pair
    mine = one.gen_key("User", "user@example.org")
    settle(one, two)
    assert two.keys() == two.secret_keys() == [mine]
    assert one.verify(two.sign(b"text\n", mine))
    assert two.decrypt(one.encrypt(b"text\n", mine)) == b"text\n"

    theirs = two.gen_key("Other", "other@example.net")
    settle(one, two)
    taken = one.export(theirs)
    two.delete_key(theirs)
    wait_until(lambda: one.keys() == one.secret_keys() == [mine], 40, what="the deletion in the other home")
    settle(one, two)
    one.import_key(taken)
    settle(one, two)
    assert sorted(two.keys()) == sorted(two.secret_keys()) == sorted([mine, theirs])
    assert configstore("conflicts") == b""
    assert not [each for each in pair if "halt" in each.ask("/readyz")[1]]


def test_a_home_of_an_old_image_moves_in_and_goes_on(pair, elsewhere, configstore, tmp_path):
    one, two = pair
    mine = elsewhere.gen_key("User", "user@example.org")
    host = tmp_path / "mailu"
    old_home(host / "webmail/gpg/user@example.org", elsewhere, mine)
    configstore("import", str(host), "/", "--preset", "mailu/webmail")
    wait_until(lambda: all((each.home / "secring.gpg").exists() for each in pair), 20)
    assert one.keys() == one.secret_keys() == [mine]  # the first use takes the secret keys out of their old file
    settle(one, two)
    assert two.keys() == two.secret_keys() == [mine]
    assert two.verify(one.sign(b"text\n", mine))
    theirs = one.gen_key("Other", "other@example.net")
    wait_until(lambda: sorted(two.secret_keys()) == sorted([mine, theirs]), 40, what="a new key in the old form")
    assert sorted(two.keys()) == sorted([mine, theirs])
    assert not (two.home / "pubring.kbx").exists()  # the old form stays in use
    two.delete_key(mine)  # the old file of secret keys still has it: no replica may take it out once more
    wait_until(lambda: one.keys() == one.secret_keys() == [theirs], 40, what="the deletion in the other home")
    settle(one, two)
    assert configstore("conflicts") == b""

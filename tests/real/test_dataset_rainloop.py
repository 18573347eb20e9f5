"""SnappyMail's storage and salt, written as it writes them; what it makes anew at each start stays."""

import shutil

import pytest

from tests.harness.waiting import wait_until

STORAGE = "/data/_data_/_default_/storage"


@pytest.fixture
def pair(service):
    """Return two webmails with SnappyMail."""
    made = [service(name, "mailu/snappymail").start() for name in ("one", "two")]
    return [each.ready() for each in made]


def starts(webmail, salt):
    """Do what the container does at its start: the salt where there is none, configuration anew."""
    path = webmail.at("/data/SALT.php")
    if not path.exists():
        path.write_text(f"<?php //{salt}")
        path.chmod(0o600)
    shutil.rmtree(webmail.at("/data/_data_/_default_/domains"), ignore_errors=True)
    for name in ("domains/default.json", "configs/application.ini", "cache/x", "logs/log.txt"):
        made = webmail.at(f"/data/_data_/_default_/{name}")
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_text("anew")


def settings_of(webmail, user):
    """Return where a user's settings lie."""
    return webmail.at(f"{STORAGE}/cfg/example.org/{user}/settings")


def save(webmail, user, text):
    """Write a user's settings as SnappyMail does: a private folder, a file in place."""
    path = settings_of(webmail, user)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o600)


def test_all_have_the_salt_of_the_first(pair):
    one, two = pair
    starts(one, "one")
    wait_until(lambda: two.at("/data/SALT.php").exists())
    starts(two, "two")
    assert two.at("/data/SALT.php").read_text() == "<?php //one"


def test_settings_travel_private_and_databases_caches_and_configuration_stay(pair, configstore):
    one, two = pair
    for each in pair:
        starts(each, each.name)
    save(one, "user", '{"Theme":"dark"}')
    beside = settings_of(one, "user").parent
    (beside / "AddressBook.sqlite").write_bytes(b"SQLite format 3")
    (beside / "session.log").write_text("x")
    wait_until(lambda: settings_of(two, "user").exists())
    assert settings_of(two, "user").read_text() == '{"Theme":"dark"}'
    assert settings_of(two, "user").stat().st_mode & 0o777 == 0o600
    assert settings_of(two, "user").parent.stat().st_mode & 0o777 == 0o700
    stored = configstore("ls", "-R", "webmail/rainloop").decode()
    for name in ("sqlite", "log", "domains", "configs", "cache"):
        assert name not in stored


def test_a_start_that_removes_its_domains_deletes_nothing_mirrored(pair, configstore):
    one, two = pair
    starts(one, "one")
    for number in range(30):
        save(one, f"user{number}", str(number))
    wait_until(lambda: settings_of(two, "user29").exists())
    before = configstore("ls", "-R", "--all", "webmail")
    starts(one, "one")
    save(one, "user30", "30")
    wait_until(lambda: settings_of(two, "user30").exists())
    now = configstore("ls", "-R", "--all", "webmail").decode().split()
    assert set(before.decode().split()) <= set(now)
    assert b"gone" not in configstore("ls", "-R", "-l", "--all", "webmail")

"""Two SnappyMails, with SnappyMail's own sequence of writes and removals."""

import pytest

from tests.harness.waiting import wait_until
from tests.real.snappymail import DAY, HOUR, SnappyMail

USERS = [f"user{number}@example.org" for number in range(12)]
GONE = "gone@example.org"


@pytest.fixture
def pair(etcd, kv_root, tmp_path, configstore):
    """Return two webmails that were started."""
    configstore("bootstrap", "--preset", "mailu/snappymail")
    made = [
        SnappyMail(name, tmp_path, etcd.endpoint, kv_root, "mailu/snappymail", lambda _: {}).start()
        for name in ("one", "two")
    ]
    for each in made:
        each.ready()
    made[0].starts()
    wait_until(lambda: made[1].at("/data/SALT.php").exists(), 20)
    made[1].starts()
    yield made
    for each in made:
        each.__exit__()


def well(pair):
    """Wait until nobody has a problem; who is halted stays so."""

    def each_is():
        answers = [each.ask("/readyz") for each in pair]
        return all(code == 200 and "degraded" not in words for code, words in answers)

    wait_until(each_is, 30, what="all to be well")


def arrives(webmail, user, content):
    wait_until(lambda: webmail.has_set(user) == content, 30, what=f"the settings of {user}")


def stored(configstore):
    return configstore("ls", "-R", "--all", "webmail/rainloop").decode()


def test_settings_are_everywhere_and_all_that_is_of_one_webmail_stays_there(pair, configstore):
    one, two = pair
    for user in USERS:
        one.sets(user, f'{{"of":"{user}"}}')
        one.logs_in(user)
        one.remembers(user)
        one.uploads(user, b"attachment" * 1000)
        one.adds_contact(user, "friend@example.net")
    one.delayed_start()
    two.delayed_start()
    for user in USERS:
        arrives(two, user, f'{{"of":"{user}"}}')
    listed = stored(configstore)
    assert "settings" in listed
    for name in (".sessions", ".sign_me", ".files", "sqlite", "__nobody__"):
        assert name not in listed
    assert [path.name for path in sorted(two.storage.glob("*/*/*"))] == ["settings"] * len(USERS)
    assert configstore("conflicts") == b""  # both have a timer of their own
    well(pair)
    assert one.contacts(USERS[0]) == ["friend@example.net"]


def test_the_daily_clean_up_of_one_webmail_ends_no_session_of_another_and_halts_nothing(pair, configstore):
    one, two = pair
    tokens = {}
    for user in USERS:
        one.sets(user, "1")
        tokens[user] = [one.logs_in(user) for _ in range(8)], two.logs_in(user)
        one.remembers(user)
    one.sets(GONE, "1")
    arrives(two, GONE, "1")
    assert all(each.delayed_start() for each in pair)
    one.ages(31 * DAY)
    two.ages(2 * HOUR)
    assert one.delayed_start()  # by which all its sessions and tokens are gone
    assert not two.delayed_start()
    one.forgets(GONE)  # a delete of the same moment: when it has arrived, so have all
    wait_until(lambda: not (two.home(GONE) / "settings").exists(), 30, what="a delete that was meant")
    for user, (of_one, of_two) in tokens.items():
        assert not any(one.request(user, token) for token in of_one)
        assert two.request(user, of_two)
    one.sets(USERS[0], "2")
    arrives(two, USERS[0], "2")
    assert b".sessions" not in configstore("ls", "-R", "-l", "--all", "webmail/rainloop")
    well(pair)


def test_what_rainloop_left_is_taken_over_by_one_and_arrives_at_the_other(pair, configstore):
    one, two = pair
    for user in USERS:
        one.rainloop_saved(user, f"rainloop of {user}")
    one.save(one.storage / "data/__nobody__/3f/3f1c", "a cache")
    wait_until(lambda: len(list(two.storage.glob("cfg/*/*/settings"))) == len(USERS), 30)
    assert "__nobody__" not in stored(configstore)
    one.upgrades()
    for user in USERS:
        arrives(two, user, f"rainloop of {user}")
    wait_until(lambda: not (two.storage / "cfg").exists(), 30, what="the old folder to go")
    well(pair)


def test_both_may_take_over_at_once(pair, configstore):
    one, two = pair
    for user in USERS:
        one.rainloop_saved(user, f"rainloop of {user}")
    wait_until(lambda: len(list(two.storage.glob("cfg/*/*/settings"))) == len(USERS), 30)
    for each in pair:
        each.upgrades()
    wait_until(lambda: not any((each.storage / "cfg").exists() for each in pair), 30)
    for each in pair:
        for user in USERS:
            arrives(each, user, f"rainloop of {user}")
    assert configstore("conflicts") == b""
    well(pair)


def test_a_user_who_is_removed_in_one_webmail_is_removed_in_the_other(pair, configstore):
    one, two = pair
    for user in USERS:
        one.sets(user, "1")
        one.save(one.home(user) / ".pgp" / "key.asc", "key")
    arrives(two, USERS[-1], "1")
    one.forgets(USERS[0])
    wait_until(lambda: not two.home(USERS[0]).exists(), 30)
    assert two.has_set(USERS[1]) == "1"
    well(pair)

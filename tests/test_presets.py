"""The built-in mappings: every data set that Mailu gives to the config store."""

import pathspec
import pytest

from configstore import presets
from configstore.errors import UsageError
from sidecar.config.settings import load_config

SERVICES = [name for name in presets.names() if "/" in name]


def mapping(preset, name):
    return next(one for one in presets.load(preset) if one.name == name)


def taken(one, *paths):
    included, excluded = (pathspec.GitIgnoreSpec.from_lines(lines) for lines in (one.include, one.exclude))
    return [path for path in paths if included.match_file(path) and not excluded.match_file(path)]


@pytest.mark.parametrize(
    ("store", "preset"),
    [
        ("data", "mailu/admin"),
        ("dkim", "mailu/admin"),
        ("dkim", "mailu/rspamd"),
        ("certs", "mailu/front"),
        ("certs/letsencrypt", "mailu/front"),
        ("overrides/nginx", "mailu/front"),
        ("overrides/dovecot", "mailu/imap"),
        ("overrides/postfix", "mailu/smtp"),
        ("overrides/rspamd", "mailu/antispam"),
        ("overrides/roundcube", "mailu/webmail"),
        ("fetchmail", "mailu/fetchmail"),
        ("webmail/gpg", "mailu/webmail"),
        ("webmail/rainloop", "mailu/webmail"),
    ],
)
def test_every_data_set_has_its_service(store, preset):
    assert store in presets.roots(preset)
    assert store in presets.roots("mailu")


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_a_valid_configuration(name):
    assert len(load_config(file=None, environ={"CONFIGSTORE_PRESET": name}, options={}).mappings) == len(
        presets.load(name)
    )


@pytest.mark.parametrize("name", SERVICES)
def test_pid_files_and_editor_temporaries_stay_at_home(name):
    for one in presets.load(name):
        assert not taken(one, "x.pid", "x.conf~", ".x.conf.swp", "#x.conf#", ".#x.conf", "4913", "a/x.pid")


def test_names_are_unique_in_the_whole_product():
    names = [one.name for one in presets.load("mailu")]
    assert len(names) == len(set(names))


def test_dkim_takes_keys_and_refuses_empty_ones():
    dkim = mapping("mailu/admin", "dkim")
    assert dkim.required
    assert dkim.refuse_empty == ("*.key",)
    assert taken(dkim, "example.com.dkim.key", "notes.txt") == ["example.com.dkim.key"]
    assert dkim.symlinks == "refuse"


def test_letsencrypt_takes_what_certbot_needs_and_leaves_its_temporaries():
    certbot = mapping("mailu/front", "letsencrypt")
    wanted = [
        "accounts/acme/directory/1/private_key.json",
        "archive/mailu/privkey1.pem",
        "archive/mailu/chain1.pem",
        "live/mailu/fullchain.pem",
        "renewal/mailu.conf",
        "renewal-hooks/post/x",
    ]
    left = [
        ".certbot.lock",
        "renewal/mailu.conf.new",
        "live/mailu/previous_cert.pem",
        "live/mailu/nginx-chain.pem",
        "csr/0000_csr.pem",
    ]
    assert taken(certbot, *wanted, *left) == wanted
    assert (certbot.lease, certbot.symlinks) == ("letsencrypt", "preserve")
    assert taken(certbot, "archive/", "live/mailu/") == ["archive/", "live/mailu/"]  # their modes travel, too


def test_fetchmail_takes_its_ids_old_and_new_but_not_the_half_written_file():
    one = mapping("mailu/fetchmail", "fetchmail")
    ids = ["fetchids", ".fetchids", ".idfile"]
    assert taken(one, *ids, "fetchids_", ".fetchids_") == ids
    assert (one.lease, one.file_mode, one.host) == ("fetchmail", 0o600, "data/fetchmail")


def test_gpg_takes_keys_and_leaves_locks_and_sockets():
    gpg = mapping("mailu/webmail", "gpg")
    wanted = ["u@x/pubring.kbx", "u@x/private-keys-v1.d/A.key", "u@x/openpgp-revocs.d/A.rev", "u@x/trustdb.gpg"]
    left = ["u@x/S.gpg-agent", "u@x/pubring.kbx.lock", "u@x/.#lk0x1.host.1", "u@x/pubring.kbx~", "u@x/random_seed"]
    assert taken(gpg, *wanted, *left) == wanted


def test_gpg_takes_the_homes_of_old_images():
    gpg = mapping("mailu/webmail", "gpg")
    wanted = ["u@x/pubring.gpg", "u@x/secring.gpg", "u@x/.gpg-v21-migrated"]
    assert taken(gpg, *wanted, "u@x/pubring.gpg~", "u@x/pubring.gpg.lock") == wanted


def test_snappymail_takes_settings_and_leaves_what_is_a_replicas_own():
    storage = mapping("mailu/snappymail", "rainloop")
    wanted = [
        "example.org/user/settings",
        "example.org/user/settings_local",
        "example.org/user/other@example.org/settings_local",
        "example.org/user/.pgp/private.key",
        "cfg/us/user@example.org/settings",
    ]
    left = [
        "__nobody__/3f1c",
        "example.org/user/.sessions/3f1c",
        "example.org/user/.sign_me/3f1c",
        "example.org/user/.files/3f1c",
        "example.org/user/AddressBook.sqlite",
        "example.org/user/AddressBook.sqlite-journal",
        "data/__nobody__/3f/3f1c",
        "files/3f",
    ]
    assert taken(storage, *wanted, *left) == wanted
    assert "AddressBook.sqlite" in storage.warning


def test_nothing_is_mirrored_that_no_program_reads():
    assert "overrides-snappymail" not in {one.name for one in presets.load("mailu")}
    assert "SnappyMail" in presets.retired()["overrides-snappymail"]


def test_what_is_made_once_is_made_once():
    assert mapping("mailu/admin", "instance").create_once
    assert taken(mapping("mailu/admin", "instance"), "instance", "main.db", "sub/instance") == ["instance"]
    assert mapping("mailu/webmail", "rainloop-salt").create_once
    assert not mapping("mailu/webmail", "rainloop").create_once


def test_people_write_overrides_through_the_store():
    for one in presets.load("mailu"):
        if one.name.startswith("overrides-"):
            assert (one.direction, one.symlinks, one.file_mode) == ("pull", "resolve", 0o644)


@pytest.mark.parametrize("name", ["", "mail", "mailu/", "mailu/fronts", "/", "../mailu", "mailu/front/x", "x\x1b"])
def test_an_unknown_preset_is_refused_with_the_known_names(name):
    with pytest.raises(UsageError, match="mailu/front") as caught:
        presets.load(name)
    assert "\x1b" not in str(caught.value)

"""What is said of keyrings: the file, whether it fits, who lacks a key. Facts as values, without an etcd."""

import msgspec
import pytest

from configstore.doctor.facts import Facts, KeyringFacts, MappingSealing, Records
from configstore.doctor.finding import exit_code
from configstore.doctor.judge import judge
from configstore.doctor.keyrings import lacking
from configstore.doctor.mappings import SidecarSettings
from configstore.errors import UsageError
from configstore.model.path import StorePath
from configstore.model.replica import MappingState, Report
from configstore.model.seal import Policy

CERTS = MappingSealing(name="certs", store=StorePath("certs"), policy=Policy.REQUIRED)
RING = KeyringFacts(path="/etc/keyring", mode=0o600, keys=("k2", "k1"), mappings=(CERTS,))


def said(ring=RING, **records):
    facts = Facts(now=0.0, root="/c", endpoints=(), keyring=ring, records=Records(count=1, live=1, **records))
    return [each for each in judge(facts) if each.check == "keyring"]


def changed(**fields):
    return msgspec.structs.replace(RING, **fields)


def mapping(**fields):
    return changed(mappings=(msgspec.structs.replace(CERTS, **fields),))


CASES = {
    "all well": (RING, "ok", "a key of certs"),
    "no file": (changed(failure="keyring /etc/keyring: No such file"), "fail", "No such file"),
    "open to all": (changed(mode=0o644), "warn", "may be read by every user"),
    "a secret of Swarm": (changed(mode=0o444, path="/run/secrets/keyring"), "ok", "mode 0444"),
    "a group's, as of Kubernetes' fsGroup": (changed(mode=0o440), "ok", "mode 0440"),
    "changed by a group": (changed(mode=0o660), "warn", "may be changed by others"),
    "a master for a sidecar": (changed(master=True), "warn", "is a master"),
    "a person's master": (changed(master=True, mappings=()), "ok", "the master"),
    "of another subtree": (mapping(fits=False), "fail", "no key of certs"),
    "off": (mapping(policy=Policy.OFF), "warn", "is written plain"),
    "accept": (mapping(policy=Policy.ACCEPT), "warn", "plain records are believed"),
}


@pytest.mark.parametrize("case", CASES)
def test_each_keyring_has_its_word_and_what_is_wrong_a_mend(case):
    ring, state, words = CASES[case]
    found = said(ring)
    assert [each for each in found if each.state == state and words in each.found]
    assert {"ok", state} >= {str(each.state) for each in found}
    assert all(each.mend for each in found if each.state != "ok")


def test_exit_codes_tell_a_missing_file_from_a_missing_key():
    assert exit_code(said(changed(failure="gone"))) == 2
    assert exit_code(said(mapping(fits=False))) == 5
    assert exit_code(said(changed(mode=0o644))) == 0


def test_what_the_keyring_does_not_open_is_a_persons_trouble_and_a_services_due():
    (row,) = [each for each in said(changed(mappings=()), unopened={"k9": 3}) if "k9" in each.found]
    assert (row.state, "k9 (3)" in row.found) == ("warn", True)
    (row,) = [each for each in said(unopened={"k9": 3}) if "k9" in each.found]
    assert row.state == "ok"


def report(replica, *keys, mapping="certs", **fields):
    store = StorePath(mapping)
    fields |= {"keys": keys} if keys else {}
    return Report(
        mapping=mapping, replica=replica, host="h", session="s", store=store, state=MappingState.READY, **fields
    )


LACKING = {
    "all the same": ((("one", "k2", "k1"), ("two", "k2", "k1")), []),
    "one is behind": (
        (("one", "k2", "k1"), ("two", "k1")),
        ["two@h: lacks the key k2 of certs, with which one@h"],
    ),
    "an old key that nobody seals with": ((("one", "k2", "k1"), ("two", "k2")), []),
    "one has none": ((("one", "k2"), ("two",)), ["two@h: lacks the key k2 of certs"]),
    "each has another": ((("one", "k1"), ("two", "k2")), ["two@h: lacks the key k1", "one@h: lacks the key k2"]),
    "nobody seals": ((("one",), ("two",)), []),
}


@pytest.mark.parametrize("case", LACKING)
def test_who_lacks_a_key_is_named_with_whom_it_cannot_read(case):
    whose, words = LACKING[case]
    found = list(lacking(report(*each) for each in whose))
    assert [word for word, each in zip(words, found, strict=True) if not each.found.startswith(word)] == []
    assert all("give it the keyring of certs" in each.mend for each in found)


def test_mappings_come_from_file_preset_and_variables_as_a_sidecar_merges_them(tmp_path):
    file = tmp_path / "s.toml"
    file.write_text(
        '[seal]\nkeyring = "/in/file"\npolicy = "accept"\n[[mapping]]\nname = "dkim"\npath = "/d"\nseal = "off"\n'
        '[[mapping]]\nname = "own"\nstore = "/"\npath = "/o"\n'
    )
    environ = {"CONFIGSTORE_PRESET": "mailu/admin", "CONFIGSTORE_MAPPING_OWN_SEAL": "required"}
    found = SidecarSettings(file=str(file), preset=None, environ=environ)
    of = {each.name: (each.store, each.policy) for each in found.mappings(found.keyring)}
    assert found.keyring == "/in/file"
    assert of["dkim"] == ("dkim", "off")
    assert of["own"] == ("", "required")
    assert {policy for name, (_, policy) in of.items() if name not in {"dkim", "own"}} == {"accept"}
    bare = SidecarSettings(file=None, preset="mailu/front", environ={"CONFIGSTORE_SEAL_KEYRING": "/k"})
    assert {each.policy for each in bare.mappings(bare.keyring)} == {Policy.REQUIRED}
    assert {each.policy for each in bare.mappings(None)} == {Policy.OFF}
    with pytest.raises(UsageError, match="seal"):
        SidecarSettings(file=None, preset="mailu/front", environ={"CONFIGSTORE_SEAL": "maybe"}).mappings(None)

"""What a service needs of etcd follows from its mappings, and is no more than that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore.errors import UsageError
from configstore.model.grants import (
    Direction,
    Grant,
    RangeNeed,
    Right,
    Service,
    beside,
    difference,
    grants,
    included,
    neighbours,
    wanted,
    words,
)
from configstore.model.keys import Keys
from configstore.presets.services import of_presets, of_settings

KEYS = Keys("/r")


def service(*needs, known=()):
    return Service(name="s", user="mailu-s", needs=needs, known=known)


def shown(found):
    return {words("/r", grant, str): str(grant.right) for grant in found}


def may(found, right, key):
    return any(grant.right.covers(right) and grant.holds(key) for grant in found)


def test_who_only_reads_writes_nothing_but_what_it_loses_and_says():
    found = shown(grants(KEYS, service(RangeNeed(mapping="m", store="certs", direction=Direction.PULL))))
    assert found == {
        "files/certs, files/certs/*": "read",
        "chunks/certs/*": "read",
        "past/certs/*": "read",
        "conflicts/certs/*": "readwrite",
        "replicas/m/*": "readwrite",
        "replicas/*": "read",
        "asks/*": "readwrite",
        "requests/*": "read",
    }


def test_who_writes_writes_its_subtree_and_takes_its_lease():
    found = shown(grants(KEYS, service(RangeNeed(mapping="m", store="a/b", lease="job"))))
    for family in ("files/a/b, files/a/b/*", "chunks/a/b/*", "past/a/b/*", "conflicts/a/b/*"):
        assert found.pop(family) == "readwrite"
    assert found["leases/job"] == "read", "the key of the queue itself, which is looked at for its revision"
    assert found["leases/job/*"] == "readwrite"
    assert found["intents/job"] == "readwrite"
    assert set(found.values()) - {"read"} == {"readwrite"}


def test_a_watch_or_listing_of_a_mapping_is_covered_by_one_grant():
    strangers = (RangeNeed(mapping="x", store="certs/letsencrypt"), RangeNeed(mapping="y", store="certs/z"))
    for need in (RangeNeed(mapping="m", store="certs"), RangeNeed(mapping="m", store="")):
        found = grants(KEYS, service(need, known=strangers))
        for start, end in (
            KEYS.files_at(need.store),
            KEYS.files_below(need.store),
            KEYS.past_range(need.store),
            KEYS.replicas(),
            KEYS.asks(),
            KEYS.requests(),
        ):
            assert any(grant.covers(Grant(start, end, Right.READ)) for grant in found), (need, start)


def test_nobody_writes_into_anothers_subtree_within_its_own():
    strangers = (
        RangeNeed(mapping="x", store="certs/letsencrypt"),
        RangeNeed(mapping="y", store="certs/letsencrypt/deep"),
    )
    found = grants(KEYS, service(RangeNeed(mapping="m", store="certs"), known=strangers))
    for path in ("certs", "certs/a", "certs/z", "certs/le"):
        assert may(found, Right.READWRITE, KEYS.file(path)), path
        assert may(found, Right.READWRITE, KEYS.past(path, 1)), path
    for path in ("certs/letsencrypt", "certs/letsencrypt/live", "certs/letsencrypt/deep/x"):
        assert may(found, Right.READ, KEYS.file(path)), path
        for key in (KEYS.file(path), KEYS.past(path, 1), KEYS.chunk(path, "00"), KEYS.conflict(path, "1")):
            assert not may(found, Right.WRITE, key), key


def test_what_is_anothers_and_its_own_it_does_write():
    needs = (RangeNeed(mapping="m", store="certs"), RangeNeed(mapping="x", store="certs/letsencrypt"))
    found = grants(KEYS, service(*needs, known=needs))
    assert may(found, Right.READWRITE, KEYS.file("certs/letsencrypt/live"))
    assert shown(found)["files/certs, files/certs/*"] == "readwrite"


def test_a_neighbour_that_a_range_would_include_is_told():
    certs = RangeNeed(mapping="m", store="certs", direction=Direction.PULL)
    for store in ("certs-x", "certs-x/deep", "certs.old", "certs x"):
        (found,) = beside([service(certs, known=(RangeNeed(mapping="o", store=store),))])
        assert (found.store, found.neighbour) == ("certs", store.partition("/")[0])
    for store in ("certs/x", "certs0", "certsx", "cert", "certs_x"):
        assert beside([service(certs, known=(RangeNeed(mapping="o", store=store),))]) == []


def test_a_neighbour_is_told_unless_the_service_has_it_as_well():
    certs, other = RangeNeed(mapping="m", store="certs"), RangeNeed(mapping="o", store="certs-x")
    assert beside([service(certs, other)]) == []
    pulled = RangeNeed(mapping="o", store="certs-x", direction=Direction.PULL)
    assert [each.right for each in beside([service(certs, pulled)])] == [Right.READWRITE]
    assert list(included(service(certs), "certs-x/a")) != []
    start, end = neighbours(KEYS, certs)
    assert start <= KEYS.file("certs-x/a") < end
    assert not start <= KEYS.file("certs/a") < end
    assert not start <= KEYS.file("certs") < end


names = st.from_regex(r"[a-c.\-]{1,3}(/[a-c.\-]{1,2}){0,2}", fullmatch=True).filter(
    lambda path: not {".", ".."} & set(path.split("/"))
)


@given(st.lists(names, min_size=1, max_size=4), st.sampled_from(Direction), names)
def test_a_range_holds_what_lies_below_a_mapping_its_neighbours_and_nothing_else(stores, direction, path):
    needs = [
        RangeNeed(mapping=str(number), store=store, direction=direction) for number, store in enumerate(stores)
    ]
    one = service(*needs)
    found = grants(KEYS, one)
    own = any(path == need.store or path.startswith(f"{need.store}/") for need in needs)
    near = any(need.store != path and list(included(service(need), path)) for need in needs)
    assert may(found, Right.READ, KEYS.file(path)) == (own or near)
    assert may(found, Right.READ, KEYS.past(path, 1)) == own
    assert may(found, Right.READ, KEYS.chunk(path, "0")) == own
    if direction is Direction.PULL:
        assert not may(found, Right.WRITE, KEYS.file(path))


@given(st.lists(names, min_size=1, max_size=4), st.sampled_from(Direction))
def test_no_grant_is_needless_and_none_is_missing(stores, direction):
    one = service(*(RangeNeed(mapping=store, store=store, direction=direction, lease="l") for store in stores))
    found = grants(KEYS, one)
    for each in wanted(KEYS, one):
        assert any(grant.covers(each.grant) for grant in found)
    for grant in found:
        assert not any(other != grant and other.covers(grant) for other in found)


def test_a_difference_is_what_is_missing_and_what_is_too_much():
    a, b = Grant(b"a", b"b", Right.READ), Grant(b"a", b"b", Right.READWRITE)
    assert not difference([a], [a])
    found = difference([a], [b])
    assert (found.missing, found.excess) == ((b,), (a,))


def test_mailus_services_are_those_of_today_each_with_what_runs_beside_it():
    found = {each.name: each for each in of_presets(["mailu"])}
    assert list(found) == ["admin", "front", "imap", "smtp", "antispam", "fetchmail", "webmail"]
    assert {need.mapping for need in found["front"].needs} == {"certs", "letsencrypt", "overrides-nginx", "acme"}
    assert found["front"].user == "mailu-front"
    assert beside(found.values()) == []
    assert of_presets(["mailu/front"]) == (found["front"],)


def test_no_service_of_mailu_writes_what_only_another_does():
    services = of_presets(["mailu", "mailu/certs-source"])
    for one in services:
        found = grants(KEYS, one)
        for other in services:
            for need in other.needs:
                if need not in one.needs and not any(each.store == need.store for each in one.needs):
                    for key in (KEYS.file(f"{need.store}/x"), KEYS.past(f"{need.store}/x", 1)):
                        assert not may(found, Right.WRITE, key), (one.name, key)
        assert not may(found, Right.WRITE, KEYS.request("x"))
        assert not may(found, Right.READ, KEYS.trial("x"))
        for family in ("files", "chunks", "past", "conflicts", "replicas", "leases", "intents"):
            assert not may(found, Right.WRITE, f"/r/{family}/elsewhere/x".encode())


def test_presets_of_one_sidecar_are_one_service():
    (found,) = of_presets(["mailu/imap,mailu/acme"])
    assert (found.name, {need.mapping for need in found.needs}) == ("imap", {"overrides-dovecot", "acme"})


def test_one_sidecar_for_all_may_do_what_all_services_may_and_no_more():
    (host,) = of_presets(["mailu"], name="mail-1")
    assert (host.name, host.user) == ("mail-1", "mailu-mail-1")
    found, apart = grants(KEYS, host), of_presets(["mailu"])
    every = {each for service in apart for each in grants(KEYS, service)}
    assert all(any(one.covers(each) for one in found) for each in every), "it does all their work"
    assert all(any(each.covers(one) for each in every) for one in found), "and no more"
    assert beside([host]) == []
    assert of_settings(file=None, preset="mailu", environ={}).user == "mailu-host"
    assert grants(KEYS, of_settings(file=None, preset="mailu", environ={}, name="mail-1")) == found
    assert of_presets(["mailu/front,mailu/imap"], name="x") == of_presets(["mailu/front", "mailu/imap"], name="x")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["mailu/front", "mailu/front"], "has mailu/front twice"),
        (["mailu", "mailu/certs-source"], "a mapping 'certs'|choose one"),
        (["mailu/frnt"], "did you mean mailu/front"),
    ],
)
def test_what_cannot_be_one_sidecar_is_no_service(names, why):
    with pytest.raises(UsageError, match=why):
        of_presets(names, name="host")


@pytest.mark.parametrize(
    ("names", "why"),
    [
        (["mailu/frnt"], "did you mean mailu/front"),
        ([""], "expected a name"),
        (["mailu,mailu/front"], "name one"),
        (["mailu/front,mailu/certs-source"], "choose one"),
        (["mailu", "mailu/front,mailu/antispam-daily"], "named twice"),
    ],
)
def test_presets_that_are_no_service_are_refused(names, why):
    with pytest.raises(UsageError, match=why):
        of_presets(names)


def settings(tmp_path, text):
    file = tmp_path / "web-1.toml"
    file.write_text(text)
    return str(file)


def test_a_settings_file_is_read_as_a_sidecar_reads_it(tmp_path):
    file = settings(
        tmp_path,
        '[[mapping]]\nname = "certs"\npath = "/x"\nlease = "l"\n'
        '[[mapping]]\nname = "own"\nstore = "a/b"\npath = "/y"\ndirection = "push"\n',
    )
    found = of_settings(file=file, preset="mailu/front", environ={"CONFIGSTORE_MAPPING_OWN_STORE": "c/d"})
    needs = {need.mapping: need for need in found.needs}
    assert found.name == "front"
    assert needs["certs"] == RangeNeed(mapping="certs", store="certs", direction=Direction.PULL, lease="l")
    assert needs["own"] == RangeNeed(mapping="own", store="c/d", direction=Direction.PUSH)
    assert of_settings(file=file, preset="", environ={}).name == "web-1"
    assert of_settings(file=file, preset="", environ={}, name="other").user == "mailu-other"


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "no mapping"),
        ('[[mapping]]\npath = "/x"\n', "mapping number 1: name"),
        ('[[mapping]]\nname = "a"\nstore = "../b"\n', "mapping a: store"),
        ('[[mapping]]\nname = "a"\ndirection = "up"\n', "mapping a: direction: expected one of both, pull, push"),
        ('[[mapping]]\nname = "a"\nlease = "a b"\n', "mapping a: lease"),
        ("mapping = 1\n", "expected tables"),
    ],
)
def test_a_settings_file_that_is_wrong_is_refused_by_its_key(tmp_path, text, why):
    with pytest.raises(UsageError, match=why):
        of_settings(file=settings(tmp_path, text), preset="", environ={})

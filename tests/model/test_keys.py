"""Keys: one path, one key, and no key that could be taken for another's."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from configstore.model.keys import DEFAULT_ROOT, Keys, prefix_end
from configstore.model.path import ROOT, PathError, StorePath, is_below, parse_path

KEYS = Keys("/test")
PATH = StorePath("certs/cert.pem")
DIGEST = "ab" * 32


@st.composite
def paths(draw):
    names = draw(st.lists(st.text(alphabet="ab.-0é/~", min_size=1, max_size=6), min_size=1, max_size=4))
    try:
        return parse_path("/".join(names))
    except PathError:
        assume(False)


def test_the_layout_is_the_documented_one():
    assert KEYS.file(PATH) == b"/test/files/certs/cert.pem"
    assert KEYS.chunk(PATH, DIGEST) == b"/test/chunks/certs/cert.pem//" + DIGEST.encode()
    assert KEYS.past(PATH, 42) == b"/test/past/certs/cert.pem//00000000000000000042"
    assert KEYS.conflict(PATH, "w1") == b"/test/conflicts/certs/cert.pem//w1"
    assert KEYS.conflict_chunk(PATH, "w1", DIGEST) == b"/test/conflicts/certs/cert.pem//w1//" + DIGEST.encode()
    assert KEYS.lease_queue("letsencrypt") == b"/test/leases/letsencrypt"


def test_the_default_root_is_the_documented_one():
    assert Keys().root == DEFAULT_ROOT == "/configstore"


@pytest.mark.parametrize("root", ["", "/", "configstore", "/configstore/", "/a//b", "/a\nb", "/a\0b"])
def test_a_root_of_another_form_is_refused(root):
    with pytest.raises(ValueError, match="expected a key such as /configstore"):
        Keys(root)


def test_a_root_may_have_several_components():
    assert Keys("/mail/eu").file(PATH) == b"/mail/eu/files/certs/cert.pem"


@given(paths())
def test_a_path_comes_back_from_its_key(path):
    assert KEYS.path_of_file(KEYS.file(path)) == path


def test_a_path_is_stored_as_its_utf8_bytes():
    assert KEYS.file(StorePath("dkim/müller.key")) == b"/test/files/dkim/m\xc3\xbcller.key"


@given(paths(), paths())
def test_the_range_below_a_directory_holds_what_lies_below_it_and_nothing_else(directory, path):
    start, end = KEYS.files_below(directory)
    assert (start <= KEYS.file(path) < end) == is_below(path, directory)


@pytest.mark.parametrize("sibling", ["certs", "certs-old", "certs.d", "certs0", "cert", "certt"])
def test_a_sibling_with_a_similar_name_is_not_below(sibling):
    start, end = KEYS.files_below(StorePath("certs"))
    assert not start <= KEYS.file(StorePath(sibling)) < end


@given(paths())
def test_every_path_is_below_the_root(path):
    start, end = KEYS.files_below(ROOT)
    assert start <= KEYS.file(path) < end


def test_no_other_family_of_keys_is_below_the_root():
    start, end = KEYS.files_below(ROOT)
    others = [KEYS.chunk(PATH, DIGEST), KEYS.past(PATH, 1), KEYS.conflict(PATH, "w1"), KEYS.lease_queue("l")]
    assert not [key for key in others if start <= key < end]
    assert not start <= Keys("/test2").file(PATH) < end


@given(st.integers(min_value=1, max_value=2**63 - 1), st.integers(min_value=1, max_value=2**63 - 1))
def test_superseded_records_sort_by_age(one, other):
    assert (KEYS.past(PATH, one) < KEYS.past(PATH, other)) == (one < other)


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b"", "empty"),
        (b"/etc/passwd", "absolute"),
        (b"certs/../../etc/passwd", "'..' component"),
        (b"certs/./cert.pem", "'.' component"),
        (b"certs//cert.pem", "empty component"),
        (b"certs/", "empty component"),
        (b"certs/\xff.pem", "not valid UTF-8"),
        (b"certs/\xed\xa0\x80", "not valid UTF-8"),
        (b"certs/a\x1b[2J", "control character"),
        (b"certs/.configstore/baseline", "reserved"),
        (b"certs/" + b"x" * 256, "longer than 255"),
        (b"x/" * 1025 + b"x", "longer than 2048"),
    ],
)
def test_a_key_that_no_record_may_have_is_refused_with_a_printable_reason(tail, reason):
    with pytest.raises(PathError, match=reason) as caught:
        KEYS.path_of_file(b"/test/files/" + tail)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", [b"/test/past/a//1", b"/test2/files/a", b"/test/files", b"\xff\x1b"])
def test_a_key_outside_the_files_is_refused(key):
    with pytest.raises(PathError, match="not below /test/files/") as caught:
        KEYS.path_of_file(key)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"/a/", b"/a0"), (b"a\xff", b"b"), (b"a\xfe\xff\xff", b"a\xff"), (b"\xff\xff", b"\0"), (b"", b"\0")],
)
def test_a_prefix_ends_where_etcd_says(prefix, end):
    assert prefix_end(prefix) == end


@given(st.binary(min_size=1, max_size=4), st.binary(max_size=6))
def test_a_key_lies_in_the_range_of_a_prefix_when_it_starts_with_it(prefix, key):
    end = prefix_end(prefix)
    assert (prefix <= key and (end == b"\0" or key < end)) == key.startswith(prefix)


def test_the_key_of_a_superseded_record_tells_its_path_and_revision():
    assert KEYS.path_of_past(KEYS.past(PATH, 42)) == (PATH, 42)


@pytest.mark.parametrize(
    "key", [b"/test/past/a", b"/test/past/a//", b"/test/past/a//x", b"/test/past/../a//1", b"/b"]
)
def test_a_key_that_no_superseded_record_has_is_refused(key):
    with pytest.raises(PathError):
        KEYS.path_of_past(key)


def test_what_a_directory_was_lies_in_one_range():
    start, end = KEYS.past_range(StorePath("certs"))
    inside = [KEYS.past(StorePath("certs"), 1), KEYS.past(PATH, 1)]
    outside = [KEYS.past(StorePath("certs2"), 1), KEYS.past(StorePath("cert"), 1)]
    assert all(start <= key < end for key in inside)
    assert not any(start <= key < end for key in outside)
    start, end = KEYS.past_range(StorePath("certs"), alone=True)
    assert [start <= key < end for key in inside] == [True, False]
    start, end = KEYS.past_range(StorePath(""))
    assert all(start <= key < end for key in inside + outside)


def test_the_key_of_a_losing_side_tells_its_path_and_id_and_a_piece_of_it_is_none():
    assert KEYS.path_of_conflict(KEYS.conflict(PATH, "w1")) == (PATH, "w1")
    nones = (
        KEYS.conflict_chunk(PATH, "w1", DIGEST),
        KEYS.past(PATH, 1),
        b"/test/conflicts/a",
        b"/test/conflicts/a//",
    )
    for key in nones:
        with pytest.raises(PathError):
            KEYS.path_of_conflict(key)

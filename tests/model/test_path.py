"""Paths: what is let in, and what never is."""

import os
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from configstore.model.keys import Keys
from configstore.model.path import (
    ROOT,
    PathError,
    ancestors,
    is_below,
    join,
    parse_path,
    printable,
    relative_to,
    shell_word,
    shown,
)


@pytest.mark.parametrize(
    "text",
    ["a", "certs/cert.pem", "dkim/example.org.dkim.key", "ä/ö", "a b/c", ".hidden", "a/..b", "a" * 255],
)
def test_ordinary_names_are_paths(text):
    assert parse_path(text) == text


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("/etc/passwd", "absolute"),
        ("a/../b", "'..' component"),
        ("..", "'..' component"),
        ("a/./b", "'.' component"),
        ("a//b", "empty component"),
        ("a/", "empty component"),
        ("a\0b", "control character"),
        ("a\nb", "control character"),
        ("a\x1b[31m", "control character"),
        ("a\x85", "control character"),
        ("a/.configstore/baseline", "reserved"),
        ("a" * 256, "longer than 255 bytes"),
        ("a/" * 1100 + "a", "longer than 2048 bytes"),
        ("caf\udce9", "not valid UTF-8"),
    ],
)
def test_hostile_names_are_refused_with_a_printable_reason(text, reason):
    with pytest.raises(PathError, match=reason) as caught:
        parse_path(text)
    assert str(caught.value).isprintable()


@given(st.text(max_size=60))
def test_whatever_is_let_in_stays_below_the_root_and_survives_its_key(text):
    try:
        path = parse_path(text)
    except PathError:
        return
    keys = Keys()
    assert not path.startswith("/")
    assert ".." not in path.split("/")
    assert keys.path_of_file(keys.file(path)) == path
    assert printable(path).isprintable()


@given(st.binary(max_size=40))
def test_any_bytes_below_files_are_a_path_or_a_refusal(raw):
    keys = Keys()
    try:
        path = keys.path_of_file(b"/configstore/files/" + raw)
    except PathError:
        return
    assert keys.file(path) == b"/configstore/files/" + raw


def test_paths_relate():
    path = parse_path("certs/live/mailu/cert.pem")
    assert ancestors(path) == ["certs", "certs/live", "certs/live/mailu"]
    assert relative_to(path, parse_path("certs")) == "live/mailu/cert.pem"
    assert join(parse_path("certs"), relative_to(path, parse_path("certs"))) == path
    assert relative_to(path, ROOT) == path
    assert is_below(path, ROOT)
    assert is_below(path, parse_path("certs/live"))
    assert not is_below(path, parse_path("cert"))
    assert not is_below(path, path)


def test_the_range_below_a_directory_leaves_its_siblings_out():
    keys = Keys()
    start, end = keys.files_below(parse_path("certs"))
    assert start <= keys.file(parse_path("certs/a")) < end
    for other in ("certs", "certs-old", "certs0", "cert", "certs.d/a"):
        assert not start <= keys.file(parse_path(other)) < end


@pytest.mark.parametrize("root", ["", "configstore", "/a/", "/a//b", "/a\n"])
def test_a_root_that_is_no_key_is_refused(root):
    with pytest.raises(ValueError, match="root"):
        Keys(root)


WORDS = {
    "certs/cert.pem": "certs/cert.pem",
    "": "/",
    "ä/ö": "ä/ö",
    "a b": "'a b'",
    "it's": r"'it'\''s'",
    "$(reboot)": "'$(reboot)'",
    "~": "'~'",
    "-rf": "./-rf",
    "-a b": "'./-a b'",
    "a\nb": r"$'a\x0ab'",
    "a\n'\\b": r"$'a\x0a\'\\b'",
    "caf\udce9": r"$'caf\xe9'",
    "a\u202eb": r"$'a\xe2\x80\xaeb'",
}


@pytest.mark.parametrize(("path", "word"), WORDS.items())
def test_a_path_is_shown_as_it_is_typed(path, word):
    assert shown(path) == word


@given(st.binary(min_size=1, max_size=40).filter(lambda raw: b"\0" not in raw))
def test_whatever_bytes_a_name_has_a_shell_makes_the_same_of_what_is_shown(raw):
    word = shell_word(os.fsdecode(raw))
    assert word.isprintable()
    done = subprocess.run(["bash", "-c", f"printf %s {word}"], capture_output=True, check=True)
    assert done.stdout == raw

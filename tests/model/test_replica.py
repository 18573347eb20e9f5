"""Reports of live replicas: read whatever version wrote them, and their paths shown as they are typed."""

import msgspec

from configstore.model.problem import Problem
from configstore.model.replica import MappingState, Report, decode_report, encode

REPORT = Report(
    mapping="data", replica="r", host="h", session="s", store="mail/data", state=MappingState.READY, ready=True
)


def test_a_report_of_an_older_version_is_read():
    fields = msgspec.json.decode(encode(REPORT))
    for newer in ("complete", "degraded", "lost", "held"):
        del fields[newer]
    assert decode_report(msgspec.json.encode(fields)) == REPORT


def test_what_a_newer_version_adds_is_passed_over():
    fields = msgspec.json.decode(encode(REPORT)) | {"mood": "good"}
    assert decode_report(msgspec.json.encode(fields)) == REPORT


def test_keys_are_told_by_whoever_has_some_alone():
    assert not {"keys", "master"} & msgspec.json.decode(encode(REPORT)).keys()
    holder = msgspec.structs.replace(REPORT, keys=("k2", "k1"), master=True)
    assert decode_report(encode(holder)) == holder


def test_a_problem_shows_its_path_in_the_store():
    assert Problem(path="a b", reason="why").shown("mail/data") == "'mail/data/a b'"
    assert Problem(path="-x", reason="why").shown("") == "./-x"
    assert Problem(path=r"caf\xe9", reason="why", word=r"$'caf\xe9'").shown("data") == r"$'caf\xe9'"


def test_a_problem_has_three_keys_in_a_report_whatever_its_sidecar_knows_of_it():
    found = Problem(path="a", reason="why", unsure=True, sealing=True).reported
    text = encode(msgspec.structs.replace(REPORT, problems=(found,)))
    assert b'"problems":[{"path":"a","reason":"why","word":""}]' in text
    assert decode_report(text).problems == (found,)


def test_degraded_is_the_word_for_a_ready_replica_with_a_problem():
    assert REPORT.word == "ready"
    assert msgspec.structs.replace(REPORT, degraded=True).word == "degraded"
    assert msgspec.structs.replace(REPORT, degraded=True, state=MappingState.HALTED).word == "halted"

"""The pure parts of the page: what is private, how far replicas are, two texts side by side, words."""

import pytest

from configstore.model.record import Entry, Kind, Origin, Record, sha256
from configstore.model.replica import ExpectedReplica, MappingState, Report
from configstore.store.values import Stored
from configstore.ui.filters import age, commands, ticked, visible, when
from configstore.ui.index import Index
from configstore.ui.matrix import rows
from configstore.ui.privacy import LARGEST, is_private, text_of, why_hidden
from configstore.ui.side_by_side import is_costly, side_by_side


def entry(mode=0o644, kind=Kind.FILE, size=1):
    return Entry(kind=kind, mode=mode, size=size, sha256=sha256(b"x"))


@pytest.mark.parametrize(
    ("path", "mode", "private"),
    [
        ("overrides/main.cf", 0o644, False),
        ("overrides/main.cf", 0o640, True),
        ("overrides/main.cf", 0o600, True),
        ("overrides/main.cf", 0o604, False),
        ("dkim/example.org.dkim.key", 0o644, True),
        ("dkim/EXAMPLE.KEY", 0o644, True),
        ("certs/keyring", 0o644, False),
    ],
)
def test_private_is_what_others_may_not_read_by_its_mode_and_every_key(path, mode, private):
    assert is_private(path, entry(mode)) is private
    assert bool(why_hidden(path, [entry(mode)])) is private


def test_a_path_is_private_when_anything_that_is_known_of_it_is():
    assert why_hidden("a", [entry(0o644), entry(0o600)])
    assert why_hidden("a", [entry(0o600), entry(0o644), entry(0, Kind.GONE)])
    assert not why_hidden("a", [entry(0o644), entry(0, Kind.GONE), entry(0o755, Kind.DIR)])
    assert why_hidden("a.key", [])


def test_what_is_large_or_no_text_is_summed_up():
    assert "larger" in why_hidden("a", [entry(size=LARGEST + 1)])
    assert text_of(b"\xff") is None
    assert text_of(b"a\0b") is None
    assert text_of(b"\n" * 5000) is None
    assert text_of("grüße\n".encode()) == "grüße\n"


def report(replica, revision, state=MappingState.READY, **more):
    return Report(
        mapping="m", replica=replica, host="h", session="s", store="m", state=state, revision=revision, **more
    )


def cells(reports, *, gone=(), silent=(), revisions=(3, 5, 9), blind=False):
    found = rows(reports, gone, silent, lambda _: revisions, [], blind=blind)
    return {cell.replica: (cell.mood, cell.word) for row in found for cell in row.cells}


def test_a_replica_is_fresh_when_it_has_applied_the_newest_of_its_subtree_and_stale_by_what_it_lacks():
    assert cells([report("a", 9), report("b", 5), report("c", 2)]) == {
        "a": ("good", "fresh"),
        "b": ("warn", "stale, 1 behind"),
        "c": ("warn", "stale, 3 behind"),
    }


def test_trouble_comes_before_freshness_and_the_worst_replica_first():
    found = cells(
        [
            report("fine", 9),
            report("halted", 9, MappingState.HALTED, reason="refused"),
            report("silent", 9),
            report("degraded", 9, problem_count=2, degraded=True),
        ],
        silent={("m", "silent")},
        gone=[ExpectedReplica(mapping="m", replica="gone", host="h")],
    )
    assert found == {
        "gone": ("bad", "gone"),
        "halted": ("bad", "halted"),
        "silent": ("bad", "silent"),
        "degraded": ("warn", "degraded"),
        "fine": ("good", "fresh"),
    }
    assert next(iter(found)) == "gone"


def test_nothing_is_fresh_while_the_store_is_silent():
    assert cells([report("a", 9)], blind=True) == {"a": ("warn", "was fresh")}


def test_a_thousand_replicas_are_folded():
    found = rows([report(f"r{n:04}", 9) for n in range(1000)], (), (), lambda _: [9], [], blind=False)
    assert len(found[0].named) == 12
    assert found[0].unnamed == "and 988 fresh"


def test_a_subtree_that_nobody_mirrors_has_a_row():
    found = rows([report("a", 9)], (), (), lambda _: [9], ["m", "other"], blind=False)
    assert [(row.mapping, row.store) for row in found] == [("m", "m"), ("", "other")]


def stored(path, revision, content=b"x", **more):
    origin = Origin(write_id="w", replica="r", host="h", time="2026-11-24T03:00:00Z")
    made = Entry(kind=Kind.FILE, mode=0o644, size=len(content), sha256=sha256(content), **more)
    return Stored(path=path, record=Record(entry=made, origin=origin, content=content), mod_revision=revision)


def test_the_index_keeps_no_content_and_knows_sets_from_before_and_since_its_start():
    index = Index()
    index.load(5, [stored("a", 3), stored("b", 3), stored("c", 5)])
    assert index.below("a")[0].record.content is None
    index.add_set(7, [stored("a", 7), stored("c", 7)], ["b"], awaited=False)
    index.add_set(8, [stored("a", 8)], [], awaited=False)
    assert [(each.revision, each.paths, each.seen) for each in index.sets(10)] == [
        (8, ("a",), True),
        (7, ("a", "c"), True),  # though `a` was written again since
    ]
    assert index.below("b") == []
    assert all(each.record.content is None for each in index.below(""))


def test_a_set_is_everywhere_when_every_replica_concerned_has_said_so():
    index = Index()
    index.load(5, [])
    index.load_reports({b"1": (report("a", 5), 5), b"2": (report("b", 5), 5)})
    index.add_set(7, [stored("m/x", 7)], [], awaited=True)
    assert index.put_report(b"1", (report("a", 7), 8))
    assert index.sets(1)[0].after is None
    assert index.put_report(b"2", (report("b", 7), 9))
    assert index.sets(1)[0].after >= 0
    index.add_set(8, [stored("m/x", 8)], [], awaited=False)
    index.put_report(b"1", (report("a", 9), 9)), index.put_report(b"2", (report("b", 9), 9))
    assert index.sets(1)[0].after is None, "nobody asked, so nobody knows when"
    assert not index.put_report(b"2", (report("b", 9, time="2026-11-24T03:00:00Z"), 10)), "only its time is new"


def test_two_texts_stand_side_by_side_around_what_differs():
    left = [str(n) for n in range(20)]
    right = [*left[:10], "new", *left[11:]]
    found = side_by_side(left, right)
    assert [(each.left, each.right) for each in found if each.kind == "differs"] == [("10", "new")]
    assert [(each.left_number, each.right_number) for each in found] == [(n, n) for n in range(8, 15)]
    assert side_by_side(left, left) == []


def test_what_a_stranger_wrote_cannot_dress_up():
    assert visible("a\u202eb") == "a\\u202eb"
    assert str(ticked("say `<b>` & go")) == "say <code>&lt;b&gt;</code> &amp; go"
    assert "&lt;script&gt;" in when("<script>")
    assert commands("`configstore resolve PATH` and `--take local` and `configstore status`") == [
        "configstore status"
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [(5, "5 s ago"), (120, "2 min ago"), (7200, "2 h ago"), (400000, "5 days ago"), (-3, "3 s ahead")],
)
def test_ages_are_told_as_persons_do(seconds, told):
    assert age(seconds) == told


def test_what_cannot_be_read_may_be_private():
    assert "nobody knows" in why_hidden("a", [entry(0o644)], unread=True)


def test_texts_of_many_alike_lines_are_not_compared():
    alike = ["", "x"] * 500
    assert is_costly(alike, alike)
    assert not is_costly([str(number) for number in range(3000)], [str(number) for number in range(3000)])

"""What the benchmarks stand on: costs that are counted, not timed; verdicts; a table and a picture to be read."""

import json
import statistics
import xml.etree.ElementTree as ET
from types import SimpleNamespace

import pytest

from tests.bench.compare import RELEASES, Figure
from tests.bench.counts import Pair, calls
from tests.bench.outside import HERE
from tests.bench.peers.measuring import Results, content, quantile, whole
from tests.bench.peers.place import Memory
from tests.bench.peers.programs import HOW, PEERS
from tests.bench.peers.report import Line, between, picture, publish, short, table

FEW, MANY = 20, 400
FOUND = {"date": "2026-01-31", "cores": 2, "load": [0.1, 0.2]}


@pytest.fixture(scope="module")
def costs(tmp_path_factory):
    """Return the function calls of an idle cycle and of a change, with few and many files elsewhere."""
    found = {}
    for files in (FEW, MANY):
        pair = Pair(tmp_path_factory.mktemp("costs"), 5, elsewhere=files)
        sent, applied = [], []
        for _ in range(5):
            pair.write(["f1"])
            sent.append(calls(pair.send))
            applied.append(calls(pair.apply))
            pair.send()
            pair.apply()
        found[files] = SimpleNamespace(
            idle=calls(pair.apply), sent=statistics.median(sent), applied=statistics.median(applied)
        )
        pair.end()
    return found


def test_a_cycle_with_nothing_to_do_costs_the_same_however_many_files_there_are(costs):
    assert costs[MANY].idle <= costs[FEW].idle * 1.05


@pytest.mark.parametrize("step", ["sent", "applied"])
def test_what_a_change_costs_does_not_grow_with_the_files_in_other_directories(costs, step):
    few, many = (getattr(costs[files], step) for files in (FEW, MANY))
    assert many - few < (MANY - FEW) / 10, f"{few} calls with {FEW} files elsewhere, {many} with {MANY}"


@pytest.mark.parametrize(
    ("new", "old", "verdict"),
    [
        ([1.2] * 8, [1.0] * 8, "SLOWER by more than 10%"),
        ([1.05] * 8, [1.0] * 8, "same"),
        ([0.8] * 8, [1.0] * 8, "better"),
        ([1.2] * 5 + [0.9] * 3, [1.0] * 8, "same"),
        ([9.0, 1.0, 1.0, 1.0], [1.0] * 4, "same"),
    ],
    ids=["slower", "a little", "faster", "the turns disagree", "one bad turn"],
)
def test_a_verdict_needs_most_of_the_turns(new, old, verdict):
    assert Figure("x", "s", new, old).verdict() == verdict


@pytest.mark.parametrize("file", sorted(RELEASES.glob("*.json")), ids=lambda file: file.stem)
def test_what_was_recorded_with_a_release_can_be_compared_with(file):
    found = json.loads(file.read_text())
    assert found["version"] == file.stem
    assert len(found["commit"]) == 40
    assert found["counts"]["calls"]
    assert all({"what", "value", "unit"} <= figure.keys() for figure in found["figures"])


def lines():
    """Return lines as after a measurement: one program is missing, one has seen nothing arrive."""
    memory = Memory(rss=100.0, pss=60.0, processes=2)
    full = Results(edits=[6.0, 7.0, 8.0], sets=[40.0], mixed=[2.0], files_per_second=1900.0, torn_of=4, lost_of=9)
    return [
        Line("configstore", HOW["configstore"], version="1.2", results=full, hosts=memory, server=memory),
        Line("lsyncd", HOW["lsyncd"], results=Results(late=3), hosts=memory, server=Memory(0, 0, 0)),
        Line("unison", HOW["unison"], missing="no `unison` here"),
    ]


def test_a_program_that_is_missing_is_a_line_that_says_so():
    assert "| unison | not measured: no `unison` here |" in table(lines(), FOUND)
    assert "unison" not in short(lines(), FOUND)


def test_what_did_not_arrive_is_told():
    assert "| lsyncd | – (3 of 3 late) |" in table(lines(), FOUND)


def test_the_picture_is_text_with_a_title_and_a_description():
    root = ET.fromstring(picture(lines(), FOUND))
    tags = [each.tag.rpartition("}")[2] for each in root.iter()]
    names = {each.get("id"): each.text for each in root.iter()}
    assert {"title", "desc", "text", "rect"} <= set(tags)
    assert root.get("aria-labelledby") == "title description"
    assert "configstore: 7.0 ms" in names["description"]


def test_the_pages_have_places_for_what_is_measured(tmp_path):
    (tmp_path / "docs" / "pictures").mkdir(parents=True)
    for page in ("README.md", "docs/peers.md"):
        (tmp_path / page).write_text((HERE / page).read_text())
    publish(lines(), FOUND, tmp_path)
    assert "1,900" in (tmp_path / "README.md").read_text()
    assert (tmp_path / "docs/peers.md").read_text().count("| configstore (1.2) |") == 1
    with pytest.raises(SystemExit, match="has no place"):
        between(tmp_path / "README.md", "nothing", "")


def test_each_program_is_described_once():
    assert [peer.name for peer in PEERS] == list(HOW)


def test_content_tells_whether_it_is_whole():
    for size in (None, 2048, 65_536):
        assert whole(content(size))
        assert not whole(content(size)[:-1])
    assert not whole(b"")
    assert len(content(2048)) == 2048


def test_a_quantile_of_one_sample_is_that_sample():
    assert quantile([3.0], 0.95) == 3.0
    assert quantile([1.0, 2.0, 3.0], 0.5) == 2.0

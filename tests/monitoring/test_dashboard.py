"""The Grafana dashboard: in step with what makes it, and without a query that finds nothing."""

import json
import re
import subprocess
import sys

import pytest

from tests.monitoring.conftest import PAGES, SERIES
from tests.monitoring.queries import plain, without_an_answer

pytestmark = pytest.mark.xdist_group("monitoring")

BOARD = json.loads((PAGES / "dashboard.json").read_text())
TARGETS = [target for panel in BOARD["panels"] for target in panel.get("targets", ())]


def test_it_is_what_its_script_makes():
    made = subprocess.run(
        [sys.executable, PAGES / "make-dashboard"], capture_output=True, text=True, timeout=60, check=True
    )
    assert made.stdout == (PAGES / "dashboard.json").read_text(), (
        "docs/monitoring/make-dashboard > …/dashboard.json"
    )


def test_every_series_of_a_query_is_one_that_a_live_sidecar_tells(live):
    queries = [target["expr"] for target in TARGETS]
    queries += [variable["query"] for variable in BOARD["templating"]["list"]]
    named = {name for query in queries for name in SERIES.findall(query)}
    assert len(named) > 15
    assert not [name for name in named if not re.search(rf"^{name}[{{ ]", live, re.MULTILINE)]


def test_every_query_finds_something_in_a_live_sidecar(promtool, live, tmp_path):
    """A filter of values is left out: of a sidecar that is well, some panels show nothing on purpose."""
    queries = [re.sub(r" (?:>|==) 0$", "", plain(target["expr"])) for target in TARGETS]
    assert "SUCCESS" in without_an_answer(promtool, tmp_path, live, queries)


def test_every_variable_that_is_used_is_offered():
    used = set(re.findall(r"\$\{?([a-z]+)\}?", json.dumps(BOARD["panels"]))) - {"__rate_interval"}
    assert used == {variable["name"] for variable in BOARD["templating"]["list"]}


def test_no_panel_lies_on_another():
    cells = [
        (place["x"] + x, place["y"] + y)
        for place in (panel["gridPos"] for panel in BOARD["panels"])
        for x in range(place["w"])
        for y in range(place["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in BOARD["panels"]}) == len(BOARD["panels"])

"""The alert rules: their own tests, and that what they name is there."""

import re

import pytest
import yaml

from configstore.cli import build_parser
from tests.monitoring.conftest import PAGES, ROOT, SERIES
from tests.monitoring.queries import without_an_answer

pytestmark = pytest.mark.xdist_group("monitoring")

TROUBLES = (ROOT / "docs/troubleshooting.md").read_text()


def test_the_rules_pass_their_own_tests(promtool):
    assert "SUCCESS: 21 rules found" in promtool("check", "rules", PAGES / "rules.yml")
    assert "SUCCESS" in promtool("test", "rules", PAGES / "rules_test.yml")


def test_each_alert_is_seen_firing_and_each_is_seen_quiet(rules):
    tests = yaml.safe_load((PAGES / "rules_test.yml").read_text())["tests"]
    fired, quiet = set(), set()
    for test in tests:
        looks = [str(look["exp_samples"]) for look in test.get("promql_expr_test", ())]
        named = set(re.findall(r'alertname="(\w+)"', "".join(looks)))
        fired |= named
        quiet |= {name for name in named if any(name not in look for look in looks)}
    names = {rule["alert"] for rule in rules}
    assert fired == quiet == names


def test_every_series_of_an_alert_is_one_that_a_live_sidecar_tells(rules, live):
    named = {name for rule in rules for name in SERIES.findall(rule["expr"])}
    assert len(named) > 10
    assert not [name for name in named if not re.search(rf"^{name}[{{ ]", live, re.MULTILINE)]


def test_what_an_alert_compares_is_found_in_a_live_sidecar(promtool, live, tmp_path, rules):
    """Without the limits, each finds something: its labels and matches fit to what is told."""
    sides = []
    for rule in rules:
        query = re.sub(r" (?:==|<|>|>=) [0-9][0-9* ]*", " ", rule["expr"] + " ")
        if not query.startswith("absent"):
            sides.append(re.split(r" unless ", query)[0])
    assert "SUCCESS" in without_an_answer(promtool, tmp_path, live, sides)


def test_each_alert_says_what_to_type_and_where_to_read_on(rules):
    headings = {heading.lower() for heading in re.findall(r"^#+ (\w+)$", TROUBLES, re.MULTILINE)}
    for rule in rules:
        words = rule["annotations"]
        page, _, anchor = words["runbook"].partition("#")
        assert (page, anchor) == ("docs/troubleshooting.md", rule["alert"].lower())
        assert anchor in headings, f"{rule['alert']} has no section in the page"
        assert re.search(r"`[^`]+`|log of that sidecar|log driver", words["description"])
        assert set(words) == {"summary", "description", "runbook"}
        assert rule["labels"]["severity"] in {"critical", "warning"}


def test_the_page_has_no_section_of_an_alert_that_is_not_there(rules):
    sections = set(re.findall(r"^### (Configstore\w+)$", TROUBLES, re.MULTILINE))
    assert sections == {rule["alert"] for rule in rules}


def test_commands_that_an_alert_names_are_commands(rules):
    (commands,) = [each.choices for each in build_parser()._actions if isinstance(each.choices, dict)]
    named = {
        name
        for rule in rules
        for name in re.findall(r"`configstore ([a-z-]+)", rule["annotations"]["description"])
    }
    assert named <= set(commands)
    assert {"status", "doctor", "resume", "leases", "conflicts", "resolve"} <= named

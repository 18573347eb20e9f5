"""Runs queries as Prometheus does, over what a live sidecar told, with promtool."""

import re

import yaml

VARIABLES = {"$__rate_interval": "5m", "$job": ".*", "$instance": ".*", "$mapping": ".*"}

_SAMPLE = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)")
_COUNTS = re.compile(r"_(total|bucket|sum|count)$")


def plain(query):
    """Return a query of the dashboard as Grafana sends it."""
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    return query


def scraped(text):
    """Return the metrics as series that promtool reads: twenty minutes of them, in which all counters advance."""
    for line in text.splitlines():
        if not line.startswith("#"):
            found = _SAMPLE.fullmatch(line)
            labels = ",".join(filter(None, ['job="configstore",instance="one:9650"', found["labels"]]))
            value = f"{float(found['value']):f}"
            values = f"{value}+1x20" if _COUNTS.search(found["name"]) else f"{value}x20"
            yield {"series": f"{found['name']}{{{labels}}}", "values": values}


def without_an_answer(promtool, folder, live, queries):
    """Return the output of promtool: which of the queries find nothing at all in a live sidecar's metrics."""
    looks = [
        {"expr": f"group({query})", "eval_time": "20m", "exp_samples": [{"labels": "{}", "value": 1}]}
        for query in queries
    ]
    up = {"series": 'up{job="configstore",instance="one:9650"}', "values": "1x20"}
    test = {"interval": "1m", "input_series": [*scraped(live), up], "promql_expr_test": looks}
    file = folder / "queries.yml"
    file.write_text(yaml.safe_dump({"rule_files": [], "evaluation_interval": "1m", "tests": [test]}))
    return promtool("test", "rules", file)

"""What docs/monitoring has for compose, Swarm and Kubernetes."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.monitoring.conftest import PAGES, ROOT

pytestmark = pytest.mark.xdist_group("monitoring")

DEPLOY = ROOT / "docs/deploy"
PAGE = (PAGES / "README.md").read_text()
PORT = "configstore"


def passes(program, *arguments):
    beside = Path(sys.executable).parent / program
    done = subprocess.run([beside, *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_yaml_is_clean():
    passes("yamllint", "--strict", "--config-data", "{extends: default, rules: {line-length: {max: 125}}}", PAGES)


FORMS = {
    "compose.yml": ("compose/configstore.yml", "prometheus.yml"),
    "host.yml": ("host/compose.yml", "prometheus-host.yml"),
}
"""The file for compose, by which of a guide's it is laid over, and what Prometheus is told there."""


def test_the_compose_files_have_the_shape_of_the_specification():
    passes("check-jsonschema", "--builtin-schema", "vendor.compose-spec", *(PAGES / name for name in FORMS))


@pytest.mark.parametrize("name", FORMS)
def test_a_compose_file_opens_and_scrapes_each_sidecar_of_its_guide(name):
    below, settings = FORMS[name]
    guide = yaml.safe_load((DEPLOY / below).read_text())["services"]
    sidecars = {name for name in guide if name.endswith("-sidecar")}
    services = yaml.safe_load((PAGES / name).read_text())["services"]
    opened = {
        name
        for name, one in services.items()
        if one.get("environment") == {"CONFIGSTORE_HEALTH_LISTEN": "0.0.0.0:9650"}
    }
    (job,) = yaml.safe_load((PAGES / settings).read_text())["scrape_configs"]
    scraped = {target.removesuffix(":9650") for one in job["static_configs"] for target in one["targets"]}
    assert sidecars == opened == scraped
    assert "configstore" in services["prometheus"]["networks"]
    assert f"--config.file=/etc/monitoring/{settings}" in services["prometheus"]["command"]


def test_prometheus_takes_its_settings(promtool, tmp_path):
    for _, settings in FORMS.values():
        assert "SUCCESS" in promtool("check", "config", PAGES / settings)
    (block,) = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "swarm.yml").write_text(block)
    assert "SUCCESS" in promtool("check", "config", tmp_path / "swarm.yml")
    stack = yaml.safe_load((DEPLOY / "swarm/stack.yml").read_text())["services"]
    (job,) = yaml.safe_load(block)["scrape_configs"]
    names = {name.removeprefix("tasks.") for name in job["dns_sd_configs"][0]["names"]}
    assert names == {name for name in stack if name.endswith("-sidecar")}


def test_every_job_is_one_that_the_alert_of_a_silent_sidecar_takes(rules):
    (down,) = [rule["expr"] for rule in rules if rule["alert"] == "ConfigstoreSidecarDown"]
    taken = re.search(r'job=~"(.*?)"', down)[1]
    jobs = ["mailu/configstore", "configstore", *re.findall(r"job_name: (\S+)", PAGE)]
    for _, settings in FORMS.values():
        jobs += re.findall(r"job_name: (\S+)", (PAGES / settings).read_text())
    assert all(re.fullmatch(taken, job) for job in jobs)


def test_the_operator_scrapes_the_port_of_each_pod_with_a_sidecar():
    monitor = yaml.safe_load((DEPLOY / "kubernetes/monitoring/pod-monitor.yaml").read_text())
    patches = [
        one
        for file in (DEPLOY / "kubernetes/components").rglob("patch.yaml")
        for one in yaml.safe_load_all(file.read_text())
    ]
    selected = monitor["spec"]["selector"]["matchLabels"]
    services = [one for one in patches if one["metadata"]["name"] != "any" and "labels" in one["metadata"]]
    assert len(services) > 5
    assert all(selected.items() <= one["spec"]["template"]["metadata"]["labels"].items() for one in services)
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    (sidecar,) = [one for one in patches if one["metadata"]["name"] == "any"]
    containers = {one["name"]: one for one in sidecar["spec"]["template"]["spec"]["initContainers"]}
    assert {"name": endpoint["port"], "containerPort": 9650} in containers["configstore"]["ports"]
    assert (endpoint["port"], endpoint["path"]) == (PORT, "/metrics")


def test_the_service_names_the_same_pods_and_makes_no_settings_of_a_sidecar():
    service, monitor = yaml.safe_load_all((PAGES / "service-monitor.yaml").read_text())
    assert service["spec"]["selector"] == {"configstore": "client"}
    assert not service["metadata"]["name"].startswith("configstore")
    (port,) = service["spec"]["ports"]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert (endpoint["port"], port["targetPort"], endpoint["path"]) == (port["name"], PORT, "/metrics")
    assert monitor["spec"]["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
    assert service["metadata"]["labels"][monitor["spec"]["jobLabel"]] == "configstore"


def test_what_is_typed_for_the_rules_makes_a_resource_of_them():
    (line,) = [line for line in PAGE.splitlines() if "kind: PrometheusRule" in line]
    command = line.strip().rpartition(" | ")[0]
    made = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True)
    (resource,) = yaml.safe_load_all(made.stdout)
    assert (resource["kind"], resource["metadata"]) == ("PrometheusRule", {"name": "configstore"})
    assert resource["spec"] == yaml.safe_load((PAGES / "rules.yml").read_text())

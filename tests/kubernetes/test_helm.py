"""Helm 3 and Helm 4 run what docs/deploy/kubernetes has for them, over a chart of the shape of Mailu's.

The kustomize files are the only place where anything is said: what Helm renders is what kustomize builds.
"""

import os
import shutil
import subprocess

import pytest
import yaml

from tests.kubernetes.conftest import CHART, DEPLOY
from tests.kubernetes.test_manifests import EVERYTHING, SERVICES

pytestmark = pytest.mark.xdist_group("kubernetes")

HELMS = ("helm-3", "helm")
OURS = DEPLOY / "chart"
ALL = ["admin", "imap", "smtp", "antispam", "fetchmail", "webmail", "front", "letsencrypt"]


@pytest.fixture
def values(tmp_path):
    """Return a function that writes a values file with a block `configstore`, and returns its path."""

    def written(**block):
        path = tmp_path / "values.yaml"
        path.write_text(yaml.safe_dump({"front": {"kind": "Deployment"}, "configstore": block}))
        return str(path)

    return written


@pytest.fixture
def post_rendered(tool, tmp_path):
    """Return a function that renders Mailu's chart through the post-renderer, as either Helm takes it."""
    (tmp_path / "tmp").mkdir()
    environment = {"HELM_DATA_HOME": str(tmp_path / "helm"), "TMPDIR": str(tmp_path / "tmp")}

    def installed():
        if not (tmp_path / "helm").exists():
            tool("helm", "plugin", "install", str(DEPLOY / "post-renderer"), environment=environment)
        return "configstore"

    def rendered(helm, *arguments, sets=(), **options):
        renderer = str(DEPLOY / "post-renderer/post-render") if helm == "helm-3" else installed()
        through = [word for one in arguments for word in ("--post-renderer-args", os.path.relpath(one, tmp_path))]
        chosen = [word for one in sets for word in ("--set", one)]
        return tool(
            helm, "template", "mailu", str(CHART), "-n", "mailu", *chosen, "--post-renderer", renderer, *through,
            environment=environment, cwd=tmp_path, **options,
        )  # fmt: skip

    return rendered


def test_the_operator_of_prometheus_gets_what_kustomize_builds(tool, values):
    plain, watched = (
        resources(tool("helm", "template", "configstore", str(OURS), "-n", "mailu", "-f", values(monitoring=on)))
        for on in (False, True)
    )
    (built,) = yaml.safe_load_all(tool("kubectl", "kustomize", str(DEPLOY / "monitoring")))
    (made,) = (watched[name] for name in watched.keys() - plain.keys())
    assert made == {**built, "metadata": {**built["metadata"], "namespace": "mailu"}}


def resources(text):
    """Return resources by kind and name."""
    return {(one["kind"], one["metadata"]["name"]): one for one in yaml.safe_load_all(text) if one}


def by_name(built):
    return {(one["kind"], one["metadata"]["name"]): one for one in built}


@pytest.mark.parametrize("helm", HELMS)
def test_the_chart_has_nothing_to_complain_of(tool, values, helm):
    tool(helm, "lint", "--strict", str(OURS))
    tool(helm, "lint", "--strict", str(OURS), "-f", values(services=ALL, sidecar="ordinary", newInstallation=True))


@pytest.mark.parametrize("helm", HELMS)
def test_the_chart_makes_what_kustomize_makes_of_the_store(tool, build, values, helm):
    rendered = resources(
        tool(helm, "template", "configstore", str(OURS), "-n", "mailu", "-f", values(newInstallation=True))
    )
    assert rendered == by_name(build(parts=["store"]))
    by_default = resources(tool(helm, "template", "configstore", str(OURS), "-n", "mailu"))
    assert rendered.keys() - by_default.keys() == {("Job", "configstore-bootstrap")}


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize("form", ["native", "ordinary"])
def test_the_pods_are_those_that_kustomize_builds_of_the_same_components(post_rendered, build, values, helm, form):
    chosen = values(services=ALL[::-1], sidecar=form)
    assert resources(post_rendered(helm, chosen)) == by_name(build(form=form, more=EVERYTHING, parts=["example"]))


@pytest.mark.parametrize("helm", HELMS)
def test_without_values_of_ones_own_the_pods_are_those_of_the_example(post_rendered, build, values, helm):
    assert resources(post_rendered(helm, values())) == by_name(build(more=(), parts=["example"]))


def test_a_front_on_every_node_is_patched_as_well(post_rendered, build, values):
    sets = ["frontKind=DaemonSet", "overrides=false"]
    built = by_name(build(more=["front"], sets=sets, parts=["example"]))
    assert ("DaemonSet", "mailu-front") in built
    assert resources(post_rendered("helm-3", values(services=[*ALL[:5], "front"]), sets=sets)) == built


def test_without_services_the_pods_are_those_of_the_chart(post_rendered, tool, values):
    plain = tool("helm-3", "template", "mailu", str(CHART), "-n", "mailu")
    assert resources(post_rendered("helm-3", values(services=[]))) == resources(plain)


@pytest.mark.parametrize("helm", HELMS)
def test_a_folder_of_ones_own_is_taken_in_place_of_values(post_rendered, build, tmp_path, helm):
    shutil.copytree(DEPLOY, tmp_path / "own")
    assert resources(post_rendered(helm, str(tmp_path / "own/example"))) == by_name(
        build(more=(), parts=["example"])
    )


def test_values_reach_pods_and_store(post_rendered, tool, values):
    digest = f"sha256:{'a' * 64}"
    own = values(
        image={"repository": "registry.example.org/own", "digest": digest},
        fetchmailGroup=105,
        settings={"CONFIGSTORE_ENDPOINTS": "https://etcd.example.org:2379"},
        etcd={"enabled": False},
        patches=[
            {
                "target": {"kind": "Deployment", "labelSelector": "app.kubernetes.io/component=admin"},
                "patch": "- {op: add, path: /spec/replicas, value: 3}",
            }
        ],
    )
    for form in ("native", "ordinary"):
        other = own.replace("values.yaml", "other.yaml")
        with open(other, "w") as file:
            yaml.safe_dump({"configstore": {"sidecar": form}}, file)
        found = resources(post_rendered("helm-3", own, other))
        pod = found["Deployment", "mailu-fetchmail"]["spec"]["template"]["spec"]
        everyone = [*pod["initContainers"], *pod["containers"]]
        names = [one["name"] for one in everyone]
        assert names == (
            ["configstore-init", "configstore", "fetchmail"]
            if form == "native"
            else ["configstore-init", "fetchmail", "configstore"]
        )
        sidecar = everyone[names.index("configstore")]
        assert sidecar["image"] == f"registry.example.org/own@{digest}"
        assert {"name": "CONFIGSTORE_CONTROL_GROUP", "value": "105"} in sidecar["env"]
        assert len({one["name"] for one in sidecar["env"]}) == len(sidecar["env"])
        assert found["Deployment", "mailu-admin"]["spec"]["replicas"] == 3

    store = resources(tool("helm-3", "template", "configstore", str(OURS), "-n", "elsewhere", "-f", own))
    assert {kind for kind, _ in store} == {"ConfigMap", "PodDisruptionBudget"}
    data = store["ConfigMap", "configstore"]["data"]
    assert data["CONFIGSTORE_ENDPOINTS"] == "https://etcd.example.org:2379"
    assert data["CONFIGSTORE_LOG_FORMAT"] == "json"
    assert {one["metadata"]["namespace"] for one in store.values()} == {"elsewhere"}


def test_a_class_of_storage_is_that_of_the_members_volumes(tool, values):
    own = values(etcd={"storageClass": "fast"})
    store = resources(tool("helm-3", "template", "configstore", str(OURS), "-n", "mailu", "-f", own))
    (claim,) = store["StatefulSet", "etcd"]["spec"]["volumeClaimTemplates"]
    assert claim["spec"]["storageClassName"] == "fast"


@pytest.mark.parametrize("helm", HELMS)
@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"services": ["admin", "nginx"]}, "nginx|services"),
        ({"sercives": []}, "sercives"),
        ({"sidecar": "no"}, "sidecar"),
        ({"services": ["admin", "letsencrypt"]}, "front|services"),
    ],
)
def test_what_is_misspelt_is_named_and_nothing_is_rendered(post_rendered, tool, values, helm, wrong, named):
    own = values(**wrong)
    said = tool(helm, "template", "configstore", str(OURS), "-f", own, fails=True)
    assert any(word in said for word in named.split("|")), said
    said = post_rendered(helm, own, fails=True)
    if helm == "helm-3":  # Helm 4 keeps what a plugin says on stderr to itself
        assert any(word in said for word in named.split("|")), said


def test_passwords_that_went_through_are_left_nowhere(post_rendered, values, tmp_path):
    post_rendered("helm-3", values())
    post_rendered("helm-3", values(sidecar="no"), fails=True)
    assert not list((tmp_path / "tmp").iterdir())


def test_the_chart_is_complete_when_it_is_packed(tool, tmp_path):
    tool("helm-3", "package", str(OURS), "-d", str(tmp_path))
    (packed,) = tmp_path.glob("*.tgz")
    rendered = tool("helm-3", "template", "configstore", str(packed), "-n", "mailu")
    assert resources(rendered) == resources(tool("helm-3", "template", "configstore", str(OURS), "-n", "mailu"))


def test_what_helm_renders_is_valid_on_several_versions(post_rendered, tool, values, tmp_path):
    own = values(services=ALL, newInstallation=True)
    text = post_rendered("helm-3", own) + "\n---\n"
    text += tool("helm-3", "template", "configstore", str(OURS), "-n", "mailu", "-f", own)
    (tmp_path / "all.yaml").write_text(text)
    for version in ("1.29", "1.34"):
        command = [".venv/bin/kubernetes-validate", "--strict", "-k", version, str(tmp_path / "all.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("passed") >= len(SERVICES) + 8

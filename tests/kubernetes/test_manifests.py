"""The Kubernetes files: they build over the chart's pods, are valid on several versions, and keep what matters."""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from contextlib import ExitStack

import pytest
import yaml

from configstore import presets
from configstore.access import formats
from configstore.embedded import LOOPBACK, free_ports, wheel_binary
from tests.harness.replica import ENVIRONMENT
from tests.harness.waiting import wait_until
from tests.kubernetes.conftest import CHART, DEPLOY, ROOT

NATIVE_VERSIONS = ("1.29", "1.31", "1.34")
pytestmark = pytest.mark.xdist_group("kubernetes")

SERVICES = {
    "admin": "admin",
    "front": "front",
    "dovecot": "imap",
    "postfix": "smtp",
    "rspamd": "antispam",
    "fetchmail": "fetchmail",
    "webmail": "webmail",
}
"""The chart's components, and the preset of each."""

ALSO = {
    "front": ",mailu/acme",
    "admin": ",mailu/admin-start",
    "rspamd": ",mailu/antispam-daily",
    "webmail": ",mailu/webmail-start",
}
"""What comes to that preset where several replicas run."""

STARTED = {
    "admin": ["one-at-a-time", "admin-start", "8080", "80", "--", "/start.py"],
    "rspamd": ["antispam-start", "/start.py"],
    "fetchmail": ["fetchmail-start", "/fetchmail.py"],
    "webmail": ["one-at-a-time", "webmail-start", "80", "--", "/start.py"],
}
"""By what services are started that must not do everything at once."""

EVERYTHING = ("webmail", "front", "letsencrypt")
"""What the example names and does not take: each takes something away that is to be brought in first."""


@pytest.fixture(scope="session")
def overlays(build):
    """Return the example in all its forms, with every component, built."""
    return {
        "native": build(more=EVERYTHING),
        "ordinary": build(form="ordinary", more=EVERYTHING),
        "daemonset": build(sets=["frontKind=DaemonSet", "overrides=false"]),
    }


def workloads(resources):
    """Return the pod specs of the chart's workloads by component, and their metadata."""
    return {
        one["metadata"]["labels"]["app.kubernetes.io/component"]: one["spec"]["template"]
        for one in resources
        if one["kind"] in ("Deployment", "DaemonSet", "StatefulSet")
        and "app.kubernetes.io/component" in one["metadata"].get("labels", {})
    }


def containers(spec):
    """Return the containers of a pod by name, init containers first."""
    return {one["name"]: one for one in [*spec.get("initContainers", ()), *spec["containers"]]}


@pytest.mark.parametrize(
    ("form", "versions"),
    [("native", NATIVE_VERSIONS), ("daemonset", NATIVE_VERSIONS), ("ordinary", ("1.25", *NATIVE_VERSIONS))],
)
def test_every_overlay_is_valid_on_several_versions(overlays, form, versions, tmp_path):
    (tmp_path / "all.yaml").write_text(yaml.safe_dump_all(overlays[form]))
    for version in versions:
        command = [".venv/bin/kubernetes-validate", "--strict", "-k", version, str(tmp_path / "all.yaml")]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert (done.stdout + done.stderr).count("passed") == len(overlays[form])


def test_the_schema_check_refuses_a_field_that_does_not_exist(overlays, tmp_path):
    wrong = yaml.safe_load(yaml.safe_dump(overlays["native"][0]))
    wrong["metadata"]["colour"] = "green"
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(wrong))
    command = [".venv/bin/kubernetes-validate", "--strict", "-k", "1.29", str(tmp_path / "wrong.yaml")]
    assert subprocess.run(command, capture_output=True, timeout=60, check=False).returncode != 0


def test_all_files_are_tidy_yaml():
    rules = (
        "{extends: default, rules: {line-length: {max: 125}, braces: {max-spaces-inside: 1}},"
        " ignore: ['**/chart/templates/*']}"  # Helm's templates are no YAML before they are rendered
    )
    command = [".venv/bin/yamllint", "--strict", "--config-data", rules, str(DEPLOY)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("form", ["native", "ordinary", "daemonset"])
def test_each_service_has_init_and_sidecar_of_its_preset_and_nothing_else_is_touched(overlays, form):
    found = workloads(overlays[form])
    assert set(found) == {*SERVICES, "clamav"}
    assert "initContainers" not in found["clamav"]["spec"]
    for component, preset in SERVICES.items():
        template = found[component]
        assert template["metadata"]["labels"]["configstore"] == "client"
        for name in ("configstore-init", "configstore"):
            environment = {one["name"]: one["value"] for one in containers(template["spec"])[name]["env"]}
            also = "" if component == "front" and form == "daemonset" else ALSO.get(component, "")
            assert environment["CONFIGSTORE_PRESET"] == f"mailu/{preset}{also}"


def test_every_directory_of_a_preset_is_shared_by_init_sidecar_and_application(overlays):
    presets = tomllib.loads((ROOT / "configstore/presets/mailu.toml").read_text())
    for component, preset in SERVICES.items():
        named = containers(workloads(overlays["native"])[component]["spec"])
        for mapping in presets["services"][preset]:
            path = presets["mapping"][mapping]["path"]
            mounts = [_mount_of(named[name], path) for name in ("configstore-init", "configstore", component)]
            assert mounts[0] == mounts[1] == mounts[2], f"{component}: {path}"


def _mount_of(container, path):
    """Return the volume and folder in which a path lies, by the longest mount that holds it."""
    holding = [one for one in container["volumeMounts"] if f"{path}/".startswith(f"{one['mountPath']}/")]
    assert holding, f"{container['name']}: {path} is not mounted"
    mount = max(holding, key=lambda one: len(one["mountPath"]))
    return mount["mountPath"], mount["name"], mount.get("subPath")


@pytest.mark.parametrize("form", ["native", "ordinary", "daemonset"])
def test_init_comes_first_and_the_sidecar_is_where_its_form_says(overlays, form):
    for component in SERVICES:
        spec = workloads(overlays[form])[component]["spec"]
        first = [(one["name"], one.get("restartPolicy")) for one in spec["initContainers"]]
        if form == "ordinary":
            assert first == [("configstore-init", None)]
            assert "configstore" in [one["name"] for one in spec["containers"]]
        else:
            assert first == [("configstore-init", None), ("configstore", "Always")]


def test_init_containers_of_the_operator_come_after_ours(build):
    own = ["initContainers[0].name=own", "initContainers[0].image=own"]
    for form, names in (
        ("native", ["configstore-init", "configstore", "own"]),
        ("ordinary", ["configstore-init", "own"]),
    ):
        spec = workloads(build(form=form, sets=own))["admin"]["spec"]
        assert [one["name"] for one in spec["initContainers"]] == names


@pytest.mark.parametrize("form", ["native", "ordinary"])
def test_what_is_ours_has_least_privilege_limits_and_probes(overlays, form):
    ours = [
        container
        for one in overlays[form]
        if one["kind"] in ("Deployment", "StatefulSet", "Job")
        for name, container in containers(one["spec"]["template"]["spec"]).items()
        if name.startswith(("configstore", "bootstrap", "etcd"))
    ]
    assert len(ours) == 2 * len(SERVICES) + 3
    for container in ours:
        security = container["securityContext"]
        assert security["readOnlyRootFilesystem"] is True
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"]["drop"] == ["ALL"]
        assert set(security["capabilities"].get("add", ())) <= {"CHOWN", "DAC_OVERRIDE", "FOWNER", "LEASE"}
        assert "memory" in container["resources"]["limits"]
        assert set(container["resources"]["requests"]) == {"cpu", "memory"}
        assert container["image"].startswith(("registry.example.org/configstore:", "quay.io/coreos/etcd:"))
        if container["name"] == "configstore":
            assert container["startupProbe"]["httpGet"] == {"path": "/livez", "port": "configstore"}
            assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": "configstore"}
            assert container["ports"] == [{"name": "configstore", "containerPort": 9650}]


@pytest.mark.parametrize("form", ["native", "ordinary", "daemonset"])
def test_the_mirror_is_memory_of_a_fixed_size_and_no_stale_volume_is_left(overlays, form):
    for component in SERVICES:
        spec = workloads(overlays[form])[component]["spec"]
        volumes = {one["name"]: one for one in spec["volumes"]}
        for name in ("configstore", "configstore-control", "configstore-state", "configstore-tmp"):
            assert volumes[name]["emptyDir"]["medium"] == "Memory"
            assert volumes[name]["emptyDir"]["sizeLimit"]
        mounted = {mount["name"] for one in containers(spec).values() for mount in one["volumeMounts"]}
        assert mounted == set(volumes), component


@pytest.mark.parametrize("form", ["native", "ordinary", "daemonset"])
def test_what_a_sidecar_remembers_is_shared_with_init_and_no_application_mounts_it(overlays, form):
    private = {"configstore-state": "/var/lib/configstore", "configstore-tmp": "/tmp"}
    for component in SERVICES:
        for name, container in containers(workloads(overlays[form])[component]["spec"]).items():
            mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
            shown = {volume: path for volume, path in mounts.items() if volume in private}
            assert shown == (private if name in ("configstore-init", "configstore") else {}), name


def test_wrappers_are_run_by_the_services_that_reach_the_control_socket_and_by_no_other(overlays):
    found = workloads(overlays["native"])
    folders = {"front": "letsencrypt", "fetchmail": "fetchmail"}
    for component in SERVICES:
        container = containers(found[component]["spec"])[component]
        mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
        ours = component in ("front", *STARTED)
        assert ("/run/configstore" in mounts) == ("/usr/local/lib/configstore" in mounts) == ours
        if not ours:
            continue
        folder = folders.get(component, "starts")
        assert mounts["/usr/local/lib/configstore"]["name"] == f"configstore-{folder}"
        if component in STARTED:
            program, *arguments = STARTED[component]
            assert container["command"] == [f"/usr/local/lib/configstore/{program}", *arguments]
            assert os.access(ROOT / "docs" / folder / program, os.X_OK)
        if component in folders:
            program = {"front": "certbot", "fetchmail": "fetchmail"}[component]
            wrapper = mounts[f"/usr/local/bin/{program}"]
            assert (wrapper["name"], wrapper["subPath"]) == (f"configstore-{folder}", program)
            assert os.access(ROOT / "docs" / folder / program, os.X_OK)
    text = (DEPLOY / "README.md").read_text()
    for folder in ("starts", "fetchmail", "letsencrypt"):
        assert f"create configmap configstore-{folder} --from-file={folder}/" in text
        assert f"docs/{folder}" in text


def test_etcd_is_reached_by_pods_with_a_sidecar_and_by_its_members_alone(overlays):
    (policy,) = [one for one in overlays["native"] if one["kind"] == "NetworkPolicy"]
    allowed = [
        (rule["from"][0]["podSelector"]["matchLabels"], [port["port"] for port in rule["ports"]])
        for rule in policy["spec"]["ingress"]
    ]
    assert allowed == [({"configstore": "client"}, [2379]), ({"app": "configstore-etcd"}, [2379, 2380])]
    (etcd,) = [
        one for one in overlays["native"] if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", "etcd")
    ]
    assert (
        policy["spec"]["podSelector"]["matchLabels"].items()
        <= etcd["spec"]["template"]["metadata"]["labels"].items()
    )


def test_no_service_gives_pods_a_variable_that_looks_like_a_setting(overlays):
    names = [one["metadata"]["name"] for one in overlays["native"] if one["kind"] == "Service"]
    assert names
    assert not [name for name in names if name.startswith("configstore")]


def chart_mounts(tool):
    """Return what the chart's pods mount, by component and path, before anything is patched."""
    rendered = yaml.safe_load_all(tool("helm", "template", "mailu", str(CHART)))
    return {
        component: {one["mountPath"]: one for one in containers(template["spec"])[component]["volumeMounts"]}
        for component, template in workloads([one for one in rendered if one]).items()
    }


def test_the_example_as_it_comes_takes_no_certificate_and_no_database_away(build, tool):
    found, before = workloads(build(more=())), chart_mounts(tool)
    assert {"configstore": "client"}.items() <= found["admin"]["metadata"]["labels"].items()
    for component in ("front", "webmail"):
        assert "initContainers" not in found[component]["spec"]
        mounts = containers(found[component]["spec"])[component]["volumeMounts"]
        assert {one["mountPath"]: one for one in mounts} == before[component]


def test_what_the_pods_lose_of_the_chart_is_copied_out_before(overlays, tool):
    taken = set(re.findall(r"^ +take \w+/mailu-(\w+) +(\S+)", (DEPLOY / "README.md").read_text(), re.MULTILINE))
    lost = set()
    for component, before in chart_mounts(tool).items():
        mounts = containers(workloads(overlays["native"])[component]["spec"])[component]["volumeMounts"]
        after = {one["mountPath"]: one for one in mounts}
        lost |= {(component, path) for path, mount in before.items() if after.get(path) != mount}
    assert lost
    assert lost - taken == {("dovecot", "/data")}, "nothing of today's Dovecot lies there"


def test_dovecot_keeps_its_mail_and_loses_a_volume_that_nothing_uses(overlays, tool):
    before = chart_mounts(tool)["dovecot"]
    mounts = containers(workloads(overlays["native"])["dovecot"]["spec"])["dovecot"]["volumeMounts"]
    after = {one["mountPath"]: one for one in mounts}
    assert after["/mail"] == before["/mail"]
    assert before.keys() - after.keys() == {"/data"}


@pytest.mark.parametrize("program", ["tar", "busybox tar"])
def test_files_are_copied_out_of_pods_through_the_links_of_a_configmap(tmp_path, program):
    overrides, data = tmp_path / "pod/overrides", tmp_path / "pod/data"
    (overrides / "..2026_11_24").mkdir(parents=True)
    (overrides / "..data").symlink_to("..2026_11_24")
    (overrides / "..2026_11_24/postfix.cf").write_text("x = y\n")
    (overrides / "postfix.cf").symlink_to("..data/postfix.cf")
    (data / "gpg/user@example.org").mkdir(parents=True)
    (data / "gpg/user@example.org/pubring.kbx").write_bytes(b"ring")
    (data / "gpg").chmod(0o700)
    overrides.chmod(0o777)
    (tmp_path / "pod/empty").mkdir(mode=0o755)
    owners = os.geteuid() == 0
    if owners:
        os.chown(data / "gpg/user@example.org/pubring.kbx", 8123, 8124)
    (tmp_path / "kubectl").write_text(
        "#!/bin/bash\n# kubectl -n mailu exec POD -- tar ch -C FOLDER .\n"
        f'[ "$5 $6 $7 $8" = "-- tar ch -C" ] && exec {program} ch -C "{tmp_path}/pod$9" "${{10}}"\n'
    )
    (tmp_path / "kubectl").chmod(0o755)
    (block,) = re.findall(r"```bash\n(.*?)```", (DEPLOY / "README.md").read_text(), re.DOTALL)
    function = textwrap.dedent(block[: block.index("   take deploy")]).replace("cd ~/mailu-private\n", "")
    folders = ("/overrides overrides/postfix", "/data webmail", "/empty certs", "/none dkim")
    script = "\n".join([function, *(f"take deploy/mailu-x {one}" for one in folders)])
    environment = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", f"umask 077\n{script}"], cwd=tmp_path, env=environment, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "none" in done.stderr
    mailu = tmp_path / "mailu"
    assert [path.name for path in (mailu / "overrides/postfix").iterdir()] == ["postfix.cf"]
    assert not (mailu / "overrides/postfix/postfix.cf").is_symlink()
    assert (mailu / "overrides/postfix/postfix.cf").read_text() == "x = y\n"
    assert (mailu / "webmail/gpg/user@example.org/pubring.kbx").read_bytes() == b"ring"
    assert (mailu / "webmail/gpg").stat().st_mode & 0o777 == 0o700
    if owners:
        status = (mailu / "webmail/gpg/user@example.org/pubring.kbx").stat()
        assert (status.st_uid, status.st_gid) == (8123, 8124)
    modes = {one: (mailu / one).stat().st_mode & 0o777 for one in ("overrides", "overrides/postfix", "certs")}
    assert set(modes.values()) == {0o755}
    assert not list((mailu / "certs").iterdir())
    assert not (mailu / "dkim").exists()


def test_the_pod_that_holds_a_claim_of_etcd_is_valid_and_fits_the_statefulset(overlays, tmp_path):
    text = (DEPLOY / "restore/member.yaml").read_text().replace("MEMBER", "0")
    (tmp_path / "member.yaml").write_text(text)
    command = [".venv/bin/kubernetes-validate", "--strict", "-k", "1.29", str(tmp_path / "member.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    (etcd,) = [
        one for one in overlays["native"] if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", "etcd")
    ]
    pod, member = yaml.safe_load(text)["spec"], etcd["spec"]["template"]["spec"]
    assert pod["securityContext"] == member["securityContext"]
    (claim,) = etcd["spec"]["volumeClaimTemplates"]
    assert pod["volumes"][0]["persistentVolumeClaim"]["claimName"] == f"{claim['metadata']['name']}-etcd-0"


def test_the_source_of_certificates_is_valid_least_and_reads_the_secret_as_a_folder(tmp_path):
    folder = DEPLOY / "certs-source"
    assert yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"] == ["deployment.yaml"]
    command = [".venv/bin/kubernetes-validate", "--strict", "-k", "1.29", str(folder / "deployment.yaml")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    spec = yaml.safe_load((folder / "deployment.yaml").read_text())["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert spec["securityContext"]["runAsNonRoot"]
    mounts = {one["mountPath"]: one for one in container["volumeMounts"]}
    (source,) = presets.load("mailu/certs-source")
    assert mounts[source.path] == {"mountPath": "/source", "name": "certificates", "readOnly": True}
    names = {one["name"]: one.get("value") for one in container["env"]}
    assert names["CONFIGSTORE_PRESET"] == "mailu/certs-source"


def test_private_keys_that_are_made_in_the_folder_are_ignored_by_git(tmp_path):
    shutil.copytree(DEPLOY, tmp_path / "copy")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path / "copy", check=True)
    private = [
        "tls/ca.key",
        "tls/server/server.pem",
        "server.key",
        "mailu/dkim/a.key",
        "mailu/certs/key.pem",
        "example/mailu.yaml",
    ]
    asked = subprocess.run(
        ["git", "check-ignore", *private], cwd=tmp_path / "copy", capture_output=True, text=True, check=False
    )
    assert asked.stdout.split() == private


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Return a folder with the certificates that the command of the README makes."""
    folder = tmp_path_factory.mktemp("certificates")
    (line,) = re.findall(
        r"^ +configstore (access apply .*--etcd-name.*)$", (DEPLOY / "README.md").read_text(), re.MULTILINE
    )
    # Its last name is where the members are for a test.
    command = f"{sys.executable} -m configstore {line} --etcd-name={LOOPBACK}"
    subprocess.run(
        ["bash", "-c", command], cwd=folder, env=ENVIRONMENT, check=True, capture_output=True, timeout=60
    )
    return folder


def test_the_readme_makes_certificates_for_all_members_and_keeps_keys_private(certificates):
    for role in ("server", "peer"):
        command = ["openssl", "x509", "-in", f"tls/server/{role}.pem", "-noout", "-ext", "subjectAltName"]
        shown = subprocess.run(command, cwd=certificates, capture_output=True, text=True, check=True).stdout
        for member in range(3):
            assert f"DNS:etcd-{member}.etcd," in shown
            assert f"DNS:etcd-{member}.etcd.mailu.svc.cluster.local" in shown
        assert "localhost" not in shown
    assert not [one.name for one in certificates.rglob("*.key") if one.stat().st_mode & 0o077]


@pytest.mark.parametrize(
    ("authority", "taken"),
    [("ca", {"server/server", "front/mailu-front", "operator/operator"}), ("peer-ca", {"server/peer"})],
    ids=["clients", "members"],
)
def test_what_a_client_shows_is_of_another_authority_than_what_members_show(certificates, authority, taken):
    def verified(role):
        command = ["openssl", "verify", "-CAfile", f"tls/{authority}.pem", f"tls/{role}.pem"]
        return subprocess.run(command, cwd=certificates, capture_output=True, check=False).returncode == 0

    roles = ("server/server", "front/mailu-front", "operator/operator", "server/peer")
    assert {role for role in roles if verified(role)} == taken


def secrets(certificates):
    """Return the Secrets that the command of the README writes: of each its files, by their names there."""
    found = [yaml.safe_load(file.read_text()) for file in (certificates / "tls/kubernetes").glob("*.yaml")]
    return {
        one["metadata"]["name"]: {key: base64.b64decode(value) for key, value in one["data"].items()}
        for one in found
    }


def test_the_secrets_have_what_pods_and_members_read(overlays, certificates):
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in overlays["native"]}
    settings = by_name["ConfigMap", "configstore"]["data"].values()
    read = {value.rpartition("/")[2] for value in settings if value.startswith("/etc/configstore-etcd/")}
    found = secrets(certificates)
    (etcd,) = by_name["StatefulSet", "etcd"]["spec"]["template"]["spec"]["containers"]
    files = {one["value"] for one in etcd["env"] if one.get("value", "").startswith("/etc/etcd/")}
    assert {f"/etc/etcd/{key}" for key in found.pop("etcd-server")} == files
    assert set(found) == {f"configstore-etcd-{service}" for service in SERVICES.values()}
    for files in found.values():
        assert set(files) == read


def test_the_secrets_are_valid_and_have_a_keyring_where_the_settings_look_for_it(certificates, tmp_path):
    folder = tmp_path / "tls"
    shutil.copytree(certificates / "tls", folder)
    (folder / "front/keyring").write_text("keys of front")
    users = {service: f"mailu-{service}" for service in SERVICES.values()}
    paths = formats.write(str(folder), users, formats.Format.KUBERNETES)
    command = [".venv/bin/kubernetes-validate", "--strict", "-k", NATIVE_VERSIONS[0], *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    front = yaml.safe_load((folder / "kubernetes/configstore-etcd-front.yaml").read_text())
    assert base64.b64decode(front["data"]["keyring"]) == b"keys of front"
    for file in ("base/settings.yaml", "README.md"):
        assert "CONFIGSTORE_SEAL_KEYRING: /etc/configstore-etcd/keyring" in (DEPLOY / file).read_text()


@pytest.mark.parametrize("form", ["native", "ordinary", "daemonset"])
def test_each_pod_has_the_certificate_of_its_service_and_no_application_mounts_it(overlays, form):
    for component, service in SERVICES.items():
        spec = workloads(overlays[form])[component]["spec"]
        (volume,) = [one for one in spec["volumes"] if one["name"] == "configstore-etcd"]
        assert volume["secret"] == {"secretName": f"configstore-etcd-{service}", "defaultMode": 0o400}
        for name, container in containers(spec).items():
            mounted = [one["name"] for one in container["volumeMounts"] if one["name"] == "configstore-etcd"]
            assert bool(mounted) == (name in ("configstore-init", "configstore")), name


def test_the_certificate_of_a_person_is_in_no_pod_but_that_of_the_job(overlays):
    shown = {
        one["metadata"]["name"]
        for one in overlays["native"]
        if "configstore-etcd-operator" in json.dumps(one) or "tls/operator" in json.dumps(one)
    }
    assert shown == {"configstore-bootstrap"}


@pytest.fixture
def members(overlays, certificates, tmp_path):
    """Start three real etcd with the settings of the StatefulSet, on loopback; return their client addresses."""
    (etcd,) = [
        one for one in overlays["native"] if (one["kind"], one["metadata"]["name"]) == ("StatefulSet", "etcd")
    ]
    given = {one["name"]: one.get("value") for one in etcd["spec"]["template"]["spec"]["containers"][0]["env"]}
    ports = free_ports(9)
    for key, content in secrets(certificates)["etcd-server"].items():
        (tmp_path / key).write_bytes(content)
    with ExitStack() as stack:
        for member in range(3):
            client, peer, metrics = ports[member::3]
            replaced = {
                "$(ETCD_NAME)": f"etcd-{member}",
                "/etc/etcd/": f"{tmp_path}/",
                "/var/lib/etcd": str(tmp_path / f"data-{member}"),
                "0.0.0.0:2379": f"{LOOPBACK}:{client}",
                "0.0.0.0:2380": f"{LOOPBACK}:{peer}",
                "0.0.0.0:2381": f"{LOOPBACK}:{metrics}",
            }
            for other in range(3):
                replaced[f"etcd-{other}.etcd:2379"] = f"{LOOPBACK}:{ports[other]}"
                replaced[f"etcd-{other}.etcd:2380"] = f"{LOOPBACK}:{ports[3 + other]}"
            environment = {"ETCD_NAME": f"etcd-{member}", "PATH": "/usr/bin"}
            for name, value in given.items():
                for old, new in replaced.items():
                    value = value.replace(old, new) if value else value  # noqa: PLW2901
                environment[name] = value or environment[name]
            log = stack.enter_context((tmp_path / f"log-{member}").open("wb"))
            process = stack.enter_context(subprocess.Popen([wheel_binary()], env=environment, stderr=log))
            stack.callback(process.kill)
        yield [f"https://{LOOPBACK}:{port}" for port in ports[:3]]
    for member in range(3):
        assert b"unrecognized environment variable" not in (tmp_path / f"log-{member}").read_bytes()


def test_the_job_makes_the_roots_in_the_etcd_of_three_members_with_a_certificate_only(
    overlays, certificates, members
):
    (job,) = [one for one in overlays["native"] if one["kind"] == "Job"]
    (container,) = job["spec"]["template"]["spec"]["containers"]
    settings = {
        "CONFIGSTORE_ENDPOINTS": ",".join(members),
        "CONFIGSTORE_CACERT": str(certificates / "tls/operator/ca.pem"),
        "CONFIGSTORE_CERT": str(certificates / "tls/operator/operator.pem"),
        "CONFIGSTORE_KEY": str(certificates / "tls/operator/operator.key"),
    }
    (config,) = [one for one in overlays["native"] if one["metadata"]["name"] == "configstore"]
    assert settings.keys() <= config["data"].keys()

    def bootstrap(**changed):
        program = [f".venv/bin/{container['command'][0]}", *container["command"][1:]]
        environment = {name: value for name, value in {**settings, **changed}.items() if value}
        return subprocess.run(program, env=environment, capture_output=True, text=True, timeout=60, check=False)

    wait_until(lambda: bootstrap().returncode == 0, 30, what="the roots are made")
    assert bootstrap(CONFIGSTORE_CERT="", CONFIGSTORE_KEY="").returncode == 5, (
        "etcd took a client without a certificate"
    )


def test_the_readme_names_only_files_and_components_that_exist():
    text = (DEPLOY / "README.md").read_text()
    for component in (DEPLOY / "components").iterdir():
        assert f"`{component.name}`" in text
    for path in re.findall(r"\]\(([^)#:]+)\)|(docs/[a-z/-]+)", text):
        name = path[0] or path[1]
        assert (DEPLOY / name).exists() or (ROOT / name).exists(), name

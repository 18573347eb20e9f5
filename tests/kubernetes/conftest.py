"""The tools of tests/kubernetes, overlays built with them, and a podman of our own."""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
import yaml

from tests.harness.programs import missing
from tests.kubernetes.image import ROOT, write_image, write_pause

TOOLS = ROOT / ".venv/kubernetes"
DEPLOY = ROOT / "docs/deploy/kubernetes"
CHART = Path(__file__).with_name("chart")
IMAGE = "localhost/configstore:test"
PAUSE = "localhost/pause:test"


@pytest.fixture(scope="session")
def tool():
    """Return a function that runs kubectl, helm (4) or helm-3 with arguments, and returns what it prints.

    fails: it must fail, and what it says of that is returned.
    """

    def run(name, *arguments, fails=False, **options):
        if not (TOOLS / name).exists():
            missing(name, "tests/get-kubernetes .venv/kubernetes")
        own = {"HELM_BIN": str(TOOLS / name)} if name.startswith("helm") else {}
        path = f"{TOOLS}:{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, **own, **options.pop("environment", {})}
        done = subprocess.run(
            [TOOLS / name, *arguments],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env=environment,
            **options,
        )
        assert bool(done.returncode) is fails, f"{name} {arguments}: {done.stderr}"
        return done.stderr if fails else done.stdout

    return run


@pytest.fixture(scope="session")
def build(tool, tmp_path_factory):
    """Return a function that builds the example over the chart's pods, and the store; a list of resources.

    more: the components that the example names, and does not take. The store is that of a new installation.
    """

    def built(*, form="native", more=("webmail", "front"), sets=(), parts=("example", "store")):
        folder = tmp_path_factory.mktemp("deploy") / "kubernetes"
        shutil.copytree(DEPLOY, folder)
        example = folder / "example"
        values = [word for one in sets for word in ("--set", one)]
        (example / "mailu.yaml").write_text(tool("helm", "template", "mailu", str(CHART), "-n", "mailu", *values))
        overlay = yaml.safe_load((example / "kustomization.yaml").read_text())
        components = overlay["components"]
        components[components.index("../components/native-sidecar")] = f"../components/{form}-sidecar"
        components[-1:-1] = [f"../components/{name}" for name in more]
        (example / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        store = folder / "store/kustomization.yaml"
        store.write_text(store.read_text().replace("# - ../bootstrap", "- ../bootstrap"))
        texts = [tool("kubectl", "kustomize", str(folder / one)) for one in parts]
        return [resource for text in texts for resource in yaml.safe_load_all(text)]

    return built


class Podman:
    """A podman with storage of its own."""

    def __init__(self, folder):
        self.environment = {**os.environ, "CONTAINERS_CONF": str(folder / "containers.conf")}
        # The signature policy and short names are the machine's business; no image is pulled.
        self.options = ["--root", str(folder / "storage"), "--runroot", str(folder / "run")]
        (folder / "containers.conf").write_text(
            '[engine]\nruntime = "runc"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
            f'infra_image = "{PAUSE}"\n'
            '[containers]\ndefault_ulimits = ["nofile=16384:16384", "nproc=32768:32768"]\n'
        )

    def __call__(self, *arguments, check=True):
        """Run podman and return its standard output."""
        done = subprocess.run(
            ["podman", *self.options, *arguments],
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
            env=self.environment,
        )
        assert not check or done.returncode == 0, f"podman {arguments}: {done.stderr}"
        return done.stdout + done.stderr if "logs" in arguments else done.stdout

    def state(self, container):
        """Return what podman says of a container's state."""
        return json.loads(self("container", "inspect", container))[0]["State"]


@pytest.fixture(scope="session")
def podman():
    """Return a podman with the image of configstore imported."""
    for program in ("podman", "runc", "catatonit"):
        if not shutil.which(program):
            missing(program, f"apt-get install {program}")
    if os.geteuid() != 0:
        missing("root, for podman without user namespaces,", "run the tests as root")
    folder = Path(tempfile.mkdtemp(prefix="podman-"))  # podman wants a short path
    own = Podman(folder)
    archive = folder / "image.tar"
    for write, name, entry in (
        (write_image, IMAGE, ["configstore-sidecar"]),
        (write_pause, PAUSE, ["catatonit", "-P"]),
    ):
        write(archive)
        changes = [f"--change=ENTRYPOINT {json.dumps(entry)}", "--change=ENV PATH=/usr/bin"]
        own("import", "--quiet", *changes, str(archive), name)
        archive.unlink()
    yield own
    own("pod", "rm", "--all", "--force", "--time", "0", check=False)
    own("rmi", "--all", "--force", check=False)
    for mount in ("storage/overlay", "storage"):
        subprocess.run(["umount", folder / mount], capture_output=True, check=False)
    shutil.rmtree(folder)

r"""Version 0.1.0 as a program beside today's: unpacked from its wheel, run by this Python with today's libraries.

The wheel in `data/` is of commit 68a0dd3, the last one before the first incompatible change, and
`deploy-0.1.0.tar.xz` has what an operator had of that commit besides. They are made again by

    git worktree add /tmp/0.1.0 68a0dd3
    pip wheel --no-deps --wheel-dir tests/upgrade/data /tmp/0.1.0
    tar cJf tests/upgrade/data/deploy-0.1.0.tar.xz -C /tmp/0.1.0 Dockerfile LICENSE README.md pyproject.toml \
        requirements.lock docs/deploy/compose docs/deploy/gate docs/letsencrypt docs/fetchmail
"""

import contextlib
import os
import subprocess
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from tests.harness import zygote
from tests.harness.replica import ENVIRONMENT, Replica

DATA = Path(__file__).parent / "data"
WHEEL = DATA / "mailu_configstore-0.1.0-py3-none-any.whl"


@contextlib.contextmanager
def unpacked() -> Iterator[dict[str, str]]:
    """Unpack 0.1.0 while the body runs; yields the environment in which `python -m` finds it."""
    with tempfile.TemporaryDirectory(prefix="configstore-0.1.0-") as folder:
        with zipfile.ZipFile(WHEEL) as wheel:
            wheel.extractall(folder)
        # The safe path keeps the current directory, which is today's version, out of the search.
        yield {**ENVIRONMENT, "PYTHONPATH": folder, "PYTHONSAFEPATH": "1"}


QUICK = 'delete_settle = "200ms"'
"""A mapping's setting that shortens the wait for its deletes."""


class Command:
    """The command `configstore` of one version, on one store."""

    def __init__(self, endpoint: str, root: str, environment: dict[str, str]) -> None:
        self.words = ["--endpoints", endpoint, "--root", root]
        self._environment = environment

    def __call__(self, *arguments: str, content: bytes = b"", code: int | None = 0) -> bytes:
        """Run it and return what it prints. code: the exit code that it must end with; None for any."""
        return self.run(*arguments, content=content, code=code).stdout

    def run(
        self, *arguments: str, content: bytes = b"", code: int | None = 0
    ) -> subprocess.CompletedProcess[bytes]:
        """Run it and return all of its outcome."""
        done = zygote.run("configstore", [*self.words, *arguments], self._environment, content)
        assert code in {None, done.returncode}, f"{arguments}: {done.returncode}: {done.stderr.decode()}"
        return done


class Upgradable(Replica):
    """A replica whose sidecar is of one version, then of the other, on the same directory."""

    old: ClassVar[dict[str, str]] = {}
    """The environment of 0.1.0."""

    def run_by(self, version: str) -> "Upgradable":
        """Have the next start be that of a version, with the settings that it knows."""
        text = self.settings.read_text()
        state = f'[state]\ndirectory = "{self.state}"\n'
        self.settings.write_text(
            text.replace(state, "") if version == "0.1.0" else state + text.replace(state, "")
        )
        self.environment = self.old if version == "0.1.0" else ENVIRONMENT
        return self

    @property
    def private(self) -> Path:
        """What is the sidecar's own in the mirrored directory."""
        return self.folder / ".configstore"


def owner(path: Path) -> tuple[int, int]:
    """Return the numbers of a file's user and group."""
    found = os.lstat(path)
    return found.st_uid, found.st_gid

"""configstore as its users have it: programs with arguments and a settings file, nothing of ours imported.

`tests.bench.peers` measures other programs beside it, `tests.bench.compare` another version of it: for both only
what is seen from outside counts.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from configstore.model.path import StorePath

HERE = Path(__file__).parents[2]


@dataclass(frozen=True)
class Program:
    """One version of configstore: a folder with its code and the Python that has what it needs."""

    tree: Path = HERE
    python: str = sys.executable

    def environment(self) -> dict[str, str]:
        """Return the environment in which this tree's modules are the ones that are found."""
        return os.environ | {"PYTHONPATH": str(self.tree), "PYTHONSAFEPATH": "1"}

    def command(self, module: str, *arguments: str) -> list[str]:
        """Return the command line of a module of this version."""
        return [self.python, "-m", module, *arguments]

    def configstore(self, endpoint: str, *arguments: str) -> None:
        """Run the command to its end. Raises CalledProcessError."""
        command = self.command("configstore", "--endpoints", endpoint, *arguments)
        subprocess.run(
            command, check=True, env=self.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    @contextlib.contextmanager
    def sidecar(self, settings: Path, log: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
        """Run a sidecar, and end it; what it says goes into a log, if there is one."""
        command = self.command("sidecar", "run", "--config", str(settings))
        with log.open("ab") if log else contextlib.nullcontext() as file:
            process = subprocess.Popen(command, env=self.environment(), stderr=file)
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def settings(
    folder: Path, name: str, subtree: str, endpoint: str, mapping: Sequence[str] = ()
) -> tuple[Path, Path]:
    """Write a sidecar's settings; returns their file and the mirrored directory, which is made.

    mapping: further lines of the mapping, such as `settle = "0ms"`.
    """
    StorePath(subtree)
    directory = folder / name
    directory.mkdir(parents=True)
    file = folder / f"{name}.toml"
    lines = [
        f'[store]\nendpoints = ["{endpoint}"]',
        f'[state]\ndirectory = "{folder}/{name}-state"',
        '[control]\nsocket = ""\n[health]\nlisten = ""\n[log]\nlevel = "warning"',
        f'[[mapping]]\nname = "{subtree}"\npath = "{directory}"',
        *mapping,
    ]
    file.write_text("\n".join(lines) + "\n")
    return file, directory

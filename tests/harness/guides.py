"""What the guides in docs/ show to be typed, and a shell in which it is."""

import re
import subprocess
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from tests.harness.waiting import wait_until

_REMEMBERED = re.compile(
    r"^(?:export|cd|umask) [^\n]*$|^\w+\(\) \{(?:[^\n]*\}$|.*?^\}$)", re.MULTILINE | re.DOTALL
)


def section(page: Path, heading: str) -> str:
    """Return the text below a heading of the second level."""
    found = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    assert found, f"{page}: {heading}"
    return found[1]


def step(page: Path, heading: str, number: int) -> str:
    """Return one step of a section that numbers its steps."""
    found = re.search(rf"^{number}\. (.*?)(?=^\d+\. |^\S|\Z)", section(page, heading), re.MULTILINE | re.DOTALL)
    assert found, f"{page}: {heading}, {number}"
    return found[1]


def blocks(text: str) -> list[str]:
    """Return what a text shows to be typed, block by block: indented, or fenced as sh or bash."""
    found: list[list[str]] = []
    fence, fresh = None, True
    for line in text.splitlines():
        if mark := re.match(r" *```(\w*)$", line):
            fence, fresh = (mark[1] if fence is None else None), True
        elif fence in ("sh", "bash") or (fence is None and re.match(r" {4}", line)):
            if fresh:
                found.append([])
            found[-1].append(line)
            fresh = False
        elif line.strip():
            fresh = True
    return [textwrap.dedent("\n".join(lines)).strip("\n") for lines in found]


BACKUP = Path(__file__).parents[2] / "docs/backup.md"


def choice(side: str) -> str:
    """Return the command by which the page on backups has a person end a halt of MAPPING."""
    lines = [line for block in blocks(section(BACKUP, "Then look, and choose")) for line in block.splitlines()]
    return next(line for line in lines if f"MAPPING --take {side}" in line)


def halts(said: str) -> set[str]:
    """Return the mappings for which `configstore status` offers that choice."""
    return set(re.findall(r"configstore resume (\S+) --take", said))


class Shell:
    """A shell in a folder. What an operator's remembers from line to line, it does: folder, variables, functions.

    `here` turns a line of the guide into one of this machine; `inside` is what bash is started by.
    """

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        here: Callable[[str], str] = lambda line: line,
        inside: Sequence[str] = (),
    ) -> None:
        self._folder, self._environment, self._here, self._inside = folder, dict(environment), here, inside
        self._before: list[str] = []

    def attempt(self, lines: Sequence[str], timeout: float = 150) -> subprocess.CompletedProcess[str]:
        """Type lines, the first that fails ends them, and return what came of it."""
        text = "\n".join(map(self._here, lines))
        script = "\n".join(["set -e", *self._before, text])
        command = [*self._inside, "bash", "-c", script]
        done = subprocess.run(command, cwd=self._folder, env=self._environment, capture_output=True,
                              text=True, timeout=timeout, check=False)  # fmt: skip
        if done.returncode == 0:
            self._before += _REMEMBERED.findall(text)
        return done

    def type(self, *texts: str, timeout: float = 150) -> str:
        """Type lines or whole blocks and return what they say; fails the test when one fails."""
        lines = [line for text in texts for line in text.splitlines()]
        done = self.attempt(lines, timeout)
        said = f"{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        assert done.returncode == 0, "\n".join([*map(self._here, lines), said])
        return done.stdout.strip()


def chooses_what_lies_here(shell: Shell, get: str) -> None:
    """After a restore: end each halt by the page's choice, until `get` reads the key again and all is well."""

    def halted() -> set[str]:
        said = shell.attempt(["configstore status"])
        return halts(said.stdout + said.stderr)

    wait_until(lambda: "dkim" in halted(), 60, what="a choice for dkim")
    deadline = time.monotonic() + 120
    while mappings := halted():
        assert time.monotonic() < deadline, mappings
        for mapping in sorted(mappings):
            shell.attempt([choice("local").replace("MAPPING", mapping)])
    wait_until(lambda: shell.attempt([get]).stdout == "after\n", 30, what="the key pushed again")
    is_well = ["configstore status"]
    wait_until(lambda: shell.attempt(is_well).returncode == 0, 90, what="a status without complaint")

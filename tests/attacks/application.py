"""Plays the application: another user, without capabilities, beside a root sidecar that has the shipped ones."""

import os
import shutil
import subprocess
import sys

from tests.harness.replica import Replica

UID = 12345

SHIPPED = (
    "setpriv",
    "--bounding-set=-all,+chown,+dac_override,+fowner,+lease",
    "--inh-caps=-all",
    "--ambient-caps=-all",
)
"""Runs a command with the capabilities that the manifests give a root sidecar."""

UNPRIVILEGED = (
    "setpriv",
    f"--reuid={UID}",
    f"--regid={UID}",
    "--clear-groups",
    "--bounding-set=-all",
    "--inh-caps=-all",
)


class Attacked(Replica):
    """A root sidecar with the shipped capabilities; its directory belongs to the application.

    volume: what the application owns; the mirrored directory is that, or lies in it.
    """

    def __init__(self, *arguments, **how):
        super().__init__(*arguments, **how)
        self.under = SHIPPED
        os.chown(self.folder, UID, UID)

    def application(self, script, *arguments, check=True):
        """Run Python code as the application; returns what came of it. `folder` is the mirrored directory."""
        code = f"import ctypes, json, os, sys\nfolder = {str(self.folder)!r}\n{EXCHANGE}\n{script}"
        command = [*UNPRIVILEGED, "/usr/bin/env", "-i", PYTHON, "-c", code, *map(str, arguments)]
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=60)


PYTHON = shutil.which("python3", path="/usr/bin:/usr/local/bin:/bin") or sys.executable
"""One that another user may run: a virtual environment's may lie where only root can go."""

EXCHANGE = """
def exchange(one, other):
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "renameat2")
"""

"""Whose exit codes are whose: our own children and those that process 1 inherits."""

import subprocess
import sys

SCRIPT = """
import ctypes, os, signal, subprocess, sys, time
from sidecar import children, hooks
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as process 1 is
signal.signal(signal.SIGCHLD, lambda *_: children.reap_orphans())
def zombies():
    return list(children._zombies("/proc"))
end = time.monotonic() + 60
codes = [hooks.run(["sh", "-c", "sh -c 'sleep 0.1' & exit 7"], cwd="/", more={}).failure for _ in range(5)]
print(set(codes))
def running():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()
while (running() or zombies()) and time.monotonic() < end:
    time.sleep(0.02)
print(running(), zombies())
"""


def test_orphans_are_reaped_and_our_own_keep_their_exit_codes():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=90, check=True)
    assert done.stdout.splitlines() == ["{'sh: ended with exit code 7'}", "[] []"]

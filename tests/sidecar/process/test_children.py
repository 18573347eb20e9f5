"""Whose exit codes are whose: our own children and those that process 1 inherits."""

import subprocess
import sys

from sidecar.process import children
from tests.harness.waiting import wait_until

SCRIPT = """
import ctypes, os, signal, threading, time
from sidecar.process import children
from sidecar.programs import hooks
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER: as process 1 is
reader, writer = os.pipe()
os.set_blocking(writer, False)
signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
signal.signal(signal.SIGCHLD, lambda *_: None)
def reap():
    while os.read(reader, 512):
        children.reap_orphans()
threading.Thread(target=reap, daemon=True).start()
codes = [hooks.run(["sh", "-c", "sh -c 'sleep 0.1' & exit 7"], cwd="/", more={}).failure for _ in range(20)]
print(set(codes))
def left():
    with open(f"/proc/self/task/{os.getpid()}/children") as file:
        return file.read().split()
end = time.monotonic() + 20
while left() and time.monotonic() < end:
    time.sleep(0.02)
print(left())
"""


def test_orphans_are_reaped_and_our_own_keep_their_exit_codes():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.splitlines() == ["{'sh: ended with exit code 7'}", "[]"]


def test_the_exit_code_of_a_child_of_our_own_stays_with_who_waits_for_it():
    with children.started(lambda: subprocess.Popen(["sh", "-c", "exit 7"])) as process:
        wait_until(lambda: process.pid in [each.pid for each in children.processes() if each.zombie])
        children.reap_orphans()
        assert process.wait() == 7

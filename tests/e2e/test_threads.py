"""A real sidecar runs the threads that the picture of docs/architecture.md shows."""

import os
import re
import subprocess
import sys

from tests.harness.waiting import PATIENCE
from tests.mutants import HERE
from tests.test_architecture import drawn

NOT_OURS = re.compile(r"Thread-\d+ \(_run\)")
"""gRPC's, one for each stream."""

ALWAYS = {"MainThread", "signals", "log", "local-watch", "remote-watch:…", "engine:…", "hooks:…", "on_problem:…",
          "presence", "asks", "requests", "control", "health", "gauges", "intents:…", "etcd-signs-of-life",
          "etcd-shared-watch"}  # fmt: skip
"""What a sidecar has from its start where all may be set that is; others come with a hold, a wait or a command."""

LOOK = """
import os, signal, sys, threading, time
from sidecar.__main__ import main

def look():
    end = time.monotonic() + float(sys.argv[2])
    names = set()
    while time.monotonic() < end and not set(sys.argv[3:]) <= names:
        time.sleep(0.05)
        names = {each.name for each in threading.enumerate()} - {"look"}
    print(*sorted(names), sep="\\n")
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=look, name="look", daemon=True).start()
sys.exit(main(["run", "--config", sys.argv[1]]))
"""


def test_a_sidecar_has_the_threads_of_the_picture(replica):
    one = replica("one", 'lease = "data"\non_change = ["true"]\non_problem = ["true"]')
    done = subprocess.run(
        [sys.executable, "-c", LOOK, one.settings, str(PATIENCE), *(name.replace("…", "data") for name in ALWAYS)],
        capture_output=True,
        text=True,
        timeout=2 * PATIENCE,
        env=one.environment | {"PYTHONPATH": os.fspath(HERE)},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    seen = {re.sub(":data$", ":…", name) for name in done.stdout.splitlines() if not NOT_OURS.fullmatch(name)}
    assert seen >= ALWAYS
    assert seen <= set(drawn())

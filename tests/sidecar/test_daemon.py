"""How the daemon ends."""

import subprocess
import sys

import pytest

WAIT = """
import signal, threading
from sidecar.daemon import _End
end = _End()
def strike():
    {strike}
threading.Timer(0.2, strike).start()
end.wait()
print("over", end.failed)
"""


@pytest.mark.parametrize(
    ("strike", "failed"),
    [("signal.pthread_kill(threading.get_ident(), signal.SIGTERM)", False), ("raise OSError", True)],
    ids=["a signal that another thread gets", "a thread that dies"],
)
def test_whatever_ends_it_wakes_the_main_thread(strike, failed):
    done = subprocess.run(
        [sys.executable, "-c", WAIT.format(strike=strike)], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout == f"over {failed}\n"

"""How the daemon ends, and what does not end it."""

import signal
import subprocess
import sys

import pytest

WAIT = """
import logging, os, signal, sys, threading
from sidecar.process.signals import Shutdown
logging.basicConfig(stream=sys.stdout, format="%(message)s", level="INFO")
said = threading.Event()
logging.getLogger("sidecar.process.signals").addFilter(lambda _: said.set() or True)
end = Shutdown()
def strike():
    {strike}
threading.Timer(0.2, strike).start()
end.wait()
print("over", end.failed, flush=True)
{after}
"""
KILL = "os.kill(os.getpid(), signal.{})"


def run(strike, after=""):
    script = WAIT.format(strike=strike, after=after)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize(
    ("strike", "failed"),
    [
        ("signal.pthread_kill(threading.get_ident(), signal.SIGTERM)", False),
        (KILL.format("SIGINT"), False),
        (KILL.format("SIGQUIT"), False),
        ("raise OSError", True),
    ],
    ids=["a signal that another thread gets", "interrupt", "quit", "a thread that dies"],
)
def test_whatever_ends_it_wakes_the_main_thread(strike, failed):
    done = run(strike)
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, f"over {failed}")


@pytest.mark.parametrize("name", ["SIGHUP", "SIGUSR1", "SIGUSR2"])
def test_what_is_no_order_to_end_is_said_and_ignored(name):
    done = run(f"{KILL.format(name)}; said.wait(); {KILL.format('SIGTERM')}")
    assert done.returncode == 0
    assert done.stdout.splitlines() == ["a signal is ignored", "got a signal", "over False"]


def test_a_second_signal_ends_it_at_once_whatever_it_is_doing():
    done = run(KILL.format("SIGTERM"), f"{KILL.format('SIGTERM')}; threading.Event().wait()")
    assert done.returncode == 128 + signal.SIGTERM

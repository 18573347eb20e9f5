"""What ends the daemon (a signal, or the death of a thread), and what the other signals do.

Python's handler in C writes each signal's number into a pipe (signal.set_wakeup_fd), which a thread of its own
reads. So a signal is acted on whatever the main thread does, and no code of ours runs inside a handler, where a
lock that the interrupted code holds would never be released. Called by `daemon.commands.run`.
"""

import logging
import os
import signal
import threading
from contextlib import suppress

from sidecar.process import children
from sidecar.reporting import logs

log = logging.getLogger(__name__)

_ENDING = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGQUIT})
_IGNORED = {
    signal.SIGHUP: "settings are read at the start; certificates, password files and the keyring are read again by"
    " themselves",
    signal.SIGUSR1: "this process made no log whose level could change",
    signal.SIGUSR2: "this process made no log whose level could change",
}
"""The signals that do not end the daemon, and the reason that the log gives."""

_LEVELS = {signal.SIGUSR1: "debug", signal.SIGUSR2: ""}
"""The log level that a signal sets; "": that of the settings."""

_FAILED = 0
"""Written into the pipe in place of a signal's number when a thread died."""


class Shutdown:
    """Waits for SIGTERM, SIGINT, SIGQUIT, or the death of any thread: half a daemon is worse than none.

    A second such signal ends the process at once, whatever it is doing. Make it once, in the main thread.
    failed: whether a thread died.
    """

    def __init__(self) -> None:
        self.failed = False
        self._over = threading.Event()
        self._ending = False
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)  # a full pipe must never block a handler
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        first = {signal.SIGCHLD} if os.getpid() == 1 else set()
        for number in _ENDING | _IGNORED.keys() | first:
            signal.signal(number, lambda *_: None)  # so that Python's C handler writes to the pipe
        threading.excepthook = self._fail
        threading.Thread(target=self._serve, args=(reader,), name="signals", daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait at most so many seconds (None: without end); returns whether the daemon is to end."""
        return self._over.wait(seconds)

    def _serve(self, reader: int) -> None:
        while True:
            for number in os.read(reader, 512):
                self._act(number)

    def _act(self, number: int) -> None:
        if number == _FAILED:
            self._over.set()
        elif number == signal.SIGCHLD:
            children.reap_orphans()
        elif number in _LEVELS and (level := logs.set_level(_LEVELS[signal.Signals(number)])):
            name = signal.Signals(number).name
            log.warning("the log level is another now", extra={"signal": name, "log_level": level})
        elif number in _IGNORED:
            why = _IGNORED[signal.Signals(number)]
            log.warning("a signal is ignored", extra={"signal": signal.Signals(number).name, "reason": why})
        elif self._ending:
            os._exit(128 + number)
        else:
            self._ending = True
            log.info("got a signal", extra={"signal": signal.Signals(number).name})
            self._over.set()

    def _fail(self, failure: threading.ExceptHookArgs) -> None:
        name = failure.thread.name if failure.thread else "?"
        log.critical("a thread died; stopping", extra={"in": name}, exc_info=failure.exc_value)
        self.failed = True
        with suppress(BlockingIOError):
            os.write(self._writer, bytes([_FAILED]))

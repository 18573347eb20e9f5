"""What ends the daemon, and what does not: signals, orphans of a container's process 1, and threads that die.

The handler in C writes each signal's number into a pipe, which a thread of its own reads. So a signal is acted on
whatever the main thread does, and nothing is done inside a handler, where a lock or a full pipe could stand in the
way. Called by `daemon.run`.
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
    signal.SIGUSR1: "the log is not ours",
    signal.SIGUSR2: "the log is not ours",
}
"""What does not end it, and why nothing comes of it."""

_LEVELS = {signal.SIGUSR1: "debug", signal.SIGUSR2: ""}
"""Which log level a signal asks for; "": the one of the settings. The same signal twice changes nothing more."""

_FAILED = 0
"""In place of a signal's number: a thread died."""


class End:
    """SIGTERM, SIGINT, SIGQUIT, or the death of any thread: half a daemon is worse than none.

    A second such signal ends the process at once, whatever it is doing. Make it in the main thread, once.
    """

    def __init__(self) -> None:
        self.failed = False
        self._over = threading.Event()
        self._ending = False
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        first = {signal.SIGCHLD} if os.getpid() == 1 else set()
        for number in _ENDING | _IGNORED.keys() | first:
            signal.signal(number, lambda *_: None)  # the pipe tells
        threading.excepthook = self._fail
        threading.Thread(target=self._serve, args=(reader,), name="signals", daemon=True).start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for it, for at most so many seconds; returns whether it has come."""
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

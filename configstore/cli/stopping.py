"""SIGINT and SIGTERM as the regular end of a command that runs until stopped.

The work runs in a thread, and the main thread waits for a signal or for the end of the work. An exception from a
signal handler could be lost in a destructor, or leave a lock held.
"""

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Self


class Stopping:
    """A block in which these signals only end `run`, also those that come before it is called."""

    def __enter__(self) -> Self:
        """Install the handlers; in the main thread only."""
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)

        def note(_number: int, _frame: FrameType | None) -> None:
            with contextlib.suppress(BlockingIOError):
                os.write(self._writer, b"s")

        self._before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        self._wakeup = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Restore the previous handlers."""
        signal.set_wakeup_fd(self._wakeup)
        for number, before in self._before.items():
            signal.signal(number, before)
        os.close(self._reader)
        os.close(self._writer)

    def run(self, work: Callable[[], None], stop: Callable[[], None]) -> bool:
        """Do `work` in a thread; on a signal call `stop`, which must make `work` end.

        Returns whether a signal came. Raises what `work` raised, unless a signal came.
        """
        failure: list[BaseException] = []
        done = threading.Event()

        def labour() -> None:
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - raised again in the main thread
                failure.append(error)
            finally:
                done.set()
                os.write(self._writer, b"d")

        thread = threading.Thread(target=labour, name="work", daemon=True)
        thread.start()
        os.read(self._reader, 1)
        finished = done.is_set()
        if not finished:
            stop()
        thread.join()
        if finished and failure:
            raise failure[0]
        return not finished

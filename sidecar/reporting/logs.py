"""Log lines with fields, as text or as JSON. Fields name paths, counts and reasons; never content.

Use `log.info("what happened", extra={...})`; every extra becomes a field.

Nobody who logs ever waits: stderr may be a pipe whose reader hangs, and a mirror that stands still for its log
would be worse than a lost line. Lines go into a bounded queue, from which a thread of its own writes; what does
not fit is dropped and counted, and the log says so once it is read again.
"""

import logging
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from configstore.model.path import printable, printable_json

QUEUE = 256 * 1024
"""Bytes of lines that wait for the pipe; more are dropped."""

LINE = 8000
"""Bytes of the longest line: log drivers cut, or refuse, what is longer than 8 to 16 kB."""

NAMES = 20
"""Names of a list that a line shows; of the others only the number."""

FLUSH = 1.0
"""Seconds for which the end waits for what is queued."""

_STDERR = 2
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CUTS = (4000, 1000, 200, 60)  # characters of one value, tried in turn until the line is short enough


class Lines:
    """Lines on their way to a descriptor, written by a thread of their own."""

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        """`lost` returns the line that says how many lines were dropped."""
        self.dropped = 0
        self._descriptor = descriptor
        self._lost = lost
        self._told = 0  # of `dropped`
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Queue a line, or drop it when the queue is full; never waits for the descriptor."""
        encoded = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._size + len(encoded) > QUEUE:
                self.dropped += 1
                return
            self._tell_of_loss()
            self._append(encoded)

    def flush(self, patience: float) -> None:
        """Wait until everything queued is written, at most `patience` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._queue or self._writing), patience)

    def _append(self, line: bytes) -> None:
        self._queue.append(line)
        self._size += len(line)
        self._changed.notify_all()

    def _tell_of_loss(self) -> None:
        """Queue the number of lines that were lost here, now that there is room again."""
        if self.dropped > self._told:
            lost, self._told = self.dropped - self._told, self.dropped
            self._append(self._lost(lost).encode() + b"\n")

    def _write(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                if not self._queue:
                    self._tell_of_loss()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue)
                line = self._queue.popleft()
                self._size -= len(line)
                self._writing = True
            with suppress(OSError):  # a reader that is gone for good, or a full disk: there is nobody to tell
                _write_all(self._descriptor, line)


def _write_all(descriptor: int, text: bytes) -> None:
    while text:
        try:
            text = text[os.write(descriptor, text) :]
        except BlockingIOError:  # somebody who shares the pipe has set it so
            time.sleep(0.05)


class _QueueHandler(logging.Handler):
    """Formats where it is called, so that a field shows what it was then, and queues the line."""

    def __init__(self, form: logging.Formatter, level: str) -> None:
        """`level`: that of the settings."""
        super().__init__()
        self.usual = level
        self.setFormatter(form)
        self.lines = Lines(_STDERR, self._words_of_loss)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.put(self.format(record))
        except Exception:  # noqa: BLE001  # a line that cannot be made must not stop the mirror
            self.lines.put(f"{_now()} error a log line of {printable(record.name)} could not be made")

    def _words_of_loss(self, lost: int) -> str:
        words = "log lines were lost, since nobody read them"
        record = logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": words,
                                        "threadName": "log", "lines": lost})  # fmt: skip
        return self.format(record)


@contextmanager
def configured(level: str, form: str) -> Iterator[None]:
    """Send log lines of `level` and above to stderr, in the form `text` or `json`; flush them at the end."""
    handler = _QueueHandler(_JsonLines() if form == "json" else _TextLines(), level)
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    try:
        yield
    finally:
        flush()


def set_level(level: str) -> str:
    """Log from `level` on ("": that of the settings) and return it; "" where the log is not ours."""
    for each in logging.getLogger().handlers:
        if isinstance(each, _QueueHandler):
            level = level or each.usual
            logging.getLogger().setLevel(level.upper())
            return level
    return ""


def dropped() -> int:
    """Return how many lines were lost so far."""
    return sum(each.lines.dropped for each in logging.getLogger().handlers if isinstance(each, _QueueHandler))


def flush() -> None:
    """Wait until what is queued is written, but not for ever."""
    for each in logging.getLogger().handlers:
        if isinstance(each, _QueueHandler):
            each.lines.flush(FLUSH)


def say(words: str) -> None:
    """Write words for a person to stderr, and wait for that no longer than for the log."""
    lines = Lines(_STDERR, str)
    for line in words.splitlines():
        lines.put(printable(line))
    lines.flush(FLUSH)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {
        name: value for name, value in vars(record).items() if name not in _STANDARD and value not in ([], None)
    }
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def _now() -> str:
    return _time(logging.makeLogRecord({}))


class _Bounded(logging.Formatter):
    """Formats a record so that the line is never too long: its values are cut more and more until it fits."""

    def format(self, record: logging.LogRecord) -> str:
        fields, message = _fields(record), record.getMessage()
        line = ""
        for cut in _CUTS:
            shown = {name: _shortened(value, cut, tail=name == "exception") for name, value in fields.items()}
            line = self.line(record, str(_shortened(message, cut)), shown)
            if len(line.encode("utf-8", "backslashreplace")) <= LINE:
                break
        return line

    def line(self, record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
        raise NotImplementedError


class _TextLines(_Bounded):
    def line(self, record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
        words = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{_time(record)} {record.levelname.lower()} {printable(message)}{words}"


class _JsonLines(_Bounded):
    def line(self, record: logging.LogRecord, message: str, fields: dict[str, Any]) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": message,
            "thread": record.threadName,
            **fields,
        }
        return printable_json(msgspec.json.encode(line, enc_hook=str).decode())


def _shortened(value: object, cut: int, *, tail: bool = False) -> object:
    """Return a value of which a text has at most `cut` characters (its end, with `tail`), a list NAMES items."""
    if isinstance(value, list | tuple | set):
        names = sorted(map(str, value)) if isinstance(value, set) else list(map(str, value))
        more = [f"… and {len(names) - NAMES} more"] if len(names) > NAMES else []
        each = cut // max(1, min(len(names), NAMES))
        return [_shortened(name, each) for name in names[:NAMES]] + more
    if not isinstance(value, str) or len(value) <= cut:
        return value
    return f"…{value[-cut:]}" if tail else f"{value[:cut]}…"


def _shown(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list) else str(value)
    text = printable(text)
    return f'"{text}"' if " " in text or not text else text

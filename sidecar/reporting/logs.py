"""Log lines with fields, as text or as JSON. Fields name paths, counts and reasons; never content.

Use `log.info("what happened", extra={...})`; every extra becomes a field.

Logging never blocks: stderr may be a pipe whose reader hangs, and a mirror that stands still for its log would be
worse than a lost line. Lines go into a bounded queue, from which a thread of its own writes. A line that does not
fit is dropped and counted, and the log reports the number once it is read again.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec

from configstore.files.writing import write_all
from configstore.model.path import printable, printable_json

QUEUE = 256 * 1024
"""Bytes of lines that may wait for the pipe; further lines are dropped."""

LINE = 8000
"""Bytes of a line at most: log drivers cut, or refuse, lines longer than 8 to 16 kB."""

NAMES = 20
"""Items of a list that a line shows; of the others it says the number."""

FLUSH = 1.0
"""Seconds for which the end of the process waits for queued lines."""

_STDERR = 2
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_CUTS = (4000, 1000, 200, 60)  # characters of one value, tried in turn until the line is short enough


class Lines:
    """The queue of lines to a descriptor, and the thread that writes them. dropped: how many did not fit."""

    def __init__(self, descriptor: int, lost: Callable[[int], str]) -> None:
        """`lost` returns the line that reports a number of dropped lines."""
        self.dropped = 0
        self._descriptor = descriptor
        self._lost = lost
        self._reported = 0  # of `dropped`
        self._queue: deque[bytes] = deque()
        self._size = 0
        self._writing = False
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="log", daemon=True).start()

    def put(self, line: str) -> None:
        """Queue a line, or drop it when the queue is full; never waits."""
        encoded = line.encode("utf-8", "backslashreplace") + b"\n"
        with self._changed:
            if self._size + len(encoded) > QUEUE:
                self.dropped += 1
                return
            self._report_loss()
            self._append(encoded)

    def flush(self, patience: float) -> None:
        """Wait until all queued lines are written, at most `patience` seconds."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._queue or self._writing), patience)

    def _append(self, line: bytes) -> None:
        self._queue.append(line)
        self._size += len(line)
        self._changed.notify_all()

    def _report_loss(self) -> None:
        """Queue the number of lines that were dropped at this point, since there is room again."""
        if self.dropped > self._reported:
            lost, self._reported = self.dropped - self._reported, self.dropped
            self._append(self._lost(lost).encode() + b"\n")

    def _write(self) -> None:
        while True:
            with self._changed:
                self._writing = False
                if not self._queue:
                    self._report_loss()
                self._changed.notify_all()
                self._changed.wait_for(lambda: self._queue)
                line = self._queue.popleft()
                self._size -= len(line)
                self._writing = True
            with suppress(OSError):  # the reader is gone, or the disk is full: the line is lost
                write_all(self._descriptor, line)


class _QueueHandler(logging.Handler):
    """Formats a record at once, so that a field shows its value of that moment, and queues the line."""

    def __init__(self, form: logging.Formatter, level: str) -> None:
        """`level` is that of the settings."""
        super().__init__()
        self.usual = level
        self.setFormatter(form)
        self.lines = Lines(_STDERR, self._line_of_loss)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            self.lines.put(self.format(record))
        except Exception:  # noqa: BLE001  # a line that cannot be formatted must not stop the mirror
            self.lines.put(f"{_now()} error a log line of {printable(record.name)} could not be made")

    def _line_of_loss(self, lost: int) -> str:
        message = "log lines were lost, since nobody read them"
        fields = {"levelno": logging.WARNING, "levelname": "WARNING", "threadName": "log", "lines": lost}
        return self.format(logging.makeLogRecord({"msg": message, **fields}))


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
    """Log from `level` on ("": that of the settings) and return it; "" if `configured` made no log."""
    for each in _handlers():
        level = level or each.usual
        logging.getLogger().setLevel(level.upper())
        return level
    return ""


def dropped() -> int:
    """Return how many lines were dropped so far."""
    return sum(each.lines.dropped for each in _handlers())


def flush() -> None:
    """Wait until all queued lines are written, at most FLUSH seconds."""
    for each in _handlers():
        each.lines.flush(FLUSH)


def _handlers() -> list[_QueueHandler]:
    return [each for each in logging.getLogger().handlers if isinstance(each, _QueueHandler)]


def say(text: str) -> None:
    """Write a text for a person to stderr, and wait for that at most FLUSH seconds."""
    lines = Lines(_STDERR, str)
    for line in text.splitlines():
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
    """Formats a record as a line of at most LINE bytes: its values are cut shorter and shorter until it fits."""

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
        shown = "".join(f" {name}={_shown(value)}" for name, value in fields.items())
        return f"{_time(record)} {record.levelname.lower()} {printable(message)}{shown}"


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
    """Return a value with texts of at most `cut` characters (with `tail` their ends), and lists of NAMES items."""
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

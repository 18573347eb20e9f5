"""Log lines with fields, as text or as JSON. Fields name paths, counts and reasons; never content.

Use `log.info("what happened", extra={...})`; every extra becomes a field.
"""

import logging
import sys
from typing import Any

import msgspec

from configstore.model.path import printable

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def configure(level: str, form: str) -> None:
    """Send log lines of `level` and above to stderr, in the form `text` or `json`."""
    target = logging.StreamHandler(sys.stderr)
    target.setFormatter(_JsonLines() if form == "json" else _TextLines())
    logging.basicConfig(level=level.upper(), handlers=[target], force=True)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields = {
        name: value for name, value in vars(record).items() if name not in _STANDARD and value not in ([], None)
    }
    if record.exc_info:
        fields["exception"] = logging.Formatter().formatException(record.exc_info)
    return fields


def _time(record: logging.LogRecord) -> str:
    stamp = logging.Formatter.default_time_format.replace(" ", "T")
    return f"{logging.Formatter(datefmt=stamp).formatTime(record, stamp)}.{int(record.msecs):03d}"


class _TextLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={_shown(value)}" for name, value in _fields(record).items())
        return f"{_time(record)} {record.levelname.lower()} {printable(record.getMessage())}{fields}"


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            "thread": record.threadName,
            **_fields(record),
        }
        return msgspec.json.encode(line, enc_hook=str).decode()


def _shown(value: object) -> str:
    text = ",".join(map(str, value)) if isinstance(value, list | tuple | set) else str(value)
    text = printable(text)
    return f'"{text}"' if " " in text or not text else text

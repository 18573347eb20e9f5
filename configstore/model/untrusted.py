"""The only decoder of JSON that anybody may have written: headers, reports, requests, queue entries, bodies.

1. For any bytes, `decode` returns a value of the wanted type or raises UntrustedError, whose text may be shown.
2. It limits size and nesting, and refuses text that two readers could read differently.
3. Text that configstore wrote itself is recognised cheaply: if the value encodes to the same bytes again, there
   were no doubled keys, unknown fields or bad UTF-8. Only other text is read a second time, by `_check`.
"""

import json
import re
from typing import NoReturn, TypeVar

import msgspec

from configstore.model.path import printable

LIMIT = 64 * 1024
"""Bytes of JSON that are read by default; the longest header of a record has half as many."""

MAX_DEPTH = 32
"""Levels of nested arrays and objects, at most."""

MAX_DIGITS = 20
"""Digits of a whole number, at most: a few more than 64 bits need."""

_REASON = 200
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")

T = TypeVar("T")


class UntrustedError(ValueError):
    """The bytes cannot be read; the message says why in one printable line of about 200 characters at most."""


def decode(text: bytes, decoder: msgspec.json.Decoder[T], *, limit: int = LIMIT) -> T:
    """Return the value of JSON that anybody may have written.

    decoder: for a type of bounded nesting, such as a Struct. limit: bytes, at most.
    Raises UntrustedError and nothing else: neither RecursionError nor OverflowError.
    """
    if len(text) > limit:
        raise UntrustedError(f"{len(text)} bytes of JSON, at most {limit} are read")
    try:
        value = decoder.decode(text)
        if _encoder.encode(value) != text:
            _check(text.decode())
    except UntrustedError:
        raise
    except RecursionError:
        raise UntrustedError("malformed JSON: nested too deep") from None
    except OverflowError:
        raise UntrustedError("a number of more than 64 bits") from None
    except UnicodeDecodeError:
        raise UntrustedError("malformed JSON: not UTF-8") from None
    except msgspec.ValidationError as error:  # its text names a field and types, or an unknown value
        raise UntrustedError(_short(str(error))) from None
    except ValueError:  # of msgspec or json, whose text would quote the bytes
        raise UntrustedError("malformed JSON") from None
    return value


def _check(text: str) -> None:
    """Raise UntrustedError for faults that the typed decoder lets pass, even in a field that it skips."""
    depth = 0
    for bracket in _BRACKET.findall(_STRING.sub("", text)):
        depth += 1 if bracket in "[{" else -1
        if depth > MAX_DEPTH:
            raise UntrustedError(f"malformed JSON: nested deeper than {MAX_DEPTH}")
    json.loads(text, object_pairs_hook=_object, parse_int=_whole_number, parse_constant=_constant)


def _object(pairs: list[tuple[str, object]]) -> None:
    names = {name for name, _ in pairs}
    if len(names) != len(pairs):
        raise UntrustedError("malformed JSON: a key twice in one object")


def _whole_number(digits: str) -> None:
    if len(digits.lstrip("-")) > MAX_DIGITS:
        raise UntrustedError("a number of more than 64 bits")


def _constant(name: str) -> NoReturn:
    raise UntrustedError(f"malformed JSON: {name}")


def _short(reason: str) -> str:
    return printable(reason if len(reason) <= _REASON else f"{reason[:_REASON]}…")


_encoder = msgspec.json.Encoder()

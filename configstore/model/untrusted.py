"""The one decoder of JSON that a stranger may have written: headers, reports, requests, claims, a socket's bodies.

Whatever the bytes are, `decode` returns a value of the wanted type or raises UntrustedError with a reason that may
be shown to a person: it bounds size and nesting, and refuses what two readers could read differently.

What we wrote ourselves is told apart cheaply: a value that is encoded to the very same bytes again came from text
without doubled keys, unknown fields or bad UTF-8. Only other text is read a second time, by `_judge`.
"""

import json
import re
from typing import NoReturn, TypeVar

import msgspec

from configstore.model.path import printable

LIMIT = 64 * 1024
"""Bytes of JSON that are read unless a caller says otherwise; the longest header of a record is half of it."""

MAX_DEPTH = 32
"""How deep arrays and objects may be nested."""

MAX_DIGITS = 20
"""Digits of the longest whole number, a bit more than 64 bits have."""

_REASON = 200
_STRING = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"', re.DOTALL)
_BRACKET = re.compile(r"[\[\]{}]")

T = TypeVar("T")


class UntrustedError(ValueError):
    """The bytes cannot be read; the message says why in one printable line of at most some 200 characters."""


def decode(text: bytes, decoder: msgspec.json.Decoder[T], *, limit: int = LIMIT) -> T:
    """Return the value of JSON that anybody may have written.

    decoder: of a type with a bounded nesting, such as a Struct. limit: the most bytes that are read.
    Raises UntrustedError, and nothing else: neither RecursionError nor OverflowError.
    """
    if len(text) > limit:
        raise UntrustedError(f"{len(text)} bytes of JSON, at most {limit} are read")
    try:
        value = decoder.decode(text)
        if _encoder.encode(value) != text:
            _judge(text.decode())
    except UntrustedError:
        raise
    except RecursionError:
        raise UntrustedError("malformed JSON: nested too deep") from None
    except OverflowError:
        raise UntrustedError("a number of more than 64 bits") from None
    except UnicodeDecodeError:
        raise UntrustedError("malformed JSON: not UTF-8") from None
    except msgspec.ValidationError as error:  # names a field and types, or a word that is none of an enumeration
        raise UntrustedError(_short(str(error))) from None
    except ValueError:  # of msgspec or of json; their words quote the text
        raise UntrustedError("malformed JSON") from None
    return value


def _judge(text: str) -> None:
    """Raise UntrustedError for what the typed decoder lets pass, be it in a field that it skips."""
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

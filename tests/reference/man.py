"""Man pages: roff with the macros of man(7), which groff and mandoc know.

They carry the version, and no date: the same code makes the same page.
"""

import re
from collections.abc import Iterable, Iterator

from tests.reference.commandline import Argument, Command, Program
from tests.reference.markdown import sentence


def man_page(
    program: Program, *, version: str, about: str, exit_codes: Iterable[tuple[int, str]], see: str
) -> str:
    """Return the page of a program, for section 1. `about`: what it is, in a few words."""
    lines = [
        '.\\" Made from the code by "make reference".',
        f'.TH {program.top.name.upper()} 1 "" "configstore {version}" "configstore"',
        ".nh",
        ".SH NAME",
        f"{roff(program.top.name)} \\- {roff(about)}",
        ".SH SYNOPSIS",
        *_usage(program.top),
        ".SH DESCRIPTION",
        roff(sentence(program.top.words)),
        *_arguments(program.top.arguments),
        *_notes(program.top.notes),
    ]
    if program.common:
        lines += [".SH OPTIONS OF EVERY COMMAND", *_arguments(program.common)]
    lines += [".SH COMMANDS", *list(_notes(program.notes))[1:]]  # a section begins with a paragraph by itself
    for command in program.commands:
        lines += _command(command)
    lines.append(".SH EXIT STATUS")
    for number, words in exit_codes:
        lines += [".TP", f".B {number}", roff(words)]
    lines += [".SH SEE ALSO", roff(see)]
    return "\n".join(lines) + "\n"


def _command(command: Command) -> Iterator[str]:
    yield f".SS {roff(command.name)}"
    yield from _usage(command)
    yield ".PP"
    yield roff(sentence(command.words))
    yield from _arguments(argument for argument in command.arguments if argument.words)
    yield from _notes(command.notes)


def _usage(command: Command) -> Iterator[str]:
    """Yield a usage line, with literal words in bold."""
    words = " ".join(command.usage).replace("\\", "\\e")
    words = re.sub(r"(?<![\w-])(--?[a-z][a-z-]*)", r"\\fB\1\\fR", words)
    yield f"\\fB{roff(command.name)}\\fR {roff(words, escaped=True)}".rstrip()


def _arguments(arguments: Iterable[Argument]) -> Iterator[str]:
    for argument in arguments:
        yield ".TP"
        yield f"\\fB{roff(argument.written)}\\fR"
        yield roff(argument.words)


def _notes(notes: Iterable[str]) -> Iterator[str]:
    """Yield paragraphs; those with indented lines, such as examples, unchanged."""
    for note in notes:
        yield ".PP"
        if "\n " in note:
            yield ".nf"
            yield from (roff(line) or "\\&" for line in note.splitlines())
            yield ".fi"
        else:
            yield roff(sentence(" ".join(note.split())))


def roff(text: str, *, escaped: bool = False) -> str:
    """Return text for a page, all of it meaning itself; `escaped`: its backslashes are roff's already."""
    text = text if escaped else text.replace("\\", "\\e").replace("`", "")
    text = text.replace("-", "\\-").replace("'", "\\(aq")
    text = "".join(char if char.isascii() else f"\\[u{ord(char):04X}]" for char in text)
    return f"\\&{text}" if text.startswith(".") else text

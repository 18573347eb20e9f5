"""Pages of Markdown, as a forge and the site show them."""

import re
from collections.abc import Iterable, Iterator, Sequence

from tests.reference.commandline import Argument, Command, Program

MADE = "<!-- Made from the code by `make reference`; what is written here by hand is lost. -->"


def table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of cells that are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(re.sub(r"\|  (?=\|)", "| ", f"| {' | '.join(cells)} |") for cells in lines)


def plain(text: str) -> str:
    """Return words of the code as Markdown: `code` in backquotes stays, all else means itself."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(
        part.replace("|", r"\|") if number % 2 else re.sub(r"([\\*_<>\[\]|])", r"\\\1", part)
        for number, part in enumerate(parts)
    )


def code(text: str) -> str:
    """Return code in a cell."""
    return f"`{text}`".replace("|", r"\|")


def sentence(text: str) -> str:
    """Return words as a sentence."""
    return f"{text[:1].upper()}{text[1:]}{'' if text.endswith(('.', ':')) else '.'}" if text else ""


def program_page(program: Program, *, before: str) -> str:
    """Return the page of a program; `before` is what leads into it."""
    return "\n\n".join([MADE, f"# Arguments of `{program.top.name}`", before, *_program(program)]) + "\n"


def _program(program: Program) -> Iterator[str]:
    yield _block(usage(program.top))
    yield sentence(plain(program.top.words))
    if program.top.arguments:
        yield _arguments(program.top.arguments)
    yield from _notes(program.top.notes)
    if program.common:
        yield "## Options of every command"
        yield _arguments(program.common)
    yield "## Commands"
    yield from _notes(program.notes)
    for command in program.commands:
        yield f"### `{command.name}`"
        yield sentence(plain(command.words))
        yield _block(usage(command))
        if any(argument.words for argument in command.arguments):
            yield _arguments(argument for argument in command.arguments if argument.words)
        yield from _notes(command.notes)


def usage(command: Command, *, width: int = 100) -> str:
    """Return a usage line, broken where it is too long, but not within what belongs together."""
    lines = [command.name]
    for word in command.usage:
        if len(lines[-1]) + len(word) < width:
            lines[-1] += f" {word}"
        else:
            lines.append(f"    {word}")
    return "\n".join(lines)


def _arguments(arguments: Iterable[Argument]) -> str:
    return table(
        ["argument", "what it says"],
        [[code(argument.written), plain(argument.words)] for argument in arguments],
    )


def _notes(notes: Iterable[str]) -> Iterator[str]:
    """Yield paragraphs; those with indented lines, such as examples, unchanged."""
    for note in notes:
        yield _block(note) if "\n " in note else sentence(plain(" ".join(note.split())))


def _block(text: str) -> str:
    return f"```text\n{text}\n```"

"""What a command line takes, read from its argparse parsers: one walk for the pages and for the man pages."""

import argparse
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Argument:
    """An option or a positional: how it is written, and what it is for."""

    written: str
    words: str


@dataclass(frozen=True, kw_only=True)
class Command:
    """One parser. `usage` has words that are not split at a line's end; `notes` is the text below its help."""

    name: str
    usage: tuple[str, ...]
    words: str
    arguments: tuple[Argument, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Program:
    """A program: its own parser, what all of its commands take and say, and the commands without that."""

    top: Command
    common: tuple[Argument, ...]
    notes: tuple[str, ...]
    commands: tuple[Command, ...]


def read(parser: argparse.ArgumentParser) -> Program:
    """Return what a program's parser takes.

    What the program itself takes, or every command of two and more, is common: a command does not repeat it. So
    is a paragraph that most of them say.
    """
    commands = list(_parsers(parser))
    taken = [{_argument(each, action) for action in _shown(each)} for _, each in commands]
    own = [_argument(parser, action) for action in _shown(parser)]
    everywhere = set.intersection(*taken) if len(taken) > 1 else set()
    repeated = {each for each in own if any(each in arguments for arguments in taken)} | everywhere
    first = [_argument(commands[0][1], action) for action in _shown(commands[0][1])] if commands else []
    common = tuple(each for each in dict.fromkeys([*own, *first]) if each in repeated)
    found = tuple(_command(each, words, repeated) for words, each in commands)
    said = Counter(note for command in found for note in command.notes)
    notes = tuple(note for note, times in said.items() if times > max(1, len(found) // 2))
    return Program(
        top=_command(parser, "", repeated),
        common=common,
        notes=notes,
        commands=tuple(
            replace(each, notes=tuple(note for note in each.notes if note not in notes)) for each in found
        ),
    )


def _parsers(parser: argparse.ArgumentParser) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """Yield every command below a parser, once, with its line in the list of commands."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            lines = {choice.dest: choice.help or "" for choice in action._choices_actions}
            for name, each in action.choices.items():
                if name in lines and lines[name] != argparse.SUPPRESS:
                    yield lines[name], each
                    yield from _parsers(each)


def _command(
    parser: argparse.ArgumentParser, words: str, repeated: set[Argument] | frozenset[Argument]
) -> Command:
    own = [action for action in _shown(parser) if _argument(parser, action) not in repeated]
    return Command(
        name=parser.prog,
        usage=tuple(_usage(parser, own)),
        words=(parser.description or words).strip() % {"prog": parser.prog},
        arguments=tuple(_argument(parser, action) for action in own),
        notes=tuple(filter(None, ((parser.epilog or "") % {"prog": parser.prog}).strip("\n").split("\n\n"))),
    )


def _shown(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return [
        action
        for action in parser._actions
        if action.help != argparse.SUPPRESS
        and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]


def _usage(parser: argparse.ArgumentParser, own: list[argparse.Action]) -> Iterator[str]:
    """Yield the words of a usage line: options first, those of which one is taken together."""
    apart = {id(action): group for group in parser._mutually_exclusive_groups for action in group._group_actions}
    done = set()
    for action in (each for each in own if each.option_strings):
        group = apart.get(id(action))
        if group is None:
            yield _optional(_written(action, longest=True), required=action.required)
        elif id(group) not in done:
            done.add(id(group))
            members = [_written(each, longest=True) for each in own if apart.get(id(each)) is group]
            yield _optional(" | ".join(members), required=group.required, choice=True)
    for action in own:
        if not action.option_strings:
            yield _written(action)
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield f"{action.metavar or 'COMMAND'} …"


def _optional(text: str, *, required: bool, choice: bool = False) -> str:
    if required:
        return f"({text})" if choice else text
    return f"[{text}]"


def _argument(parser: argparse.ArgumentParser, action: argparse.Action) -> Argument:
    words = (action.help or "") % {**vars(action), "prog": parser.prog}
    if not words and action.choices:
        words = f"one of {', '.join(map(str, action.choices))}"
    return Argument(written=_written(action), words=" ".join(words.split()))


def _written(action: argparse.Action, *, longest: bool = False) -> str:
    """Return how an argument is typed: `-o, --output FILE`, or `--output FILE` alone, or `[PATH]`."""
    value = _value(action)
    if not action.option_strings:
        return value
    names = [max(action.option_strings, key=len)] if longest else action.option_strings
    return " ".join(filter(None, [", ".join(names), value]))


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    metavar = action.metavar
    if metavar is None:
        metavar = "{" + ",".join(map(str, action.choices)) + "}" if action.choices else action.dest.upper()
    if isinstance(metavar, tuple):
        return " ".join(metavar)
    shapes = {"?": "[{0}]", "*": "[{0} …]", "+": "{0} [{0} …]", argparse.REMAINDER: "{0} …"}
    if isinstance(action.nargs, int):
        return " ".join([metavar] * action.nargs)
    return shapes.get(action.nargs or "", "{0}").format(metavar)

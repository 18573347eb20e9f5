"""What the command lines `configstore` and `configstore-sidecar` share.

A parser that repeats no secret, open standard files, completion scripts.
"""

import argparse
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Never

from configstore.model.path import printable
from configstore.parsing import meant, nearest

_VALUE = re.compile(
    r"(?P<what>invalid choice): .*(?P<choices> \(choose from .*)|(?P<type>invalid \S+ value): .*"
    r"|(?P<flag>ignored explicit argument) .*",
    re.DOTALL,
)
"""The parts of argparse's errors about a value; the value itself, which they quote, is in none of the groups."""


def occupy_standard_files() -> None:
    """Open the null device in place of stdin, stdout and stderr where the caller has closed them (`2>&-`).

    Call it first: otherwise the next socket or file gets the number, and errors are written into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # gets the lowest free number, which is this one
            os.set_inheritable(number, True)
    for name, number in (("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            setattr(sys, name, os.fdopen(number, "w", closefd=False))


class _Form(argparse.HelpFormatter):
    """The formatter of argparse, but for texts of several lines, such as examples, whose lines it keeps."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if "\n" in text:
            return "\n".join(f"{indent}{line}" for line in text.splitlines())
        return super()._fill_text(text, width, indent)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that takes no abbreviations and never repeats a value in an error.

    Behind an unknown option, such as `--password`, any word may be a secret, also one that argparse then takes for
    a command or for another argument. An error names only options, commands and what was probably meant.
    """

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401 - as argparse passes them on
        super().__init__(**{"allow_abbrev": False, "formatter_class": _Form, **kwargs})
        self._words: tuple[str, ...] = ()

    @property
    def commands(self) -> dict[str, "Parser"]:
        """The parsers of the commands, by name."""
        found = [each for each in self._actions if isinstance(each, argparse._SubParsersAction)]  # noqa: SLF001 - no public name
        return dict(found[0].choices) if found else {}

    @property
    def options(self) -> set[str]:
        """The options of this parser, without those of its commands."""
        return {option for each in self._actions for option in each.option_strings}

    def list_commands(self, groups: Mapping[str, Collection[str]]) -> None:
        """Have the help list the commands in groups, by their titles."""
        (commands,) = (each for each in self._actions if isinstance(each, argparse._SubParsersAction))  # noqa: SLF001 - as above
        listed = {each.dest: each for each in commands._get_subactions()}  # noqa: SLF001 - as argparse does
        others = [group for group in self._action_groups if commands not in group._group_actions]  # noqa: SLF001 - as above
        self._action_groups = []
        for title, names in groups.items():
            self.add_argument_group(title)._group_actions.extend(listed[name] for name in names)  # noqa: SLF001 - as above
        self._action_groups += others

    def parse_args(  # type: ignore[override]  # argparse's is generic in the namespace
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> argparse.Namespace:
        """Return the parsed arguments; exit with 2 where one is unknown.

        A command's default `late` names its last, optional positional argument, which argparse does not take when
        an option comes before it.
        """
        self._words = tuple(sys.argv[1:] if args is None else args)
        found, extra = self.parse_known_args(args, namespace)
        late = getattr(found, "late", None)
        if late and len(extra) == 1 and not extra[0].startswith("-") and getattr(found, late) is None:
            setattr(found, late, extra.pop())
        if extra:
            unknown = _without_values(extra)
            self.error(f"unrecognized arguments: {printable(unknown)}{self._meant(unknown)}")
        return found

    def error(self, message: str) -> Never:
        """Exit with 2 and print why, without the wrong value."""
        found = _VALUE.search(message)
        if found and found["what"] and message.startswith("argument COMMAND:"):
            message = self._no_command()
        super().error(_VALUE.sub(lambda found: "".join(filter(None, found.groups())), message))

    def _no_command(self) -> str:
        """Return the error about a word that is no command, or about an unknown option before it."""
        known = self.options
        before = []
        for word in self._words:
            if word in self.commands:
                break
            before.append(word)
        unknown = [word for word in before if word.startswith("-") and word.partition("=")[0] not in known]
        if unknown:
            shown = _without_values(unknown)
            return f"unrecognized arguments: {printable(shown)}{self._meant(shown)}"
        close = [name for word in before if not word.startswith("-") for name in nearest(word, self.commands)]
        hint = f"; did you mean `{close[0]}`?" if close else ""
        return f"no such command{hint} (`{self.prog} --help` lists them)"

    def _meant(self, unknown: str) -> str:
        """Return a hint at the option of this parser, or of the typed command, that was probably meant."""
        typed = next((self.commands[word] for word in self._words if word in self.commands), self)
        options = {option for option in (*self.options, *typed.options) if option.startswith("--")}
        return meant(unknown, options) if unknown.startswith("--") else ""


def _without_values(extra: Sequence[str]) -> str:
    """Return the first option among unknown arguments, without its value; without an option, all arguments."""
    for word in extra:
        if word.startswith("-"):
            return word.partition("=")[0] if word.startswith("--") else word[:2]
    return " ".join(extra)


SHELLS = ("bash", "zsh", "fish", "tcsh")
"""The shells that have a completion script."""


def completion_script(parser: Parser, shell: str) -> str:
    """Return the completion script of a shell. It completes files and folders where the metavar is FILE or DIR."""
    import shtab  # noqa: PLC0415 - only this needs it

    kinds = {"FILE": shtab.FILE, "DIR": shtab.DIRECTORY}
    texts = {action.dest: action.help for action in parser._actions}  # noqa: SLF001 - argparse has no other way
    for each in (parser, *parser.commands.values()):
        for action in each._actions:  # noqa: SLF001 - argparse has no other way to them
            if action.metavar in kinds:
                vars(action)["complete"] = kinds[action.metavar]
            if action.help is argparse.SUPPRESS:  # the store's options, which the main help alone describes
                action.help = texts.get(action.dest) or "how etcd is reached"
    script: str = shtab.complete(parser, shell)
    return script

"""`seal status`: shows what is sealed with which key."""

import argparse
from collections import Counter
from collections.abc import Sequence

import msgspec

from configstore.cli.render import Cell, Style, moment_now, reasons, table, when, write_json
from configstore.cli.seal_keys import keyring_file, lacking, words_of_lack
from configstore.cli.session import open_tree, say, say_all
from configstore.errors import NotThereError
from configstore.model.path import StorePath, shown
from configstore.model.seal import Key, Keyring, Policy
from configstore.progress import Progress
from configstore.store.sealed_values import Family, SealCounts, count_seals


class _KeyUse(msgspec.Struct, frozen=True, kw_only=True):
    """A key and what it seals. key: None where no keyring here has it. newest: it is its subtree's newest."""

    id: str
    key: Key | None
    newest: bool
    counts: Counter[Family]

    @property
    def state(self) -> str:
        if self.key is None:
            return "unknown"
        if self.newest:
            return "newest"
        return "old" if self.counts.total() else "not needed"


def run(args: argparse.Namespace) -> int:
    """Run `seal status` and return its exit code."""
    file = keyring_file(args)
    ring = file.read() if file else None
    with open_tree(args, keyring=ring, policy=Policy.ACCEPT if ring else Policy.OFF) as tree:
        with Progress("looked at") as progress:
            found = count_seals(tree, ring, step=progress.step)
        lack = lacking(tree, ring) if ring else []
    rows = _rows(ring, found)
    unneeded = [row for row in rows if row.state == "not needed"]
    if args.json:
        write_json(
            {
                "keys": [
                    {
                        "id": row.id,
                        "subtree": (row.key.subtree or "/") if row.key else None,
                        "made": (row.key.made or None) if row.key else None,
                        "state": row.state if ring else None,
                        "needed": row.counts.total() > 0,
                        **_counted(row.counts),
                    }
                    for row in rows
                ],
                "plain": _counted(found.plain),
                "due": found.due if ring else None,
                "unreadable": reasons(found.unreadable),
                "lacking": [
                    {"mapping": report.mapping, "replica": report.replica, "host": report.host, "key": key.id}
                    for report, key in lack
                ],
            }
        )
    else:
        _write_rows(rows, found, known=ring is not None)
    for row in rows:
        if ring and row.key is None:
            closed = "no keyring here has it, so what it sealed cannot be opened here"
            why = closed if found.unknown else "of a subtree that the master does not name"
            say(f"key {row.id}: {why}: {row.counts.total()} values")
    if found.plain.total():
        say(f"plain: {found.plain.total()}; everybody who can read the store, or a backup of it, can read these")
    if ring and found.due:
        say(f"to be sealed again: {found.due}; `configstore seal rotate` does it")
    if unneeded:
        say("nothing needs the keys of state `not needed` any more: `configstore seal forget` drops them")
    say_all(words_of_lack(report, key) for report, key in lack)
    say_all(f"{at}: cannot be read: {why}" for at, why in found.unreadable.items())
    if ring is None:
        say("without a keyring only ids are known: --seal-keyring FILE, such as the master, says whose they are")
    return NotThereError.exit_code if found.unreadable or (ring and found.unknown) else 0


def _counted(counts: Counter[Family]) -> dict[str, int]:
    return {str(family): counts[family] for family in Family}


def _rows(ring: Keyring | None, found: SealCounts) -> list[_KeyUse]:
    known = {key.id: key for key in ring.keys} if ring else {}
    newest: dict[StorePath, str] = {}
    for key in known.values():
        newest.setdefault(key.subtree, key.id)
    rows = [
        _KeyUse(
            id=each, key=known.get(each), newest=each in newest.values(), counts=found.keys.get(each, Counter())
        )
        for each in dict.fromkeys([*known, *sorted(found.keys)])
    ]
    return sorted(rows, key=lambda row: (row.key is None, row.key.subtree if row.key else ""))


_STYLES = {"newest": Style.GOOD, "old": Style.WARN, "unknown": Style.BAD, "not needed": Style.DIM}


def _write_rows(rows: Sequence[_KeyUse], found: SealCounts, *, known: bool) -> None:
    moment = moment_now()
    lines: list[tuple[Cell, ...]] = []
    for row in rows:
        counts = tuple(str(row.counts[family]) for family in Family)
        made = when(row.key.made, moment) if row.key and row.key.made else "-"
        state: Cell = (row.state, _STYLES[row.state]) if known else "-"
        subtree = (shown(row.key.subtree) if row.key.subtree else "/") if row.key else "-"
        lines.append((row.id, subtree, *counts, state, made))
    plain = tuple(str(found.plain[family]) for family in Family)
    lines.append(("plain", "-", *plain, ("plain", Style.WARN) if found.plain.total() else "-", "-"))
    table(("KEY", "SUBTREE", *(str(family).upper() for family in Family), "STATE", "MADE"), lines)

"""`leases`: who holds a lease and who waits for it, and taking one away."""

import argparse
import time
from datetime import datetime

from configstore.cli.arguments import Commands, add_command, flag, typed
from configstore.cli.render import Cell, Style, moment_now, table, when, write_json
from configstore.cli.session import is_interactive, open_tree, say, say_all
from configstore.errors import ConflictError, NotThereError, RefusedError, UsageError
from configstore.model.lease import Intent
from configstore.model.path import printable
from configstore.parsing import meant, parse_name
from configstore.store.lease_intents import last_intent
from configstore.store.lease_queue import Queued, break_lease, held_up, queue, queues
from configstore.store.tree import Tree


def add(commands: Commands) -> None:
    """Add the parsers."""
    text = "show who holds which lease and who waits; `leases break NAME` takes one away"
    leases = add_command(commands, "leases", _leases, text)
    text = "take the lease NAME from its holder"
    leases.add_argument("verb", metavar="break", nargs="?", choices=["break"], help=text)
    name = typed(parse_name)
    leases.add_argument("name", metavar="NAME", type=name, nargs="?", help="name of the lease to break")
    flag(leases, "--yes", "do not ask before a lease is broken")


def _leases(args: argparse.Namespace) -> int:
    with open_tree(args) as tree:
        if args.verb:
            return _break(tree, args.name, sure=args.yes, as_json=args.json)
        found = queues(tree)
        rows = [(entries, last_intent(tree, name)) for name, entries in sorted(found.items())]
        long = held_up(tree, time.time())
    if args.json:
        write_json([_fields(entries, intent) for entries, intent in rows])
    else:
        at = moment_now()
        table(
            ("LEASE", "HOLDER", "SINCE", "WAITING", "NOTE"),
            [_row(entries, intent, at) for entries, intent in rows],
        )
    if not rows:
        say("no lease is held")
    say_all(map(str, long))
    return 0


def _who(each: Queued) -> dict[str, object]:
    who = each.contender
    return {
        "replica": who.replica if who else None,
        "host": who.host if who else None,
        "command": who.command if who else None,
        "since": who.time if who else None,
        "token": each.token,
    }


def _fields(entries: list[Queued], intent: Intent | None) -> dict[str, object]:
    holder, *waiting = entries
    under_way = intent.text if intent and not intent.ended else None
    return {
        "lease": holder.name,
        "holder": _who(holder),
        "waiting": [_who(each) for each in waiting],
        "begun": under_way,
    }


def _row(entries: list[Queued], intent: Intent | None, at: datetime) -> tuple[Cell, ...]:
    holder, *waiting = entries
    who = holder.contender
    unended = intent and not intent.ended and intent.token != holder.token
    return (
        holder.name,
        holder.what,
        when(who.time, at) if who else f"revision {holder.token}",
        str(len(waiting)),
        (f"not ended: {intent.text}", Style.WARN) if intent and unended else "-",
    )


def _break(tree: Tree, name: str | None, *, sure: bool, as_json: bool) -> int:
    if not name:
        raise UsageError("leases break: expected the lease's name")
    entries = queue(tree, name)
    if not entries:
        raise NotThereError(f"lease {printable(name)} is not held{meant(name, queues(tree))}")
    holder = entries[0]
    if not sure:
        if not is_interactive():
            raise UsageError("leases break: there is no terminal to ask on: type --yes")
        notices = "; it notices at once, and stops what it runs" if holder.etcd_lease else ""
        say(f"lease {name} is held by {holder.text}{notices}")
        if input("Type the lease's name to take it away: ") != name:
            raise RefusedError("nothing was changed")
    if not break_lease(tree, holder):
        raise ConflictError(f"lease {printable(name)}: its holder changed meanwhile; look again")
    left = queue(tree, name)
    follows = f"it is held by {left[0].text} now" if left else "nobody waits for it"
    if as_json:
        write_json({"lease": name, "taken_from": _who(holder), "holder": _who(left[0]) if left else None})
    say(f"lease {name} was taken from {holder.text}; {follows}")
    return 0

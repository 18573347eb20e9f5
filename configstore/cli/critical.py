"""`run`, `wait` and `flush`: critical sections, by hand or in scripts.

They use a sidecar's control socket where there is one, else etcd itself.
"""

import argparse
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from configstore.cli.arguments import Commands, add_command, option, revision_or_zero, typed
from configstore.cli.render import write_json, write_line
from configstore.cli.replicas import request
from configstore.cli.session import now, open_tree, queue_entry, say
from configstore.client import (
    ClientError,
    Limit,
    Sidecar,
    environment_under,
    hold,
    refuse_within_itself,
    run_under,
)
from configstore.errors import (
    ConfigstoreError,
    ConflictError,
    NotThereError,
    RefusedError,
    UnreachableError,
    UsageError,
)
from configstore.model.path import StorePath, printable
from configstore.model.replica import MappingState, Verb
from configstore.parsing import meant, parse_duration, parse_name
from configstore.settings import DEFAULT_SOCKET
from configstore.store.leases import MAX_TTL, MIN_TTL, TTL, Lease
from configstore.store.replicas import asking, live_reports, named
from configstore.store.report_feed import ask_reports, wait_applied
from configstore.store.subtree_revisions import revision_due, revisions_below
from configstore.store.tree import Tree

_ANSWER = 10.0
"""Seconds beyond the patience after which a sidecar's answer is not expected any more."""

_ERRORS: dict[int, type[ConfigstoreError]] = {
    2: UsageError,
    3: ConflictError,
    4: UnreachableError,
    5: RefusedError,
}

_duration = typed(parse_duration)
_name = typed(parse_name)


def add(commands: Commands) -> None:
    """Add the parsers."""
    run = add_command(commands, "run", _run, "run a command while holding a lease", as_json=False)
    option(run, "--lease NAME", "name of the lease", type=_name, required=True)
    option(run, "--mapping MAPPING", "mapping that must be up to date first; needs a sidecar")
    text = f"time after which a dead holder loses the lease (default: {TTL}s)"
    option(run, "--ttl DURATION", text, type=_ttl, default=TTL)
    patience = run.add_mutually_exclusive_group()
    text = "wait for the lease at most so long (default: without end)"
    option(patience, "--wait DURATION", text, type=_duration)
    text = "fail at once when the lease is held"
    patience.add_argument("--no-wait", dest="wait", action="store_const", const=0.0, help=text)
    run.add_argument("command", metavar="-- COMMAND", nargs=argparse.REMAINDER, help="command with its arguments")
    wait = add_command(commands, "wait", _wait, "wait until a mapping's changes are applied")
    text = "by the sidecar here (default where there is one), or by all live replicas (default elsewhere)"
    wait.add_argument("--applied", choices=["here", "all"], help=text)
    text = "up to this store revision (default: the newest of the mapping)"
    option(wait, "--revision N", text, type=revision_or_zero)
    text = "commit the local changes of a mapping now, and print the revision"
    flush = add_command(commands, "flush", _flush, text)
    for parser in (wait, flush):
        parser.add_argument("mapping", metavar="MAPPING", help="name of the mapping")
        option(parser, "--patience DURATION", "wait at most so long (default: 60s)", type=_duration, default=60.0)
    text = f"the sidecar's control socket (default: {DEFAULT_SOCKET}); '': use etcd itself"
    for parser in (run, wait, flush):
        option(parser, "--socket PATH", text)


def _ttl(text: str) -> int:
    seconds = _duration(text)
    if not MIN_TTL <= seconds <= MAX_TTL or seconds != int(seconds):
        raise argparse.ArgumentTypeError(f"expected whole seconds from {MIN_TTL} to {MAX_TTL}")
    return int(seconds)


def _sidecar(args: argparse.Namespace) -> Sidecar | None:
    """Return the sidecar to use; None for etcd itself."""
    path = args.socket
    if path is None and "endpoints" not in args:
        path = os.environ.get("CONFIGSTORE_CONTROL_SOCKET") or DEFAULT_SOCKET
        if not _is_served(path):
            path = None
    return Sidecar(path) if path else None


def _is_served(path: str) -> bool:
    """Return whether a sidecar listens at a socket. The socket of a sidecar that was killed is still there."""
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(path)
        except TimeoutError:
            return True  # a sidecar that is busy
        except OSError as error:
            return isinstance(
                error, PermissionError
            )  # the request will fail with it, and that is the error to print
    return True


class _Held(Limit):
    """The limit of a command that runs under a lease which this process holds itself."""

    def __init__(self, lease: Lease) -> None:
        self.lease = lease
        self.ttl = float(lease.ttl)
        self.doubt = f"lease {lease.name} was not renewed in time"

    def left(self) -> float:
        """Return the seconds for which this process surely holds the lease."""
        return self.lease.left()

    def check(self) -> None:
        """Note whether the lease was lost."""
        self.why = self.lease.lost


def _run(args: argparse.Namespace) -> int:
    command = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not command:
        raise UsageError("run: expected -- COMMAND")
    sidecar = _sidecar(args)
    with _client_errors():
        if sidecar:
            return hold(sidecar, args.lease, command, mapping=args.mapping, ttl=args.ttl, wait=args.wait)
        if args.mapping:
            raise UsageError("run: --mapping needs the sidecar that mirrors it: type --socket PATH")
        return _run_directly(args, command)


def _run_directly(args: argparse.Namespace, command: list[str]) -> int:
    """Run a command while this process holds the lease; no files are brought up to date or committed."""
    refuse_within_itself(args.lease)
    with open_tree(args) as tree:
        lease = Lease(tree, args.lease, queue_entry(os.path.basename(command[0])), ttl=args.ttl)
        fence = lease.acquire(args.wait, lambda ahead: say(f"lease {args.lease}: waiting for {ahead[0].text}"))
        begun = now()
        limit = _Held(lease)
        try:
            before = lease.begin(begun)
            environment = environment_under(args.lease, fence.token)
            if before:
                say(f"lease {args.lease}: its last holder began this and did not report its end: {before}")
                environment["CONFIGSTORE_UNFINISHED"] = before
            return run_under(limit, command, environment, partial(_note_end, lease, begun))
        finally:
            if limit.why is None:
                lease.release(patience=float(lease.ttl))
            else:
                lease.abandon()  # a process of the command may still run: the lease must run out by itself


def _note_end(lease: Lease, begun: str, code: int | None) -> None:
    if code is None:
        lease.never_began(begun)
    else:
        lease.end(begun, now(), code)


def _wait(args: argparse.Namespace) -> int:
    sidecar = _sidecar(args)
    if sidecar:
        asked = {"mapping": args.mapping, "applied": args.applied or "here", "revision": args.revision}
        with _client_errors():
            sidecar.ask("POST", "/v1/wait", {**asked, "timeout": args.patience}, timeout=args.patience + _ANSWER)
        if args.json:
            write_json({"mapping": args.mapping, "applied": asked["applied"], "revision": args.revision})
        return 0
    if args.applied == "here":
        raise UsageError("wait: --applied here needs a sidecar: type --socket PATH")
    with open_tree(args) as tree:
        store = _subtree(tree, args.mapping)
        end = time.monotonic() + args.patience
        revision = revision_due(tree, store, asked=args.revision, patience=args.patience)
        patience = max(0.0, end - time.monotonic())
        late = wait_applied(tree, store, revision=revision, patience=patience)
    if late:
        names = "; ".join(map(named, late))
        raise NotThereError(f"{args.mapping}: revision {revision} is not applied yet by {names}")
    if args.json:
        write_json({"mapping": args.mapping, "applied": "all", "revision": revision})
    return 0


def _flush(args: argparse.Namespace) -> int:
    sidecar = _sidecar(args)
    if sidecar:
        with _client_errors():
            asked = {"mapping": args.mapping, "timeout": args.patience}
            answer = sidecar.ask("POST", "/v1/flush", asked, timeout=args.patience + _ANSWER)
            revision = int(sidecar.number(answer, "revision"))
        _say_flushed(args, revision)
        return 0
    with open_tree(args) as tree:
        store = _subtree(tree, args.mapping)
        end = time.monotonic() + args.patience
        with asking(tree, request(args, Verb.FLUSH, mapping=args.mapping)):
            while True:
                answers = ask_reports(tree)
                busy = [
                    each
                    for each in answers.fresh
                    if each.pending > each.problem_count or each.state is MappingState.HALTED
                ]
                left = [each for each in (*busy, *answers.late) if each.mapping == args.mapping]
                if not left or time.monotonic() >= end:
                    break
        revision = revisions_below(tree, store).newest
    if left:
        halted = [each.reason for each in left if each.state is MappingState.HALTED]
        names = "; ".join(map(named, left))
        message = f"{args.mapping}: not everything is committed yet by {names}"
        raise RefusedError(f"{message}: {halted[0]}") if halted else UnreachableError(message)
    here = [each for each in answers.fresh if each.mapping == args.mapping]
    if kept := [each for each in here if any(problem.path for problem in each.problems)]:
        raise NotThereError(f"{args.mapping}: committed, but not all of it: {'; '.join(map(named, kept))}")
    _say_flushed(args, revision)
    return 0


def _say_flushed(args: argparse.Namespace, revision: int) -> None:
    if args.json:
        write_json({"mapping": args.mapping, "revision": revision})
    else:
        write_line(str(revision))


@contextmanager
def _client_errors() -> Iterator[None]:
    """Raise a ClientError as the ConfigstoreError with the same exit code."""
    try:
        yield
    except ClientError as error:
        raise _ERRORS.get(error.code, NotThereError)(str(error)) from error


def _subtree(tree: Tree, mapping: str) -> StorePath:
    """Return the subtree that a mapping mirrors, as its live replicas say. Raises NotThereError."""
    reports = live_reports(tree)
    for report in reports:
        if report.mapping == mapping:
            return report.store
    hint = meant(mapping, {report.mapping for report in reports})
    raise NotThereError(f"no live replica mirrors {printable(mapping)}{hint}")

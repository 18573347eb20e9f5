"""`import`: copies a local folder into the store, such as a single host's /mailu.

1. Everything is read and compared before anything is written. Where a path cannot be stored, nothing is.
2. It is written in sets, each a compare-and-swap, so that the next run continues one that was interrupted.
"""

import argparse
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from time import monotonic

import msgspec

from configstore.cli.arguments import typed_directory
from configstore.cli.host import Found, Host, read_host
from configstore.cli.render import reasons, write_json, write_line
from configstore.cli.session import (
    ATTEMPTS,
    commit,
    lives,
    now,
    open_tree,
    queue_entry,
    refuse_below_file,
    replaces,
    say,
    say_all,
    unreadable,
)
from configstore.errors import ConflictError, NotThereError, StoreError, UnreachableError
from configstore.model.path import StorePath, ancestors, is_below, shell_word, shown
from configstore.model.record import Entry, Kind, placing_order
from configstore.presets.single_host import DataSet, data_sets
from configstore.progress import Progress
from configstore.store.leases import Lease
from configstore.store.tree import Tree
from configstore.store.values import Fence, Stored, UnreadableRecord, Write

_SET_PATHS = 1000
_SET_BYTES = 16 << 20


class _ImportPlan(msgspec.Struct, kw_only=True):
    """What an import does: the writes, and the number of paths that are the same already.

    kept, once: paths that differ and stay as the store has them, because of `--create`, or because they are
    created once. revision: the newest that was written.
    """

    writes: list[tuple[Write, Found]] = []
    same: int = 0
    kept: list[StorePath] = []
    once: list[StorePath] = []
    revision: int = 0


def run(args: argparse.Namespace) -> int:
    """Run `import` and return its exit code."""
    below = typed_directory(args.path)
    wanted = data_sets(args.preset, below) if args.preset else (DataSet(store=below),)
    began = monotonic()
    with ExitStack() as stack:
        preset = args.preset or ""
        reading = stack.enter_context(Progress("read"))
        host = read_host(
            args.directory, wanted, preset, stack, exclude=args.exclude, skip_bad=args.skip_bad, step=reading.step
        )
        reading.pause()
        tree = stack.enter_context(open_tree(args))
        try:
            plan = _compare(tree, host, wanted, create=args.create)
        except ConflictError as error:
            raise ConflictError(f"{error}; nothing was written") from error
        if not args.dry_run:
            plan = _write(tree, host, wanted, plan, create=args.create)
    _report(args, host, plan, monotonic() - began)
    if plan.kept:
        return ConflictError.exit_code
    return NotThereError.exit_code if host.problems else 0


def _compare(tree: Tree, host: Host, wanted: Sequence[DataSet], *, create: bool) -> _ImportPlan:
    plan = _ImportPlan()
    there = _in_store(tree, host, wanted)
    directories = {above for path, each in there.items() if lives(each) for above in ancestors(path)}
    for path, found in sorted(host.found.items(), key=lambda item: placing_order(item[0], item[1].entry.kind)):
        before = there.get(path)
        if isinstance(before, UnreadableRecord):
            raise unreadable(before)
        _refuse_other_kind(path, found.entry, there, directories)
        if before and not before.gone:
            same_directory = create and found.entry.kind is Kind.DIR
            if same_directory or (found.entry.alike(before.entry) and not before.record.locked):
                plan.same += 1
                continue
            if create or (found.part.create_once and found.relative):
                (plan.kept if create else plan.once).append(path)
                continue
        expected = before.mod_revision if before else 0
        plan.writes.append((Write(path=path, entry=found.entry, expected=expected, previous=before), found))
    return plan


def _in_store(tree: Tree, host: Host, wanted: Sequence[DataSet]) -> dict[StorePath, Stored | UnreadableRecord]:
    """Return the records of the data sets and of the directories above them."""
    found: dict[StorePath, Stored | UnreadableRecord] = {}
    stores = {part.store for part in wanted}
    for store in stores:
        if store:
            refuse_below_file(tree, store)
        listed = tree.list(store)
        found |= listed.records
        found |= {StorePath(bad.path): bad for bad in listed.bad}
    for path in host.found:
        if not any(path == store or is_below(path, store) for store in stores):
            above = tree.look(path)
            found |= {path: above} if above else {}
    return found


def _refuse_other_kind(
    path: StorePath,
    entry: Entry,
    there: Mapping[StorePath, Stored | UnreadableRecord],
    directories: set[StorePath],
) -> None:
    """Raise ConflictError where a directory would meet a file or a link."""
    kinds = [(above, Kind.DIR) for above in ancestors(path)] + [(path, entry.kind)]
    for at, kind in kinds:
        before = there.get(at)
        was = before.entry.kind if lives(before) else None
        was = Kind.DIR if at in directories else was
        if was and (was is Kind.DIR) is not (kind is Kind.DIR):
            raise ConflictError(f"{shown(at)}: is a {was} in the store and a {kind} here")


def _write(tree: Tree, host: Host, wanted: Sequence[DataSet], plan: _ImportPlan, *, create: bool) -> _ImportPlan:
    """Write what is planned, and plan again when another write came first; return everything that was done."""
    done: list[tuple[Write, Found]] = []
    for _ in range(ATTEMPTS):
        with Progress("written", len(done) + len(plan.writes)) as progress:
            progress.step(len(done))
            complete = all(
                _write_under(tree, lease, plan, done, progress)
                for lease in sorted({each.part.lease for _, each in plan.writes})
            )
        if complete:
            plan.writes = done
            return plan
        revision = plan.revision
        try:
            plan = _compare(tree, host, wanted, create=create)
        except ConflictError as error:
            raise ConflictError(f"{error}; {len(done)} paths were written before") from error
        plan.revision = revision
    raise ConflictError("other writes of the same paths came first again and again; run it again")


def _write_under(
    tree: Tree, lease: str, plan: _ImportPlan, done: list[tuple[Write, Found]], progress: Progress
) -> bool:
    """Write the part of a plan that needs a lease ("": none); return whether all of it was written."""
    with _held(tree, lease) as fence:
        for some in _sets([each for each in plan.writes if each[1].part.lease == lease]):
            try:
                outcome = commit(tree, [write for write, _ in some], fence=fence, step=progress.step)
            except (StoreError, UnreachableError):
                progress.pause()
                if done:
                    say(f"{len(done)} paths were written before; run it again to go on")
                raise
            done += [(write, found) for write, found in some if write.path in outcome.done]
            plan.revision = max((plan.revision, *outcome.done.values()))
            if outcome.fenced_out:
                raise ConflictError(f"lease {lease} was lost; {len(done)} paths were written; run it again")
            if not outcome.complete:
                return False
    return True


def _sets(writes: Sequence[tuple[Write, Found]]) -> Iterator[list[tuple[Write, Found]]]:
    """Yield writes with their content, at most _SET_PATHS paths and about _SET_BYTES bytes at a time."""
    some: list[tuple[Write, Found]] = []
    size = 0
    for write, found in writes:
        if some and (len(some) >= _SET_PATHS or size + write.entry.size > _SET_BYTES):
            yield some
            some, size = [], 0
        some.append((msgspec.structs.replace(write, content=found.content()), found))
        size += write.entry.size
    if some:
        yield some


@contextmanager
def _held(tree: Tree, name: str) -> Iterator[Fence | None]:
    """Hold the lease of a data set, "" for none, so that no holder writes meanwhile. Raises LeaseTakenError."""
    if not name:
        yield None
        return
    lease = Lease(tree, name, queue_entry("configstore import"))
    fence = lease.acquire(0.0)
    try:
        begun = now()
        lease.begin(begun)  # tells replicas that changes which wait there are older than the import
        yield fence
        lease.end(begun, now(), 0)
    finally:
        lease.release(patience=float(lease.ttl))


def _report(args: argparse.Namespace, host: Host, plan: _ImportPlan, seconds: float) -> None:
    missing = {part.host: part for part in host.missing}
    if args.json:
        fields = {
            "dry_run": args.dry_run,
            "written": [write.path for write, _ in plan.writes],
            "revision": plan.revision or None,
            "same": plan.same,
            "kept": [*plan.kept, *plan.once],
            "missing": list(missing),
            "left": reasons(dict(sorted((host.left | host.loud).items()))),
            "skipped": reasons(dict(sorted(host.problems.items()))),
            "unused": host.unused,
            "seconds": round(seconds, 3),
        }
        write_json(fields)
        return
    for write, found in plan.writes if args.dry_run else ():
        verb = "replace" if replaces(write) else "write"
        size = f", {write.entry.size} bytes" if write.entry.kind is Kind.FILE else ""
        write_line(f"{verb} {shown(write.path)} ({write.entry.kind}{size}) from {shell_word(found.host or '.')}")
    say_all(f"{shown(path)}: differs from what the store has, which stays" for path in plan.kept)
    say_all(
        f"{shown(path)}: differs from what the store has, which stays: it is created only once"
        for path in plan.once
    )
    say_all(f"left: {at}: {why}" for at, why in sorted(host.left.items()))
    for at, part in missing.items():
        say(f"not there: {at}; where its service is used, `{_making(args, part)}` makes it empty")
    say_all(f"skipped: {path}: {why}" for path, why in sorted(host.problems.items()))
    say_all(f"--exclude {shell_word(pattern)}: left nothing out; is it misspelt?" for pattern in host.unused)
    for why in sorted(set(host.loud.values())):
        paths = sorted(path for path, each in host.loud.items() if each == why)
        more = f", and {len(paths) - 1} more" if len(paths) > 1 else ""
        say(f"NOTE: {paths[0]}{more}: {why}")
    replaced = sum(replaces(write) for write, _ in plan.writes)
    verb = "would be written" if args.dry_run else "written"
    say(
        f"{len(plan.writes)} {verb}, {replaced} of them over something else; the same already: {plan.same};"
        f" took {seconds:.1f} s"
    )


def _making(args: argparse.Namespace, part: DataSet) -> str:
    """Return the command that makes a data set's directory with its mode; `bootstrap` does so below / only."""
    if not typed_directory(args.path):
        return f"configstore bootstrap --preset {args.preset}"
    return f"configstore mkdir --mode {part.dir_mode:04o} {part.store}"

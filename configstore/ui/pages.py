"""The pages: each function takes a request and returns HTML. They change nothing.

They read the index, the last overview and, for one path at a time, the store. Starlette calls them in threads,
since calls to the store block. Called by `serving` and `actions`.
"""

import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from functools import wraps
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import escape
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from configstore.cli.history import compared
from configstore.cli.session import name_of, why_unreadable
from configstore.errors import ConfigstoreError, NotThereError, StoreUnavailableError
from configstore.model.path import ROOT, PathError, StorePath, first_component, is_below, parse_path, shown
from configstore.model.record import Entry, Kind, RecordError
from configstore.store.conflicts import Loser, Unread, all_sides, pieces_of
from configstore.store.history import Versions, versions
from configstore.store.tree import Tree
from configstore.store.values import Stored, UnreadableRecord
from configstore.ui import filters
from configstore.ui.index import Index
from configstore.ui.matrix import MatrixRow, rows
from configstore.ui.monitor import Monitor
from configstore.ui.privacy import text_of, why_hidden
from configstore.ui.side_by_side import Pair, is_costly, side_by_side

LISTED = 300
"""Paths that a page lists at most; a search by a part of the name finds the others."""

SETS = 15
"""Sets in the timeline."""

SIDES = 50
"""Losing sides that are read for one page."""

_SEVERAL = re.compile(", | and ")
"""Separates the mappings that a finding is about."""

Page = Callable[[Request], Response]


_ALIKE = "too many lines are alike to be compared here:"


class Pages:
    """The pages of one run."""

    def __init__(self, tree: Tree, index: Index, monitor: Monitor, *, form: str, write: bool, root: str) -> None:
        """`form`: the secret that a form must carry. write: whether forms are shown. root: the root key."""
        self._tree = tree
        self._index = index
        self._monitor = monitor
        self._environment = environment()
        self._common = {"form": form, "write": write, "root": root}

    def show(self, template: str, status: int = 200, /, **values: object) -> Response:
        """Return a page made from a template and values."""
        found = self._monitor.overview()
        facts, verdict = found or (None, None)
        common = {
            "contact": self._tree.contact(),
            "failure": self._monitor.failure,
            "went_back": self._monitor.went_back,
            "facts": facts,
            "needs": verdict.needs if verdict else (),
            "links": self._links(),
            "conflicts": sum(facts.conflicts.values()) if facts else 0,
            "now": datetime.now(UTC),
            "page": template,
        }
        text = self._environment.get_template(f"{template}.html").render(**self._common, **common, **values)
        return HTMLResponse(text, status)

    def refuse(self, status: int, said: str) -> Response:
        """Return a page with an error text."""
        return self.show("refused", status, said=said)

    def rows(self) -> list[MatrixRow]:
        """Return the mappings with their replicas."""
        found = self._monitor.overview()
        everything = self._index.below(ROOT)
        live = [each for each in everything if not each.gone]
        return rows(
            [report for report, _ in self._index.reports().values()],
            found[0].gone if found else (),
            self._monitor.silent(),
            lambda store: sorted(each.mod_revision for each in everything if is_below(each.path, store)),
            sorted({first_component(each.path) for each in live}),
            blind=bool(self._monitor.failure) or not self._tree.contact().connected,
        )

    # Pages

    def overview(self, _: Request) -> Response:
        """Show the overview."""
        found = self.rows()
        return self.show(
            "overview",
            rows=found,
            all_good=all(row.mood == "good" for row in found),
            sets=self._index.sets(SETS),
            started=self._index.since,
            times={each.mod_revision: each.record.origin.time for each in self._index.below(ROOT)},
            leases=self._monitor.leases,
        )

    def mapping(self, request: Request) -> Response:
        """Show one mapping: its replicas, its problems, its paths."""
        name = request.path_params["name"]
        found = [row for row in self.rows() if row.mapping == name]
        if not found:
            raise NotThereError(f"{name}: no live replica mirrors it, and none is missed")
        row = found[0]
        needs = [each for each in self._needs() if name in _SEVERAL.split(each.check)]
        halted = [
            cell for cell in row.cells if cell.report and (cell.report.state == "halted" or cell.report.vanished)
        ]
        known = any(cell.report for cell in row.cells)  # otherwise no report names its subtree
        at = row.store if known else None
        return self._listing(request, "mapping", at, row=row, own_needs=needs, halted=halted)

    def tree(self, request: Request) -> Response:
        """Show a directory of the store."""
        path = parse_path(request.path_params["path"]) if request.path_params.get("path") else ROOT
        return self._listing(request, "tree", path, directory=path)

    def _listing(self, request: Request, template: str, at: StorePath | None, **more: object) -> Response:
        wanted = request.query_params.get("q", "")[:200]
        everything = [each for each in self._index.below(at) if each.path != at] if at is not None else []
        found = [each for each in everything if wanted.lower() in each.path.lower()]
        gone = request.query_params.get("deleted") == "1"
        listed = [each for each in found if gone or not each.gone]
        bad = self._index.bad_below(at) if at is not None else []
        return self.show(
            template,
            records=listed[:LISTED],
            left_out=max(0, len(listed) - LISTED),
            total=sum(not each.gone for each in everything),
            deleted=sum(each.gone for each in everything),
            shows_deleted=gone,
            wanted=wanted,
            bad=[(name_of(each), why_unreadable(each)) for each in bad],
            sets=self._index.sets(SETS, at) if at is not None else [],
            started=self._index.since,
            **more,
        )

    def path(self, request: Request) -> Response:
        """Show the versions of a path, and the difference between two of them."""
        path = parse_path(request.path_params["path"])
        self._must_answer()
        found = versions(self._tree, path)
        if found is None:
            raise NotThereError(f"{shown(path)}: was never there")
        known = [each for each in reversed(found.writes) if isinstance(each, Stored)]
        unread = [each for each in found.known if isinstance(each, UnreadableRecord)]
        old, new = _chosen(request, known)
        sides = [each for each in all_sides(self._tree, path) if each.path == path]
        losing = [each.record.entry for each in sides if isinstance(each, Loser)]
        closed = bool(unread) or any(isinstance(each, Unread) for each in sides)
        hidden = why_hidden(path, [*(each.entry for each in known), *losing], unread=closed) or _locked(
            known, sides
        )
        return self.show(
            "path",
            path=path,
            versions=known,
            current=found.current,
            unread=[(each.mod_revision, each.reason) for each in unread],
            old=old,
            new=new,
            hidden=hidden,
            difference=() if hidden else self._difference(found, old, new),
            sides=len(sides),
            mapping=self._mapping_of(path),
        )

    def _difference(self, found: Versions, old: Stored | None, new: Stored | None) -> list[str]:
        """Return the lines that differ. Must not be called for a private path."""
        if old is None and new is None:
            return []
        texts = []
        for each in (old, new):
            text = text_of(self._tree.content(each)) if each and each.entry.kind is Kind.FILE else ""
            if text is None:
                return [_summary(old.entry if old else None, new.entry if new else None)]
            texts.append(text.splitlines())
        if is_costly(*texts):
            return [f"{_ALIKE} `configstore diff` has no such limit"]
        return compared(self._tree, found.path, old, new)

    def conflicts(self, _: Request) -> Response:
        """Show the losing sides of conflicts beside what the store holds."""
        self._must_answer()
        sides = all_sides(self._tree, ROOT)
        pairs = []
        for path in dict.fromkeys(each.path for each in sides[:SIDES]):
            here = [each for each in sides if each.path == path]
            pairs.append(self._pair(path, here))
        return self.show("conflicts", pairs=pairs, left_out=max(0, len(sides) - SIDES))

    def _pair(self, path: StorePath, sides: list[Loser | Unread]) -> dict[str, object]:
        """Return a path's record in the store, and each losing side with its difference to it."""
        found = versions(self._tree, path)
        known = [each for each in (found.known if found else ()) if isinstance(each, Stored)]
        now = found.now() if found else None
        now = now if isinstance(now, Stored) else None
        losing = [each for each in sides if isinstance(each, Loser)]
        closed = len(losing) < len(sides) or any(
            isinstance(each, UnreadableRecord) for each in (found.known if found else ())
        )
        entries = [*(each.entry for each in known), *(each.record.entry for each in losing)]
        hidden = why_hidden(path, entries, unread=closed) or _locked(known, losing)
        texts = {each.id: "" if hidden else self._against(now, each) for each in losing}
        unread = [each for each in sides if isinstance(each, Unread)]
        return {"path": path, "now": now, "losing": losing, "unread": unread, "hidden": hidden, "texts": texts}

    def _against(self, now: Stored | None, loser: Loser) -> list[Pair] | str:
        """Return the lines of both sides, or a summary. Must not be called for a private path."""
        kept = text_of(self._tree.content(now)) if now else ""
        lost = text_of(b"".join(pieces_of(self._tree, loser)))
        if kept is None or lost is None:
            before = now.entry if now else None
            return _summary(before, loser.record.entry)
        left, right = kept.splitlines(), lost.splitlines()
        if is_costly(left, right):
            return f"{_ALIKE} `configstore conflicts --show {loser.id}` has it"
        return side_by_side(left, right)

    def leases(self, _: Request) -> Response:
        """Show the leases, their holders and queues."""
        self._monitor.overview()  # makes a new one if the last one is old, and with it the leases
        return self.show("leases", leases=self._monitor.leases)

    def store(self, _: Request) -> Response:
        """Show the store and its members."""
        own = [each for each in self._needs() if each.check in {"store", "reports"}]
        unread = {key.decode("utf-8", "replace"): why for key, why in self._index.unread().items()}
        found = self._monitor.overview()
        certificate = found[0].client_certificate if found else None
        ends = certificate.end if certificate else None
        return self.show(
            "store", own_needs=own, unread=unread, revision=self._index.revision, certificate_ends=ends
        )

    def _links(self) -> dict[str, str]:
        """Return the page with more about a finding, by what the finding is about."""
        mappings = {report.mapping for report, _ in self._index.reports().values()}
        fixed = {"conflicts": "/conflicts", "store": "/store", "reports": "/store"}
        return fixed | {each: f"/mapping/{filters.link(each)}" for each in mappings}

    def _needs(self) -> tuple[Any, ...]:
        found = self._monitor.overview()
        return found[1].needs if found else ()

    def _must_answer(self) -> None:
        """Raise StoreUnavailableError at once when the store is known to be silent, instead of waiting for it."""
        contact = self._tree.contact()
        if not contact.connected:
            raise StoreUnavailableError(f"it has been silent for {contact.silent:.0f} s: {contact.reason}")

    def _mapping_of(self, path: StorePath) -> str:
        """Return the innermost mapping that mirrors a path; "" without any."""
        stores = {report.store: report.mapping for report, _ in self._index.reports().values()}
        return next(
            (
                stores[each]
                for each in sorted(stores, key=len, reverse=True)
                if path == each or is_below(path, each)
            ),
            "",
        )


def environment() -> jinja2.Environment:
    """Return the templates: every value is escaped, and a missing value is an error."""
    found = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=filters.visible,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    found.filters |= filters.FILTERS
    found.globals["exactly"] = escape  # for values that a form sends back, which must stay as they are
    return found


def with_errors(pages: Pages, page: Page) -> Page:
    """Return a page function that returns an error page when it fails."""

    @wraps(page)
    def shown_page(request: Request) -> Response:
        try:
            return page(request)
        except (NotThereError, PathError) as error:
            return pages.refuse(404, str(error))
        except StoreUnavailableError as error:
            return pages.refuse(503, f"the store does not answer: {error}")
        except (ConfigstoreError, RecordError) as error:
            return pages.refuse(500, str(error))

    return shown_page


def _locked(known: Iterable[Stored], sides: Iterable[Loser | Unread]) -> str:
    """Return why a content cannot be opened: no key here fits, or it is plain where it must be sealed; else ""."""
    records = [*(each.record for each in known), *(each.record for each in sides if isinstance(each, Loser))]
    return next((each.locked for each in records if each.locked), "")


def _chosen(request: Request, known: list[Stored]) -> tuple[Stored | None, Stored | None]:
    """Return the two versions to compare: the requested ones, or the last two."""
    by_revision = {str(each.mod_revision): each for each in known}
    new = by_revision.get(request.query_params.get("new", ""), known[0] if known else None)
    if "old" in request.query_params:
        return by_revision.get(request.query_params["old"]), new
    at = known.index(new) if new else 0
    return (known[at + 1] if at + 1 < len(known) else None), new


def _summary(old: Entry | None, new: Entry | None) -> str:
    """Return the sizes of two binary contents, and whether they differ."""
    sizes = [f"{each.size} bytes" if each and each.kind is Kind.FILE else "no file" for each in (old, new)]
    same = old is not None and new is not None and old.sha256 == new.sha256
    what = "the same content" if same else "the content differs"
    return f"binary, or very long: {sizes[0]} there, {sizes[1]} here; {what}"

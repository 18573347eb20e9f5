"""The rights at etcd that a service needs, as ranges of keys, by its mappings. Called by `access` and `doctor`.

1. etcd allows a listing or a watch only if one grant covers its whole range. The range of a subtree S is
   `[files/S, files/S0)`: its own record and all below it. It includes a neighbour whose name continues with a
   character that sorts before `/`, such as `certs-x` beside `certs`; `beside` finds these. All other ranges begin
   with `S/` and include no neighbour.
2. A service that only pulls may read its subtree, and write losing sides to `conflicts/`.
3. A service that pushes may not write into the subtree of another service's mapping inside its own.
"""

import enum
from collections.abc import Callable, Iterable, Iterator

import msgspec

from configstore.model.keys import Keys, prefix_end
from configstore.model.path import ROOT, StorePath, is_below
from configstore.model.selection import Direction


class Right(enum.StrEnum):
    """What may be done in a range. WRITE alone exists in etcd, but configstore never grants it."""

    READ = "read"
    WRITE = "write"
    READWRITE = "readwrite"

    def covers(self, other: "Right") -> bool:
        """Return whether this right includes another."""
        return self in {other, Right.READWRITE}


class Grant(msgspec.Struct, frozen=True, order=True):
    """A right on the keys [start, end), or on `start` alone where `end` is empty."""

    start: bytes
    end: bytes
    right: Right

    def covers(self, other: "Grant") -> bool:
        """Return whether this grant includes another."""
        return self.right.covers(other.right) and self.start <= other.start and _end(other) <= _end(self)

    def holds(self, key: bytes) -> bool:
        """Return whether a key is in the range."""
        return self.start <= key < _end(self)


def _end(grant: Grant) -> bytes:
    return grant.end or grant.start + b"\0"


class RangeNeed(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a mapping that decides on rights. lease: "" for none."""

    mapping: str
    store: StorePath
    direction: Direction = Direction.BOTH
    lease: str = ""

    @property
    def writes(self) -> bool:
        """Whether the mapping writes records."""
        return self.direction is not Direction.PULL


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """A service with one certificate, and one user and one role at etcd of the same name.

    known: the mappings of all services that may exist, its own among them.
    """

    name: str
    user: str
    needs: tuple[RangeNeed, ...]
    known: tuple[RangeNeed, ...] = ()


class WantedRights(msgspec.Struct, frozen=True, kw_only=True):
    """A grant with its mapping ("" for all mappings) and its reason, as text."""

    grant: Grant
    mapping: str
    why: str


def wanted(keys: Keys, service: Service) -> list[WantedRights]:
    """Return all grants that a service needs, those of each mapping in full even if another's include them."""
    found = [each for need in service.needs for each in _of_mapping(keys, service, need)]
    return [*found, *_of_all(keys)]


def grants(keys: Keys, service: Service) -> tuple[Grant, ...]:
    """Return the grants of a service's role: as few as include all that it needs, sorted."""
    every = sorted({each.grant for each in wanted(keys, service)})
    return tuple(each for each in every if not any(other != each and other.covers(each) for other in every))


def _of_mapping(keys: Keys, service: Service, need: RangeNeed) -> Iterator[WantedRights]:
    def want(start: bytes, end: bytes, right: Right, why: str) -> WantedRights:
        return WantedRights(grant=Grant(start, end, right), mapping=need.mapping, why=why)

    strangers = _strangers_within(service, need) if need.writes else []
    for family, why in _FAMILIES:
        start, end = _range(keys, family, need.store)
        writes = need.writes or family == "conflicts"
        if not writes or strangers:
            yield want(start, end, Right.READ, f"to read {why}")
        if writes:
            holes = [_range(keys, family, store) for store in strangers]
            for part in _without(start, end, holes):
                yield want(*part, Right.READWRITE, f"to keep {why}")
    yield want(*_below(f"{keys.root}/replicas/{need.mapping}/"), Right.READWRITE, "to report what it does")
    if need.lease:
        queue = keys.lease_queue(need.lease)
        yield want(queue, b"", Right.READ, "to see the queue of its lease")
        yield want(queue + b"/", prefix_end(queue + b"/"), Right.READWRITE, "to take its lease")
        yield want(keys.intent(need.lease), b"", Right.READWRITE, "to note what it does under its lease")


def _of_all(keys: Keys) -> Iterator[WantedRights]:
    for (start, end), right, why in (
        (keys.replicas(), Right.READ, "to wait until all have applied a change"),
        (keys.asks(), Right.READWRITE, "to ask others for a report, and to be asked"),
        (keys.requests(), Right.READ, "to hear what a person wants"),
    ):
        yield WantedRights(grant=Grant(start, end, right), mapping="", why=why)


_FAMILIES = (
    ("files", "its records"),
    ("chunks", "large content"),
    ("past", "what was superseded"),
    ("conflicts", "losing sides"),
)


def _range(keys: Keys, family: str, store: StorePath) -> tuple[bytes, bytes]:
    """Return a subtree's range in a family of keys; in `files`, with the subtree's own record."""
    if store == ROOT:
        return _below(f"{keys.root}/{family}/")
    start, end = _below(f"{keys.root}/{family}/{store}/")
    return (keys.file(store) if family == "files" else start), end


def _below(prefix: str) -> tuple[bytes, bytes]:
    return prefix.encode(), prefix_end(prefix.encode())


def _strangers_within(service: Service, need: RangeNeed) -> list[StorePath]:
    """Return the subtrees inside a mapping's that only other services write."""
    ours = [each.store for each in service.needs if each.writes]
    within = {each.store for each in service.known if is_below(each.store, need.store)}
    strangers = sorted(store for store in within if not any(_is_at(one, store) for one in ours))
    return [store for store in strangers if not any(is_below(store, other) for other in strangers)]


def _is_at(path: StorePath, top: StorePath) -> bool:
    return path == top or is_below(path, top)


def _without(start: bytes, end: bytes, holes: Iterable[tuple[bytes, bytes]]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the parts of a range that are outside of `holes`, which are sorted and do not overlap."""
    for first, last in holes:
        if start < first:
            yield start, first
        start = last
    if start < end:
        yield start, end


class Beside(msgspec.Struct, frozen=True, kw_only=True):
    """A neighbour that the grant of a service's mapping includes although the service does not need it."""

    service: str
    mapping: str
    store: StorePath
    neighbour: StorePath
    right: Right


def beside(services: Iterable[Service]) -> list[Beside]:
    """Return the subtrees of known mappings that are in another mapping's range of `files`, but not below it."""
    found = []
    for service in services:
        stores = sorted({each.store for each in (*service.known, *service.needs)})
        found += [each for store in stores for each in included(service, store)]
    return found


def included(service: Service, path: StorePath) -> Iterator[Beside]:
    """Yield the mappings of a service whose grants include a path only because it is their neighbour."""
    for need in service.needs:
        if not (need.store and _lies_beside(path, need.store)):
            continue
        right = Right.READWRITE if need.writes else Right.READ
        if not any(_is_at(path, each.store) and (each.writes or not need.writes) for each in service.needs):
            first = path[len(need.store) :].partition("/")[0]
            yield Beside(
                service=service.name,
                mapping=need.mapping,
                store=need.store,
                neighbour=StorePath(need.store + first),
                right=right,
            )


def _lies_beside(path: StorePath, store: StorePath) -> bool:
    rest = path[len(store) :]
    return path.startswith(store) and rest[:1] != "" and rest[:1] < "/"


def neighbours(keys: Keys, need: RangeNeed) -> tuple[bytes, bytes]:
    """Return the range of `files` with the neighbours that a mapping's grant includes."""
    start = keys.file(need.store)
    return start + b"\0", start + b"/"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The grants that a role lacks, and those that it has in excess."""

    missing: tuple[Grant, ...] = ()
    excess: tuple[Grant, ...] = ()

    def __bool__(self) -> bool:
        """Return whether there is any difference."""
        return bool(self.missing or self.excess)


def difference(has: Iterable[Grant], wants: Iterable[Grant]) -> Difference:
    """Return the difference between a role's grants and the wanted ones."""
    before, after = set(has), set(wants)
    return Difference(missing=tuple(sorted(after - before)), excess=tuple(sorted(before - after)))


def words(root: str, grant: Grant, escape: Callable[[str], str]) -> str:
    """Return a range as text for a person, without the root key if it is below that."""
    start, end = (_relative(root, key, escape) for key in (grant.start, grant.end))
    if not grant.end:
        return start
    if grant.start.endswith(b"/") and grant.end == prefix_end(grant.start):
        return f"{start}*"
    if grant.end == prefix_end(grant.start + b"/"):
        return f"{start}, {start}/*"
    return f"{start} … {end}"


def _relative(root: str, key: bytes, escape: Callable[[str], str]) -> str:
    return escape(key.removeprefix(f"{root}/".encode()).decode("utf-8", "backslashreplace"))

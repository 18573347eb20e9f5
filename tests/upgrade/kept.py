"""A store and two replicas as 0.1.0 left them: what is in `data/`, and how it is brought back.

`store.jsonl` has one line for each revision of etcd, in order: the keys that it wrote, with their values and etcd
leases, and those that it deleted. Played into an empty etcd it gives every key the revisions that it had, by which
records, their past and the replicas' baselines refer to each other. `replicas.tar.xz` has the mirrored directories
`one` (all agreed) and `two` (behind), each with its `.configstore`, owners and modes.
"""

import base64
import contextlib
import itertools
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc

from configstore.embedded import EmbeddedEtcd
from configstore.store.api import Delete, Operation, Put
from configstore.store.etcd import EtcdKv
from configstore.store.etcd.stubs import Stub, rpc
from tests.harness.servers import connect
from tests.upgrade.versions import DATA

STORE, REPLICAS = DATA / "store.jsonl", DATA / "replicas.tar.xz"

ROOT = "/configstore"

LINE = b"A line of a file that is larger than a record may be, 64 bytes.\n"
LARGE, LARGER = LINE * 9000, LINE * 8999 + b"The last line is another one.\n"
"""More than 512 KiB: two pieces, of which the second one differs."""

BINARY = bytes(range(256))
VERSIONS = (b"version = 1\n", b"version = 2\n", b"version = 3\n")
USER = 4321
"""A number that has no name."""

FINAL: dict[str, tuple[str, int, tuple[int, int], bytes]] = {
    "app.ini": ("file", 0o640, (USER, USER), VERSIONS[-1]),
    "binary": ("file", 0o600, (0, 0), BINARY),
    "disputed": ("file", 0o644, (0, 0), b"what one wrote\n"),
    "empty": ("file", 0o600, (0, USER), b""),
    "later": ("file", 0o644, (0, 0), b"written when two was gone\n"),
    "link": ("symlink", 0, (0, 0), b"app.ini"),
    "long": ("dir", 0o750, (USER, USER), b""),
    "long/large": ("file", 0o644, (0, 0), LARGER),
    "long/up": ("symlink", 0, (0, 0), b"../app.ini"),
    "ein Name mit ü": ("file", 0o644, (0, 0), b"a name of several words\n"),
    "run.sh": ("file", 0o755, (0, 0), b"#!/bin/sh\n"),
}
"""What the store and `one` hold in the end: kind, mode, owner, and the content or a link's target."""

GONE = ("removed", "removed-later")
LOST = b"what two wrote\n"
"""The losing side of `disputed`."""

_PEER = "http://127.0.0.1:2380"
"""Nobody listens there. An etcd cluster's id follows from it, and the baselines name the cluster."""

_LONGEST_LINE = 4096
_LEAST_TTL = 600
"""Seconds that each etcd lease lasts here at least, so that nothing ends while a test runs."""


def empty_etcd(folder: Path) -> EmbeddedEtcd:
    """Return an etcd, not started yet, whose cluster has the same id wherever it runs."""
    cluster = [f"embedded={_PEER}"]
    return EmbeddedEtcd(folder=folder, cluster=cluster, arguments=[f"--initial-advertise-peer-urls={_PEER}"])


@contextlib.contextmanager
def store_of_old(folder: Path) -> Iterator[EmbeddedEtcd]:
    """Run an etcd that holds what 0.1.0 left."""
    with empty_etcd(folder) as etcd, connect(etcd.endpoint) as kv, lease_service(etcd.endpoint) as service:
        for text in STORE.read_text().splitlines():
            line = json.loads(text)
            for lease, ttl in line.get("leases", {}).items():
                service.LeaseGrant(rpc.LeaseGrantRequest(ID=int(lease), TTL=max(ttl, _LEAST_TTL)))
            operations: list[Operation] = [
                Put(_bytes(key), _bytes(value), lease) for key, value, lease in line.get("put", [])
            ]
            operations += [Delete(_bytes(key)) for key in line.get("delete", [])]
            done = kv.txn((), operations)
            assert done.revision == line["revision"], f"etcd gave {done.revision} for {line['revision']}"
        yield etcd


def replicas_of_old(folder: Path) -> None:
    """Lay the mirrored directories down, owners included, which needs root."""
    with tarfile.open(REPLICAS) as archive:
        archive.extractall(folder, filter="fully_trusted", numeric_owner=True)


def history(kv: EtcdKv, endpoint: str) -> Iterator[str]:
    """Return the lines of `store.jsonl` for all that an etcd has seen; of etcd leases, those that last still."""
    last = kv.status().revision
    events = []
    watch = kv.watch(b"\0", b"\0", start_revision=1)
    for batch in watch:
        events += batch.events
        if batch.revision >= last:
            break
    watch.close()
    granted = dict(_leases(endpoint))
    told: set[int] = set()
    for revision, group in itertools.groupby(events, lambda event: event.item.mod_revision):
        line: dict[str, Any] = {"revision": revision}
        for event in group:
            item = event.item
            if event.deleted:
                line.setdefault("delete", []).append(_text(item.key))
                continue
            if item.lease in granted and item.lease not in told:
                told.add(item.lease)
                line.setdefault("leases", {})[item.lease] = granted[item.lease]
            lease = item.lease if item.lease in granted else 0
            line.setdefault("put", []).append([_text(item.key), _text(item.value), lease])
        yield json.dumps(line, ensure_ascii=False)


@contextlib.contextmanager
def lease_service(endpoint: str) -> Iterator[Any]:
    """Yield etcd's service of leases itself: to make one of a given id is nothing that the product does."""
    with grpc.insecure_channel(endpoint.removeprefix("http://")) as channel:
        yield Stub(channel, "Lease")


def _leases(endpoint: str) -> Iterator[tuple[int, int]]:
    with lease_service(endpoint) as service:
        for each in service.LeaseLeases(rpc.LeaseLeasesRequest()).leases:
            yield each.ID, service.LeaseTimeToLive(rpc.LeaseTimeToLiveRequest(ID=each.ID)).grantedTTL


def _text(value: bytes) -> Any:
    """Return a value as JSON has it: text, or `base64`; a long one that repeats a line, as that line."""
    if len(value) > _LONGEST_LINE and value.startswith(LINE):
        count = len(value) // len(LINE)
        while value[: count * len(LINE)] != LINE * count:
            count -= 1
        return {"line": LINE.decode(), "times": count, "rest": _text(value[count * len(LINE) :])}
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(value).decode()}


def _bytes(value: Any) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if "base64" in value:
        return base64.b64decode(value["base64"])
    return value["line"].encode() * value["times"] + _bytes(value["rest"])

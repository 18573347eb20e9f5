"""Named values for planner tests: entries, sides, mappings."""

from configstore.model.path import parse_path
from configstore.model.record import Entry, Kind, sha256
from configstore.model.signature import Signature
from sidecar.mapping import Mapping
from sidecar.planner.sides import Agreed, LocalEntry, RemoteEntry

_inodes: dict[str, int] = {}


def a_file(content="one", mode=0o600, uid=0):
    return Entry(kind=Kind.FILE, mode=mode, uid=uid, gid=uid, size=len(content), sha256=sha256(content.encode()))


def a_dir(mode=0o755):
    return Entry(kind=Kind.DIR, mode=mode, uid=0, gid=0)


def a_link(target="one"):
    return Entry(kind=Kind.SYMLINK, target=target, uid=0, gid=0)


GONE = Entry(kind=Kind.GONE)


def here(entry, ino=1):
    signature = Signature(ino, entry.mode, 0, 0, entry.size, 0, 0)
    return LocalEntry(entry=entry, signature=signature)


def there(entry, revision=10, deletion=None):
    return RemoteEntry(entry=entry, mod_revision=revision, deletion=deletion)


def agreed_on(entry, revision=10, ino=1):
    return Agreed(local=entry, remote=entry, mod_revision=revision, ino=ino)


def a_mapping(**fields):
    return Mapping(**({"name": "certs", "store": parse_path("certs"), "path": "/certs"} | fields))

"""Named values for planner tests: entries, sides, mappings."""

from configstore.model.path import parse_path
from configstore.model.signature import Signature
from sidecar.mapping import Mapping
from sidecar.planner.sides import Agreement, LocalEntry, RemoteEntry
from tests.harness import named

_inodes: dict[str, int] = {}


def a_file(content="one", mode=0o600, uid=0):
    return named.a_file(content, mode, uid=uid, gid=uid)


def a_dir(mode=0o755):
    return named.a_dir(mode, uid=0, gid=0)


def a_link(target="one"):
    return named.a_link(target, uid=0, gid=0)


def here(entry, ino=1):
    signature = Signature(ino, entry.mode, 0, 0, entry.size, 0, 0)
    return LocalEntry(entry=entry, signature=signature)


def there(entry, revision=10, deletion=None):
    return RemoteEntry(entry=entry, mod_revision=revision, deletion=deletion)


def agreed_on(entry, revision=10, ino=1):
    return Agreement(local=entry, remote=entry, mod_revision=revision, ino=ino)


def a_mapping(**fields):
    return Mapping(**({"name": "certs", "store": parse_path("certs"), "path": "/certs"} | fields))

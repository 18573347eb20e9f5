"""Translates between paths and etcd's keys; nothing else knows the layout (see docs/store-layout.md).

    {root}/files/<path>                      the current record
    {root}/chunks/<path>//<digest>           a piece of large content
    {root}/past/<path>//<mod_revision>       a superseded record
    {root}/conflicts/<path>//<id>            the losing side of a conflict
    {root}/conflicts/<path>//<id>//<digest>  a piece of its content, when that is large
    {root}/leases/<name>/<lease id>          a lease's holder and its queue
    {root}/intents/<name>                    what was begun last under a lease
    {root}/replicas/<mapping>/<replica id>   a live replica
    {root}/replicas/<mapping>//<replica id>  a replica that has not said goodbye yet
    {root}/asks/<id>                         an ask for reports, which can cause nothing but a report
    {root}/requests/<id>                     a person's request to replicas
    {root}/doctor/<id>                       a key on which `doctor` tries its rights, for a moment

No path has an empty component, so the first `//` always ends the path.
"""

import re

from configstore.model.path import MAX_PATH, ROOT, PathError, StorePath, parse_path, printable, shell_word

DEFAULT_ROOT = "/configstore"

_ID = 128
"""Characters of the longest id of a losing side."""

_REVISION = re.compile(r"[0-9]{1,20}")
_SHOWN = 300

_TYPED = 3 * MAX_PATH
"""Bytes of a key that a command line takes: more than any key of configstore's has, so such a prefix fits none."""


class Keys:
    """The keys below one root."""

    __slots__ = ("root",)

    def __init__(self, root: str = DEFAULT_ROOT) -> None:
        """Take the root key; raises ValueError when it is not of the form `/name`."""
        if not root.startswith("/") or root.endswith("/") or "//" in root or not root.isprintable():
            raise ValueError(f"root {printable(root)!r}: expected a key such as {DEFAULT_ROOT}")
        self.root = root

    def file(self, path: StorePath) -> bytes:
        """Return the key of a path's current record."""
        return f"{self.root}/files/{path}".encode()

    def files_below(self, directory: StorePath) -> tuple[bytes, bytes]:
        """Return the half-open key range of the records below a directory, itself not included."""
        prefix = self.file(directory) + (b"" if directory == ROOT else b"/")
        return prefix, prefix_end(prefix)

    def files_at(self, directory: StorePath) -> tuple[bytes, bytes]:
        """Return the half-open key range from a directory's own record to the last one below it.

        Those of its neighbours whose names begin alike may lie in between.
        """
        return self.file(directory), self.files_below(directory)[1]

    def path_of_file(self, key: bytes) -> StorePath:
        """Return the path of a record's key. Raises PathError for a key no record may have."""
        prefix = f"{self.root}/files/".encode()
        if not key.startswith(prefix):
            raise PathError(f"key {shown_key(key)}: not below {self.root}/files/")
        return parse_path(key[len(prefix) :].decode("utf-8", "surrogateescape"))

    def text_of_file(self, key: bytes) -> str:
        """Return the path of a record's key as text, whatever its bytes are; not safe to print."""
        return key[len(self.file(ROOT)) :].decode("utf-8", "backslashreplace")

    def chunk(self, path: StorePath, digest: str) -> bytes:
        """Return the key of one piece of a path's content, `digest` being its SHA-256 in hexadecimal."""
        return f"{self.root}/chunks/{path}//{digest}".encode()

    def past(self, path: StorePath, mod_revision: int) -> bytes:
        """Return the key of the record that a path had at `mod_revision`.

        The revision is padded, so that the keys sort by age.
        """
        return f"{self.root}/past/{path}//{mod_revision:020d}".encode()

    def past_of(self, path: StorePath) -> bytes:
        """Return the prefix of all records that a path had."""
        return f"{self.root}/past/{path}//".encode()

    def past_range(self, directory: StorePath, *, alone: bool = False) -> tuple[bytes, bytes]:
        """Return the half-open key range of a directory's and all lower superseded records; `alone`: its own."""
        prefix = self.past_of(directory) if alone else f"{self.root}/past/{directory}/".encode()
        if directory == ROOT:
            prefix = f"{self.root}/past/".encode()
        return prefix, prefix_end(prefix)

    def path_of_past(self, key: bytes) -> tuple[StorePath, int]:
        """Return the path and the revision of a superseded record's key. Raises PathError."""
        prefix = f"{self.root}/past/".encode()
        path, _, revision = key.removeprefix(prefix).decode("utf-8", "surrogateescape").partition("//")
        if not key.startswith(prefix) or not _REVISION.fullmatch(revision):
            raise PathError(f"key {shown_key(key)}: not of {self.root}/past/")
        return parse_path(path), int(revision)

    def conflict(self, path: StorePath, conflict_id: str) -> bytes:
        """Return the key of one losing side of a conflict about a path."""
        return f"{self.root}/conflicts/{path}//{conflict_id}".encode()

    def conflict_chunk(self, path: StorePath, conflict_id: str, digest: str) -> bytes:
        """Return the key of one piece of a losing side, which is that side's alone and so expires with it."""
        return f"{self.root}/conflicts/{path}//{conflict_id}//{digest}".encode()

    def conflict_root(self) -> bytes:
        """Return the prefix of all losing sides."""
        return f"{self.root}/conflicts/".encode()

    def conflicts_at(self, directory: StorePath) -> bytes:
        """Return the prefix of the losing sides of a path and of all below it."""
        return self.conflict_root() + (f"{directory}/".encode() if directory else b"")

    def path_of_conflict(self, key: bytes) -> tuple[StorePath, str]:
        """Return the path and the id of a losing side's key. Raises PathError, also for a piece of its content."""
        prefix = self.conflict_root()
        path, _, name = key.removeprefix(prefix).decode("utf-8", "surrogateescape").partition("//")
        if not key.startswith(prefix) or not 0 < len(name) <= _ID or "/" in name or not name.isprintable():
            raise PathError(f"key {shown_key(key)}: no losing side of a conflict")
        return parse_path(path), name

    def lease_queue(self, name: str) -> bytes:
        """Return the prefix of a lease's queue, without the last slash: what `etcdctl lock` is given."""
        return f"{self.root}/leases/{name}".encode()

    def intent(self, name: str) -> bytes:
        """Return the key of what was begun last under a lease."""
        return f"{self.root}/intents/{name}".encode()

    def replica(self, mapping: str, replica: str) -> bytes:
        """Return the key under which a live replica reports about a mapping."""
        return f"{self.root}/replicas/{mapping}/{replica}".encode()

    def replicas(self) -> tuple[bytes, bytes]:
        """Return the half-open key range of all reports and of all expected replicas."""
        prefix = f"{self.root}/replicas/".encode()
        return prefix, prefix_end(prefix)

    def expected(self, mapping: str, replica: str) -> bytes:
        """Return the key that says that a replica is expected."""
        return f"{self.root}/replicas/{mapping}//{replica}".encode()

    def is_expected(self, key: bytes) -> bool:
        """Return whether a key in the range `replicas` is not a report's but an expected replica's."""
        return b"//" in key[len(self.replicas()[0]) :]

    def ask(self, name: str) -> bytes:
        """Return the key of an ask for reports."""
        return f"{self.root}/asks/{name}".encode()

    def asks(self) -> tuple[bytes, bytes]:
        """Return the half-open key range of all asks."""
        prefix = self.ask("")
        return prefix, prefix_end(prefix)

    def request(self, name: str) -> bytes:
        """Return the key of one request of a person; services must not be able to write it."""
        return f"{self.root}/requests/{name}".encode()

    def requests(self) -> tuple[bytes, bytes]:
        """Return the half-open key range of all persons' requests."""
        prefix = self.request("")
        return prefix, prefix_end(prefix)

    def trial(self, name: str) -> bytes:
        """Return a key that `doctor` makes and removes to find out its user's rights."""
        return f"{self.root}/doctor/{name}".encode()


def shown_key(key: bytes) -> str:
    """Return any key as printable text for a person, without its middle if it is too long."""
    text = key.decode("utf-8", "backslashreplace")
    return printable(text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}")


def removal(key: bytes) -> str:
    """Return the command that removes a key of etcd's, by its first bytes if it is too long to be typed."""
    typed = shell_word(key[:_TYPED].decode("utf-8", "surrogateescape"))
    return f"etcdctl del {'--prefix ' if len(key) > _TYPED else ''}{typed}"


def prefix_end(prefix: bytes) -> bytes:
    """Return the smallest key after every key that starts with `prefix` (etcd's range_end convention)."""
    for index in range(len(prefix) - 1, -1, -1):
        if prefix[index] < 0xFF:
            return prefix[:index] + bytes([prefix[index] + 1])
    return b"\0"  # etcd: to the end of the key space

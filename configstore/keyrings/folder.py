"""A folder with the master and the keyrings derived from it. Called by `seal keygen`, `rotate` and `forget`.

1. Each file is replaced as a whole, so that none is ever half-written.
2. A new secret is written to the master first, then to the keyrings. So no value is ever sealed with a key that
   the master cannot derive, and after a kill the next call completes the keyrings.
3. A secret is removed by `forget` alone, from the keyrings first and from the master last.
"""

import errno
import fcntl
import os
import secrets
import stat
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress

import msgspec

from configstore.errors import RefusedError, UsageError
from configstore.files.writing import TEMPORARY, replace_file
from configstore.model.path import StorePath, is_below, printable, shown
from configstore.model.seal import (
    MAX_KEYRING,
    SECRET,
    Keyring,
    KeyringError,
    Master,
    Secret,
    dump,
    parse,
)

MASTER = "master"
"""The name of the master's file."""

_MODE = 0o600


class WantedKeyring(msgspec.Struct, frozen=True, kw_only=True):
    """A keyring to make. stores: the subtrees that it opens. nested: whether also those below them."""

    stores: tuple[StorePath, ...]
    nested: bool = False


class KeyringFolder:
    """A folder of keyrings, locked against other commands while it is open; see `opened`."""

    def __init__(self, path: str, descriptor: int, master_name: str = MASTER) -> None:
        self.path = path
        self._descriptor = descriptor
        self._master_name = master_name
        self.master: Master | None = None
        self.keyrings: dict[str, Keyring] = {}
        self._read()

    def _read(self) -> None:
        for name in sorted(os.listdir(self._descriptor)):
            if name.startswith(TEMPORARY):
                continue  # left of a command that was killed, or another program's
            found = self._parsed(name)
            if name == self._master_name:
                if not isinstance(found, Master):
                    raise UsageError(f"keyring {self.file(name)}: no master: {found or 'it cannot be read'}")
                self.master = found
            elif isinstance(found, Keyring):
                self.keyrings[name] = found

    def _parsed(self, name: str) -> Keyring | Master | str:
        """Return the keyring or master in a file, or the reason why it is neither."""
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(name, flags, dir_fd=self._descriptor)
        except OSError as error:
            if error.errno == errno.ELOOP:  # a new file would replace the link, not the file it leads to
                return "it is a link: name the folder in which the file itself lies"
            return error.strerror or str(error)
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # such as a folder of certificates
            os.close(descriptor)
            return "no regular file"
        with os.fdopen(descriptor, "rb") as file:
            try:
                return parse(file.read(MAX_KEYRING + 1))
            except (KeyringError, OSError) as error:
                return str(error)

    def file(self, name: str) -> str:
        """Return a file's path, safe to print."""
        return printable(os.path.join(self.path, name))

    @property
    def master_file(self) -> str:
        """The master's path, safe to print."""
        return self.file(self._master_name)

    def add(self, wanted: Mapping[str, WantedKeyring], subtrees: Collection[StorePath], *, made: str) -> list[str]:
        """Make the master and the wanted keyrings if they are missing; returns the names of the files written.

        subtrees: those that get keys of their own. Raises RefusedError, OSError.
        """
        if self.master is None and self.keyrings:
            raise RefusedError(
                f"{self.path}: keyrings are here ({', '.join(self.keyrings)}), and their master is not: put it"
                f" back as {self.master_file}, or name another --out; a new one would not open what is sealed"
            )
        for name, each in wanted.items():
            there = self.keyrings.get(name)
            if there and not {key.subtree for key in there.keys} & set(each.stores):
                raise RefusedError(f"{self.file(name)}: is the keyring of other subtrees: name another --out")
            if not there and os.path.lexists(os.path.join(self.path, name)):
                raise RefusedError(f"{self.file(name)}: is there and no keyring: {self._parsed(name)}")
        before = self.master
        self.master = before or Master(secrets=(_fresh(made),))
        more = tuple(sorted({*self.master.subtrees, *subtrees}))
        self.master = msgspec.structs.replace(self.master, subtrees=more)
        written = [self._write(self._master_name, self.master)] if self.master != before else []
        return written + self.sync(wanted)

    def sync(self, wanted: Mapping[str, WantedKeyring] | None = None) -> list[str]:
        """Write the keyrings that lack a key; returns their names. Raises OSError.

        RefusedError: a keyring has a key that does not follow from this master, and would lose it.
        """
        for name, ring in self.keyrings.items():
            self._refuse_strange(name, ring)
        written = []
        for name in sorted({*self.keyrings, *(wanted or {})}):
            there = self.keyrings.get(name)
            ring = self._complete(name, there, (wanted or {}).get(name))
            if ring != there:
                self.keyrings[name] = ring
                written.append(self._write(name, ring))
        return written

    def _complete(self, name: str, there: Keyring | None, wanted: WantedKeyring | None) -> Keyring:
        master = self.the_master()
        stores = {key.subtree for key in there.keys} if there else set()
        stores |= set(wanted.stores) if wanted else set()
        nested = wanted.nested if wanted else False
        own = {store for store in stores if file_name(store) == name}  # a subtree's, by its name
        tops = stores if nested else own
        stores |= {each for each in master.subtrees if any(is_below(each, top) for top in tops)}
        return master.keyring_of(stores)

    def _refuse_strange(self, name: str, ring: Keyring) -> None:
        known = {secret.key(key.subtree).id for secret in self.the_master().secrets for key in ring.keys}
        strange = next((key.id for key in ring.keys if key.id not in known), None)
        if strange:
            raise RefusedError(
                f"{self.file(name)}: has the key {strange}, which does not follow from {self.master_file}: that is"
                " another master, or an older copy of it; bring the newest one, or move the keyring away"
            )

    def renew(self, *, made: str) -> None:
        """Add a new secret as the newest one, to the master and then to the keyrings. Raises OSError."""
        self.master = self._with((_fresh(made), *self.the_master().secrets))
        self._write(self._master_name, self.master)
        self.sync()

    def forget(self, forgotten: Collection[Secret]) -> None:
        """Remove secrets from the keyrings, and then from the master. Raises OSError."""
        self.master = self._with(tuple(each for each in self.the_master().secrets if each not in forgotten))
        for name, ring in [*self.keyrings.items()]:
            self.keyrings[name] = self.master.keyring_of({key.subtree for key in ring.keys})
            self._write(name, self.keyrings[name])
        self._write(self._master_name, self.master)

    def _with(self, found: tuple[Secret, ...]) -> Master:
        return msgspec.structs.replace(self.the_master(), secrets=found)

    def the_master(self) -> Master:
        """Return the master. Raises RefusedError if there is none."""
        if self.master is None:
            raise RefusedError(f"{self.master_file}: not there")
        return self.master

    def _write(self, name: str, ring: Keyring | Master) -> str:
        replace_file(self._descriptor, name, dump(ring), _MODE, durable=True)
        return name


def _fresh(made: str) -> Secret:
    return Secret(secret=secrets.token_bytes(SECRET), made=made)


@contextmanager
def opened(path: str, *, make: bool = False, master_name: str = MASTER) -> Iterator[KeyringFolder]:
    """Open a folder; `make`: make it (0700) if it is missing. Raises UsageError, RefusedError, OSError."""
    try:
        if make:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise UsageError(f"{printable(path)}: {error.strerror}") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)  # ends with the descriptor
    except BlockingIOError:
        os.close(descriptor)
        raise RefusedError(f"{printable(path)}: another command is at work there; wait for it") from None
    try:
        folder = KeyringFolder(path, descriptor, master_name)
        yield folder
    finally:
        os.close(descriptor)


def file_name(subtree: StorePath) -> str:
    """Return the name of a subtree's keyring."""
    return subtree.replace("/", "-")


def named(
    subtrees: Collection[StorePath], services: Mapping[str, Collection[StorePath]], *, one: str | None = None
) -> dict[str, WantedKeyring]:
    """Return the keyrings of subtrees and of services by file name. Raises UsageError if two have the same name.

    one: the name of a single keyring for all of them.
    """
    if one and (subtrees or services):
        every = tuple(sorted({*subtrees, *(store for found in services.values() for store in found)}))
        return _usable({one: WantedKeyring(stores=every, nested=True)})
    wanted: dict[str, WantedKeyring] = {}
    for store in subtrees:
        name = file_name(store)
        if name in wanted:
            raise UsageError(
                f"--subtree {shown(store)} and {shown(wanted[name].stores[0])}: both keyrings would be {name}"
            )
        wanted[name] = WantedKeyring(stores=(store,), nested=True)
    for name, stores in services.items():
        if name in wanted and set(wanted[name].stores) != set(stores):
            raise UsageError(
                f"the subtree {name} and the service {name}: both keyrings would be {name}; name another --out"
            )
        wanted.setdefault(name, WantedKeyring(stores=tuple(stores)))
    return _usable(wanted)


def _usable(wanted: dict[str, WantedKeyring]) -> dict[str, WantedKeyring]:
    """Return the keyrings. Raises UsageError if one has a name that no keyring may have."""
    if MASTER in wanted:
        raise UsageError(f"{MASTER}: a keyring of that name would take the master's place")
    if bad := next((name for name in wanted if name.startswith(TEMPORARY)), None):
        raise UsageError(f"{printable(bad)}: no name for a keyring")
    return wanted

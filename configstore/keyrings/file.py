"""Reads a keyring's file, and again when it was replaced. Called by the commands and the sidecar."""

import os

from configstore.errors import UsageError
from configstore.model.path import printable
from configstore.model.seal import MAX_KEYRING, Keyring, KeyringError, Master, parse


class KeyringFile:
    """The file that a setting names.

    mode: its permission bits when it was last read. master: whether it holds the master secrets.
    trouble: why the file differs from the keyring that is used; "" while it does not.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.mode = 0
        self.master = False
        self.trouble = ""
        self._signature: tuple[int, ...] | None = None

    def read(self) -> Keyring:
        """Return the keyring in it. Raises UsageError, which quotes nothing of it."""
        try:
            with open(self.path, "rb") as file:
                status = os.fstat(file.fileno())
                text = file.read(MAX_KEYRING + 1)
            found = parse(text)
        except OSError as error:
            raise UsageError(f"keyring {printable(self.path)}: {error.strerror}") from None
        except KeyringError as error:
            raise UsageError(f"keyring {printable(self.path)}: {error}") from None
        self.mode = status.st_mode & 0o777
        self._signature = _signature(status)
        self.master = isinstance(found, Master)
        self.trouble = ""
        return found.keyring() if isinstance(found, Master) else found

    def changed(self) -> Keyring | None:
        """Return the keyring in it if the file was replaced since it was read and is usable; else None.

        While a replaced file is not usable, `trouble` says why, and the caller goes on with the keyring it has.
        """
        try:
            if _signature(os.stat(self.path)) == self._signature and not self.trouble:
                return None
            return self.read()
        except OSError as error:
            self.trouble = f"keyring {printable(self.path)}: {error.strerror}{_KEPT}"
        except UsageError as error:
            self.trouble = f"{error}{_KEPT}"
        return None


_KEPT = "; the one that was read last is used: bring it back before the next start"


def _signature(status: os.stat_result) -> tuple[int, ...]:
    return status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns, status.st_ctime_ns

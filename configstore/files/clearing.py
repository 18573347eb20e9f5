"""Makes way at a name in a directory where a stranger may have laid something, however large or deep that is."""

import os
import secrets


def clear_name(name: str, directory: int, attic: int | None = None) -> None:
    """Let nothing lie at a name; what cannot be removed at once is renamed, into `attic` if given.

    Raises OSError.
    """
    try:
        os.unlink(name, dir_fd=directory)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        try:
            os.rmdir(name, dir_fd=directory)
        except OSError:
            aside = f"left-{secrets.token_hex(8)}"
            os.rename(name, aside, src_dir_fd=directory, dst_dir_fd=directory if attic is None else attic)

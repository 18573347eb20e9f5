"""A store for a mail platform's small precious files, kept in etcd.

This package is the store and the `configstore` command; it is usable without the daemon, which lives in
`sidecar` and imports this package, never the reverse.
"""

import sys

from configstore.later import load_later

# For what was probably meant, settings in files, TLS, archives of shutil's, addresses of urllib.parse's.
load_later("difflib", "tomllib", "ssl", "bz2", "lzma", "ipaddress")

# Python's own SHA-256 instead of OpenSSL's library, which would be a tenth of a sidecar's memory and 3 ms of each
# command: of small files it is not felt, and 300 MB of a large one it does in a second.
sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type] # None: it cannot be imported

__version__ = "0.1.0"

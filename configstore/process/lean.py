"""What our programs do without until they use it: imported first by `configstore.cli` and by `sidecar`.

It changes what the whole process imports, so no library module imports it.
"""

import sys
from contextlib import suppress
from importlib import import_module

from configstore.process.later import load_later

# For what was probably meant, settings in files, TLS, archives of shutil's, addresses of urllib.parse's, patterns.
load_later("difflib", "tomllib", "ssl", "bz2", "lzma", "ipaddress", "pathspec")

# A third of what gRPC and protobuf take: an event loop with TLS of its own, and messages in Python and as text.
load_later("asyncio", "grpc.aio", "google.protobuf.internal.python_message", "calendar")


def _has_own_sha256() -> bool:
    for name in ("_sha2", "_sha256"):  # the latter up to Python 3.11
        with suppress(ImportError):
            import_module(name)
            return True
    return False


# Python's own SHA-256 instead of OpenSSL's library, which would be a tenth of a sidecar's memory and 3 ms of each
# command: of small files it is not felt, and 300 MB of a large one it does in a second. A Python that was built
# without its own (configure --with-builtin-hashlib-hashes), as by some distributions, has no other than OpenSSL's.
if _has_own_sha256():
    sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type] # None: it cannot be imported

"""Libraries that both programs load only when they use them. Imported first by `configstore.cli` and `sidecar`.

It changes what the whole process imports, so no library module imports it.
"""

import sys
from contextlib import suppress
from importlib import import_module

from configstore.process.later import load_later

# For hints in errors, settings files, TLS, archives in shutil, addresses in urllib.parse, patterns of mappings.
load_later("difflib", "tomllib", "ssl", "bz2", "lzma", "ipaddress", "pathspec")

# A third of what gRPC and protobuf take, and not used: an event loop with TLS, messages in pure Python.
load_later("asyncio", "grpc.aio", "google.protobuf.internal.python_message", "calendar")


def _has_own_sha256() -> bool:
    for name in ("_sha2", "_sha256"):  # the latter up to Python 3.11
        with suppress(ImportError):
            import_module(name)
            return True
    return False


# Python's own SHA-256 instead of OpenSSL's, whose library would take a tenth of a sidecar's memory and 3 ms of
# each command. Python's hashes 300 MB a second, which is enough. A Python that was built without its own, as by
# some distributions (configure --with-builtin-hashlib-hashes), has OpenSSL's only.
if _has_own_sha256():
    sys.modules.setdefault("_hashlib", None)  # type: ignore[arg-type] # None: it cannot be imported

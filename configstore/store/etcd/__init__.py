"""The real store: etcd over gRPC. Nothing outside this package imports etcd3, grpc or protobuf.

client.EtcdKv → calls (deadline, failover, retry) → login (token) → connection (channels) → stubs (etcd3)
                watch (one stream each) ← life (notices a silent server)
messages translates values, errors translates failures.
"""

import os

# gRPC's C core writes its own lines to stderr, one for every failed handshake; failures arrive here anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from configstore.later import load_later

# A third of what these libraries take is for others than us: an event loop with TLS of its own, and messages in
# Python and as text. Whoever does use one of these gets it.
load_later("asyncio", "grpc.aio", "google.protobuf.internal.python_message", "calendar")

from configstore.store.etcd.client import EtcdKv  # noqa: E402 - see above

__all__ = ["EtcdKv"]

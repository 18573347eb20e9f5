"""The real store: etcd over gRPC. Nothing outside this package imports etcd3, grpc or protobuf.

client.EtcdKv → calls (deadline, failover, retry) → login (token) → connection (channels) → stubs (etcd3)
                watch (one stream each) ← life (notices a silent server)
messages translates values, errors translates failures.
"""

import os

# gRPC's C core writes its own lines to stderr, one for every failed handshake; failures arrive here anyway.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from configstore.store.etcd.client import EtcdKv

__all__ = ["EtcdKv"]

"""The store's implementation for etcd, over gRPC. Nothing outside this package imports grpc or protobuf.

client.EtcdKv → calls (deadline, failover, retry) → login (token) → connection (channels) → stubs (messages)
                watch (one stream each) ← liveness (notices a silent server) → contact (the last answer)
messages translates values, errors translates failures.
"""

import os

# gRPC's C core would write a line to stderr for every failed handshake, which it also raises.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")

from configstore.store.etcd.client import EtcdKv

__all__ = ["EtcdKv"]

"""The store: `api` is the contract, `etcd` keeps it, `tree` puts paths and records on top.

tree.Tree (paths, records, chunks, history)  →  api.Kv (keys, txns, watches)  ⇐  memory.MemoryKv | etcd.EtcdKv
"""

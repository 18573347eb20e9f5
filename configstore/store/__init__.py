"""The store: `api` is the contract of a connection, `etcd` implements it, `tree` adds paths and records.

tree.Tree (paths, records)  →  store.Store (connection and keys)  →  api.Kv (txns, watches)  ⇐  etcd.EtcdKv
"""

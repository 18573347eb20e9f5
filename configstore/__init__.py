"""A store for a mail platform's small precious files, kept in etcd.

This package is the store and the `configstore` command; it is usable without the daemon, which lives in
`sidecar` and imports this package, never the reverse.
"""

__version__ = "0.2.0"

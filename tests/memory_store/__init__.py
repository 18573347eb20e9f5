"""The reference store: the contract of `configstore.store.api` kept in memory, for tests and simulation."""

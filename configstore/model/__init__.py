"""The pure core: paths, records and keys. Nothing here reads a clock, a file or the network."""

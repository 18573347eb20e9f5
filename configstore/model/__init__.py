"""The pure core: paths, records, keys, reports, rights. Nothing here reads a clock, a file or the network."""

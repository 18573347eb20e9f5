"""The tests; a package, so that files of one name may lie in several folders and share `tests.harness.servers`."""

"""The reference pages in docs/ and the man pages, made from the code so that they cannot go stale.

`make reference` writes them; tests/docs/test_reference.py compares what is committed with what would be written.
"""

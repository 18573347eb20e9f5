"""What tests leave open is noticed, and who left it."""

import os

import pytest

from tests.harness.descriptors import MOST, Watcher


def test_who_left_descriptors_open_is_named(tmp_path):
    watcher, opened = Watcher(), [os.open(tmp_path, os.O_RDONLY) for _ in range(2 * MOST)]
    watcher.after("a test of many files")
    try:
        with pytest.raises(AssertionError, match=r"descriptors were left open.*by .*a test of many files"):
            watcher.check(0.1)
    finally:
        for descriptor in opened:
            os.close(descriptor)
    watcher.check(10)

"""What a file system refuses is said in words, with the mend."""

import errno
import os

import pytest

from configstore.files.reasons import why_failed

MENDED = (
    "EACCES EPERM EBUSY ETXTBSY ENOSPC EDQUOT EROFS EXDEV EMFILE ENFILE ELOOP ENOTDIR EISDIR ENOTEMPTY"
    " ENAMETOOLONG EIO ESTALE"
)


@pytest.mark.parametrize("name", MENDED.split())
def test_an_error_that_an_operator_can_mend_has_words_of_its_own(name):
    code = getattr(errno, name)
    assert why_failed(OSError(code, os.strerror(code))) != os.strerror(code)


def test_any_other_error_is_said_as_the_system_says_it():
    assert why_failed(OSError(errno.ECHILD, "No child processes")) == "No child processes"
    assert why_failed(OSError("no number")) == "no number"

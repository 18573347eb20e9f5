"""Opens below a directory, with openat2 and without it: no trick leads out."""

import errno
import os

import pytest

from configstore.files.beneath import Beneath, has_openat2
from tests.sidecar.local.named import open_descriptors

READ = os.O_RDONLY | os.O_NONBLOCK


@pytest.fixture
def top(tmp_path):
    """Return a directory to open below, with a secret beside it."""
    (tmp_path / "secret").write_text("secret")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "file").write_text("secret")
    top = tmp_path / "top"
    (top / "a" / "b").mkdir(parents=True)
    (top / "a" / "b" / "file").write_text("content")
    return top


@pytest.fixture(params=[True, False], ids=["openat2", "component-wise"])
def beneath(request, top):
    """Return the way to open below `top`, in both kinds."""
    if request.param and not has_openat2():
        pytest.fail(
            "openat2 is not to be had: needs Linux 5.6 and a seccomp profile that allows it", pytrace=False
        )
    descriptor = os.open(top, os.O_RDONLY)
    yield Beneath(descriptor, openat2=request.param)
    os.close(descriptor)


def content(descriptor):
    with os.fdopen(descriptor) as file:
        return file.read()


def refusal(call, *args):
    before = open_descriptors()
    with pytest.raises(OSError, match=r"^\[Errno") as refused:
        os.close(call(*args))
    assert open_descriptors() == before
    return refused.value.errno


def test_a_file_below_is_opened(beneath):
    assert content(beneath.open("a/b/file", READ)) == "content"


def test_the_directory_itself_is_opened_by_the_empty_path(beneath, top):
    descriptor = beneath.open("", os.O_RDONLY | os.O_DIRECTORY)
    assert os.path.samestat(os.fstat(descriptor), top.stat())
    os.close(descriptor)


def test_descriptors_are_not_inherited_by_hooks(beneath):
    descriptor = beneath.open("a", os.O_RDONLY | os.O_DIRECTORY)
    assert not os.get_inheritable(descriptor)
    os.close(descriptor)


@pytest.mark.parametrize("path", ["../secret", "a/../../secret", "..", "a/../..", "a/../../outside/file"])
def test_no_path_climbs_out(beneath, path):
    assert refusal(beneath.open, path, READ) == errno.EXDEV


def test_an_absolute_path_is_refused(beneath, tmp_path):
    assert refusal(beneath.open, str(tmp_path / "secret"), READ) in {errno.EXDEV, errno.ENOENT}


def test_a_symlink_as_last_component_is_refused(beneath, top):
    (top / "link").symlink_to("../secret")
    assert refusal(beneath.open, "link", READ) == errno.ELOOP


def test_a_symlink_in_the_middle_is_refused(beneath, top):
    (top / "link").symlink_to("../outside")
    assert refusal(beneath.open, "link/file", READ) in {errno.ELOOP, errno.ENOTDIR}


def test_even_a_harmless_symlink_in_the_middle_is_refused(beneath, top):
    (top / "link").symlink_to("a")
    assert refusal(beneath.open, "link/b/file", READ) in {errno.ELOOP, errno.ENOTDIR}


def test_a_missing_component_is_simply_missing(beneath):
    assert refusal(beneath.open, "a/none/file", READ) == errno.ENOENT


def test_a_mount_on_the_way_is_refused(beneath, top, tmpfs):
    mounted = tmpfs(top / "a" / "b")
    (mounted / "other").write_text("other")
    assert refusal(beneath.open, "a/b/other", READ) == errno.EXDEV
    assert refusal(beneath.open, "a/b", os.O_RDONLY | os.O_DIRECTORY) == errno.EXDEV


def test_following_stays_below(beneath, top):
    (top / "inner").symlink_to("a/b/file")
    (top / "a" / "up").symlink_to("../inner")
    assert content(beneath.open_following("a/up", READ)) == "content"


@pytest.mark.parametrize("target", ["../secret", "../outside/file", "a/../../secret"])
def test_following_never_leads_out(beneath, top, target):
    (top / "link").symlink_to(target)
    assert refusal(beneath.open_following, "link", READ) == errno.EXDEV


def test_following_an_absolute_link_out_is_refused(beneath, top, tmp_path):
    (top / "link").symlink_to(tmp_path / "secret")
    assert refusal(beneath.open_following, "link", READ) == errno.EXDEV


def test_following_through_a_linked_directory_out_is_refused(beneath, top):
    (top / "link").symlink_to("../outside")
    assert refusal(beneath.open_following, "link/file", READ) == errno.EXDEV


def test_a_fifo_does_not_hold_the_open_up(beneath, top):
    os.mkfifo(top / "fifo")
    os.close(beneath.open("fifo", READ))

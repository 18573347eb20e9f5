"""The mirrored directory: prepared safely, and recognised again or not touched at all."""

import os
import shutil
import stat

import pytest

from configstore.errors import RefusedError
from sidecar.local.mirrored_directory import DirectoryLostError, MirroredDirectory, is_mount
from tests.sidecar.local.named import NOBODY, as_nobody, no_descriptors_left, open_descriptors, unmount


@pytest.fixture
def opened():
    """Return a function that opens a directory for mirroring."""
    roots = []

    def make(path, **options):
        roots.append(MirroredDirectory(str(path), **options))
        return roots[-1]

    yield make
    for root in roots:
        root.close()


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


# Opening


def test_a_missing_directory_is_made(opened, tmp_path):
    root = opened(tmp_path / "new")
    assert root.check() is None
    assert (tmp_path / "new" / ".configstore").is_dir()


def test_a_directory_below_a_missing_one_is_refused_with_the_mend(opened, tmp_path):
    with pytest.raises(RefusedError, match="the directory above it does not exist"):
        opened(tmp_path / "none" / "new")
    assert not (tmp_path / "none").exists()


def test_a_file_in_its_place_is_refused(opened, tmp_path):
    (tmp_path / "file").write_text("precious")
    with pytest.raises(RefusedError, match="not a directory"):
        opened(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "precious"


def test_the_private_directory_is_nobody_elses(opened, tmp_path):
    opened(tmp_path)
    assert mode(tmp_path / ".configstore") == 0o700
    assert mode(tmp_path / ".configstore" / "staging") == 0o700


def test_a_private_directory_open_to_others_is_closed(opened, tmp_path):
    (tmp_path / ".configstore").mkdir()
    (tmp_path / ".configstore").chmod(0o777)
    opened(tmp_path)
    assert mode(tmp_path / ".configstore") == 0o700


@pytest.mark.parametrize("prepare", [True, False])
def test_a_symlink_named_like_the_private_directory_is_refused(opened, tmp_path, prepare):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "top").mkdir()
    (tmp_path / "top" / ".configstore").symlink_to("../elsewhere")
    with pytest.raises(RefusedError, match=r"\.configstore in it is a symlink or a file: remove it"):
        opened(tmp_path / "top", prepare=prepare)
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_named_like_the_private_directory_is_refused(opened, tmp_path):
    (tmp_path / ".configstore").write_text("mine")
    with pytest.raises(RefusedError, match=r"\.configstore in it is a symlink or a file: remove it"):
        opened(tmp_path)


def test_a_symlink_named_like_the_staging_directory_is_refused(opened, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_text("precious")
    (tmp_path / "top" / ".configstore").mkdir(parents=True)
    (tmp_path / "top" / ".configstore" / "staging").symlink_to("../../elsewhere")
    with pytest.raises(RefusedError):
        opened(tmp_path / "top")
    assert (tmp_path / "elsewhere" / "file").read_text() == "precious"


def test_another_users_private_directory_is_refused(opened, theirs):
    if os.geteuid() != 0:
        pytest.fail("this test gives a directory to another user, which needs root", pytrace=False)
    (theirs / ".configstore").mkdir()
    os.chown(theirs / ".configstore", NOBODY + 1, NOBODY)
    with as_nobody(), pytest.raises(RefusedError, match=r"no permission|belongs to uid"):
        opened(theirs)


def test_root_takes_its_private_directory_back_from_a_service_that_gave_all_to_its_user(opened, theirs):
    if os.geteuid() != 0:
        pytest.fail("this test gives a directory to another user, which needs root", pytrace=False)
    (theirs / ".configstore/staging").mkdir(parents=True)
    for folder in (theirs / ".configstore", theirs / ".configstore/staging"):
        os.chown(folder, NOBODY, NOBODY)
    opened(theirs)
    assert (theirs / ".configstore").stat().st_uid == 0
    assert (theirs / ".configstore/staging").stat().st_uid == 0
    assert (theirs / ".configstore").stat().st_mode & 0o777 == 0o700


def test_a_directory_without_rights_is_refused_with_the_mend(opened, theirs):
    theirs.chmod(0o500)
    with as_nobody(), pytest.raises(RefusedError, match="no permission: run the sidecar as"):
        opened(theirs)


def test_what_a_dead_run_left_in_staging_is_removed(opened, tmp_path):
    staging = tmp_path / ".configstore" / "staging"
    (staging / "directory/below").mkdir(parents=True)
    (staging / "0").write_text("half")
    (staging / "1").symlink_to("/etc/passwd")
    opened(tmp_path).private.clear_staging()
    assert list(staging.iterdir()) == []


def test_preview_changes_nothing(opened, tmp_path):
    root = opened(tmp_path, prepare=False)
    assert list(tmp_path.iterdir()) == []
    assert (root.private.fd, root.staging_fd) == (-1, -1)
    assert os.listdir(opened(tmp_path / "missing", prepare=False).fd) == []
    assert not (tmp_path / "missing").exists()
    with pytest.raises(RefusedError, match="the directory above it does not exist"):
        opened(tmp_path / "missing/below", prepare=False)


def test_preview_sees_the_private_directory_and_leaves_its_staging(opened, tmp_path):
    staging = tmp_path / ".configstore" / "staging"
    staging.mkdir(parents=True)
    (staging / "0").write_text("half")
    root = opened(tmp_path, prepare=False)
    assert os.listdir(root.private.fd) == ["staging"]
    assert (staging / "0").read_text() == "half"


def test_a_refused_directory_leaves_no_descriptor_open(opened, tmp_path):
    (tmp_path / ".configstore").symlink_to("/")
    before = open_descriptors()
    for _ in range(3):
        with pytest.raises(RefusedError):
            opened(tmp_path)
    assert open_descriptors() == before


def test_a_closed_directory_leaves_no_descriptor_open(tmp_path):
    before = open_descriptors()
    MirroredDirectory(str(tmp_path)).close()
    assert open_descriptors() == before


# Where another user decides what lies there


@pytest.fixture
def shared(theirs):
    """Return a directory in one that belongs to another user, who owns it as well."""
    if os.geteuid() != 0:
        pytest.fail("this test plays two users, which needs root", pytrace=False)
    (theirs / "top").mkdir()
    os.chown(theirs / "top", NOBODY, NOBODY)
    return theirs / "top"


def test_what_belongs_to_that_user_is_taken(opened, shared):
    assert opened(shared).check() is None


def test_what_belongs_to_root_is_refused_with_the_mend(opened, shared):
    os.chown(shared, 0, 0)
    with pytest.raises(RefusedError, match=f"belongs to uid 0, while uid {NOBODY} can put what it likes here"):
        opened(shared)
    assert not (shared / ".configstore").exists()


def test_what_belongs_to_a_third_one_is_refused(opened, shared):
    os.chown(shared, NOBODY - 1, NOBODY)
    with pytest.raises(RefusedError, match="mount a volume here, or give the directory"):
        opened(shared)


def test_where_all_may_write_only_roots_is_refused(opened, shared):
    os.chown(shared.parent, 0, 0)
    shared.parent.chmod(0o777)
    opened(shared).close()
    shutil.rmtree(shared / ".configstore")
    os.chown(shared, 0, 0)
    with pytest.raises(RefusedError, match="while any user can put what it likes here"):
        opened(shared)


def test_what_is_made_there_is_made_for_that_user_and_taken_again(opened, shared):
    opened(shared.parent / "new").close()
    assert (shared.parent / "new").stat().st_uid == NOBODY
    opened(shared.parent / "new")


def test_what_bears_our_mark_is_taken_whose_ever_it_is(opened, shared):
    made = opened(shared)
    made.private.renew_mark()
    made.close()
    os.chown(shared, 0, 0)
    with pytest.raises(RefusedError, match="can put what it likes here"):
        opened(shared, mark="0" * 32)
    opened(shared, mark=made.private.mark)


def test_a_private_directory_put_where_one_is_made_is_not_taken(shared, monkeypatch):
    (shared.parent / "secret").mkdir(mode=0o700)
    (shared.parent / "secret/key").write_text("SECRET")
    real = os.mkdir

    def exchanged(name, *how, **more):
        real(name, *how, **more)
        if name == "new":
            (shared.parent / "new").rmdir()
            (shared.parent / "secret").rename(shared.parent / "new")

    monkeypatch.setattr(os, "mkdir", exchanged)
    with pytest.raises(RefusedError, match="Stale file handle"):
        MirroredDirectory(str(shared.parent / "new"))
    found = (shared.parent / "new").stat()
    assert (stat.S_IMODE(found.st_mode), found.st_uid) == (0o700, 0)
    assert os.listdir(shared.parent / "new") == ["key"]


def test_a_mount_there_is_taken(opened, shared, tmpfs):
    opened(tmpfs(shared))


def test_a_sticky_directory_lets_nobody_exchange_what_is_not_theirs(opened, shared):
    os.chown(shared.parent, 0, 0)
    shared.parent.chmod(0o1777)
    os.chown(shared, 0, 0)
    opened(shared)


# Recognising it again


def test_an_untouched_directory_is_fine(opened, tmp_path):
    root = opened(tmp_path)
    (tmp_path / "file").write_text("content")
    assert root.check() is None


def test_an_emptied_directory_is_lost(opened, tmp_path):
    root = opened(tmp_path / "top")
    shutil.rmtree(tmp_path / "top" / ".configstore")
    with pytest.raises(DirectoryLostError, match="was emptied"):
        root.check()


def test_a_replaced_directory_is_lost(opened, tmp_path):
    root = opened(tmp_path / "top")
    (tmp_path / "top").rename(tmp_path / "old")
    (tmp_path / "top").mkdir()
    with pytest.raises(DirectoryLostError, match="another directory"):
        root.check()


def test_a_replaced_private_directory_is_lost(opened, tmp_path):
    root = opened(tmp_path)
    (tmp_path / ".configstore").rename(tmp_path / "old")
    (tmp_path / ".configstore").mkdir()
    with pytest.raises(DirectoryLostError, match="was replaced"):
        root.check()


def test_a_private_directory_swapped_for_a_link_to_itself_is_lost(opened, tmp_path):
    root = opened(tmp_path)
    (tmp_path / ".configstore").rename(tmp_path / "old")
    (tmp_path / ".configstore").symlink_to("old")
    with pytest.raises(DirectoryLostError, match="was replaced"):
        root.check()


def test_a_removed_staging_directory_is_lost(opened, tmp_path):
    root = opened(tmp_path)
    (tmp_path / ".configstore" / "staging").rmdir()
    with pytest.raises(DirectoryLostError, match="was emptied"):
        root.check()


def test_a_removed_directory_must_not_be_touched(opened, tmp_path):
    root = opened(tmp_path / "top")
    shutil.rmtree(tmp_path / "top")
    assert "was it unmounted or removed?" in root.check()


# Mounts


def test_a_mount_is_told_from_a_directory(tmpfs, tmp_path):
    (tmp_path / "with space\tand tab").mkdir()
    assert is_mount(str(tmpfs(tmp_path / "with space\tand tab")))
    (tmp_path / "plain").mkdir()
    assert not is_mount(str(tmp_path / "plain"))


def test_a_mount_behind_a_symlink_is_a_mount(tmpfs, tmp_path):
    mounted = tmpfs()
    (tmp_path / "link").symlink_to(mounted)
    assert is_mount(str(tmp_path / "link"))


def test_nothing_is_written_below_a_bare_mount_point(opened, tmpfs):
    mounted = tmpfs()
    root = opened(mounted)
    unmount(mounted, "--lazy")
    assert "no longer mounted" in root.check()
    assert list(mounted.iterdir()) == []


def test_no_descriptors_left_is_a_reason_and_no_loss(opened, tmpfs):
    mounted = tmpfs()
    root = opened(mounted)
    unmount(mounted, "--lazy")
    with no_descriptors_left():
        reason = root.check()
    assert "Too many open files" in reason


def test_a_new_mount_in_place_of_the_old_is_lost(opened, tmpfs):
    mounted = tmpfs()
    root = opened(mounted)
    unmount(mounted, "--lazy")
    tmpfs(mounted)
    with pytest.raises(DirectoryLostError, match="another directory"):
        root.check()


def test_an_over_mounted_mount_is_lost(opened, tmpfs):
    mounted = tmpfs()
    root = opened(mounted)
    tmpfs(mounted)
    with pytest.raises(DirectoryLostError, match="another directory"):
        root.check()


def test_an_over_mounted_plain_directory_is_lost(opened, tmpfs, tmp_path):
    (tmp_path / "plain").mkdir()
    root = opened(tmp_path / "plain")
    tmpfs(tmp_path / "plain")
    with pytest.raises(DirectoryLostError, match="another directory"):
        root.check()


def test_a_mount_that_comes_back_is_fine(opened, tmpfs):
    mounted = tmpfs()
    root = opened(mounted)
    tmpfs(mounted)
    unmount(mounted)
    assert root.check() is None


def test_what_lies_in_another_mirrored_directory_gets_what_is_missing_in_between(theirs):
    root = MirroredDirectory(f"{theirs}/_data_/_default_/storage", within=str(theirs))
    root.close()
    made = theirs / "_data_"
    assert made.stat().st_mode & 0o777 == 0o755
    assert made.stat().st_uid == theirs.stat().st_uid


def test_no_symlink_leads_out_of_the_directory_in_which_another_lies(theirs, tmp_path):
    (tmp_path / "storage").mkdir()
    (theirs / "_data_").symlink_to(tmp_path)
    with pytest.raises(RefusedError, match="symlink"):
        MirroredDirectory(f"{theirs}/_data_/storage", within=str(theirs))
    assert list((tmp_path / "storage").iterdir()) == []

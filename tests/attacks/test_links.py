"""Links of strangers: none that is mirrored leads out of its directory, in steps either; none is followed."""

import errno
import os
import random
import shutil
import tempfile

import pytest

from configstore.files.descent import open_parent
from configstore.files.writing import TreeWriter
from configstore.model.path import StorePath, unsafe_target
from tests.harness.named import a_link

SETS = 4000
STRANGER = 65534

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="gives a link to another user, which only root can")

CERTBOT = [
    ("live/example.org/cert.pem", "../../archive/example.org/cert1.pem"),
    ("live/example.org/privkey.pem", "../../archive/example.org/privkey12.pem"),
    ("current", "live"),
    ("a/b/c", "../../x"),
    ("a/b/c", "./.././../x"),
    ("a/b", ".."),
    ("a", "."),
    ("a", "b//c/./d"),
]


@pytest.mark.parametrize(("path", "target"), CERTBOT)
def test_links_as_certbot_makes_them_pass(path, target):
    assert unsafe_target(StorePath(path), target) is None


@pytest.mark.parametrize(
    ("path", "target"),
    [
        ("e", "d/d/../../etc/passwd"),
        ("a/e", "../d/../x"),
        ("a/e", "../../x"),
        ("e", ".."),
        ("e", "./../x"),
        ("e", "x/.."),
        ("a/e", "x/../../y"),
        ("e", "/etc/passwd"),
        ("e", "//x"),
    ],
)
def test_links_that_lead_out_alone_or_through_another_do_not(path, target):
    assert unsafe_target(StorePath(path), target)


def draw(choose):
    """Return a random set of links that pass, by path, and the directories in which they lie."""
    names = ["a", "b", "c", "d"]
    directories = [""] + ["/".join(choose.choices("xyz", k=choose.randint(1, 3))) for _ in range(3)]
    links = {}
    for _ in range(choose.randint(2, 6)):
        path = f"{choose.choice(directories)}/{choose.choice(names)}".lstrip("/")
        steps = choose.choices([*names, "..", "..", ".", "x", "y", "z", "", "a/b"], k=choose.randint(1, 7))
        target = "/".join(steps)
        if target and not unsafe_target(StorePath(path), target):
            links[path] = target
    return directories, links


def leads_to(link):
    """Return where a link leads, be something there or not; None for a loop, of which Python's guess is wrong."""
    try:
        return os.path.realpath(link, strict=True)
    except FileNotFoundError:
        return os.path.realpath(link)
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise


def test_no_set_of_links_that_pass_leads_out_of_a_real_directory(tmp_path):
    choose, judged = random.Random(11), 0
    base = tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else tmp_path)
    try:
        for number in range(SETS):
            root = f"{base}/{number}/root"
            directories, links = draw(choose)
            for each in directories:
                os.makedirs(f"{root}/{each}", exist_ok=True)
            for path, target in links.items():
                os.symlink(target, f"{root}/{path}")
            for path, target in links.items():
                leads = leads_to(f"{root}/{path}")
                judged += leads is not None
                assert leads is None or f"{leads}/".startswith(f"{root}/"), (links, path, target, leads)
            shutil.rmtree(f"{base}/{number}")
    finally:
        shutil.rmtree(base)
    print(f"{SETS} sets of links, {judged} links resolved")
    assert judged > SETS


def test_an_export_makes_no_link_that_leads_out_in_steps(tmp_path):
    folder = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        writer = TreeWriter(folder, owners=False)
        writer.write(StorePath("d"), a_link("."), b"")
        with pytest.raises(Exception, match="begin its target"):
            writer.write(StorePath("e"), a_link("d/../x"), b"")
    finally:
        os.close(folder)
    assert os.listdir(tmp_path) == ["d"]


def give(link):
    os.lchown(link, STRANGER, STRANGER)


@pytest.fixture
def way(tmp_path):
    """Return a folder with a victim beside it: `out` holds links of a stranger's to it."""
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_bytes(b"precious")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/link").symlink_to("../victim/file")
    (tmp_path / "out/new").symlink_to("../victim/made")
    (tmp_path / "out/dir").symlink_to("../victim")
    (tmp_path / "out/own").symlink_to("dir")
    for name in ("link", "new", "dir"):
        give(tmp_path / "out" / name)
    return tmp_path


@as_root
@pytest.mark.parametrize("name", ["link", "new", "dir/file", "dir/other", "own/file"])
def test_get_follows_no_link_of_a_strangers(way, run, name):
    run("put", "data/file", stdin=b"new")
    done = run("get", "data/file", "-o", str(way / "out" / name))
    assert done.code == 5
    assert "which another user can make lead elsewhere" in done.err
    assert {each.name: each.read_bytes() for each in (way / "victim").iterdir()} == {"file": b"precious"}


@as_root
@pytest.mark.parametrize("name", ["dir", "dir/sub", "own/sub", "own"])
def test_export_follows_no_link_of_a_strangers(way, run, name):
    run("put", "data/file", stdin=b"new")
    done = run("export", "data", str(way / "out" / name))
    assert (done.code, "which another user can make lead elsewhere" in done.err) == (5, True)
    assert {each.name: each.read_bytes() for each in (way / "victim").iterdir()} == {"file": b"precious"}


@as_root
def test_import_follows_no_link_of_a_strangers(way, run):
    done = run("import", str(way / "out/dir"), "data")
    assert (done.code, "which another user can make lead elsewhere" in done.err) == (5, True)
    assert run("stat", "data/file").code == 1


def test_links_of_ones_own_are_followed(run, tmp_path):
    run("put", "data/file", stdin=b"new")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "real/current").symlink_to(f"{tmp_path}/real/./../real/file")
    assert run("get", "data/file", "-o", str(tmp_path / "link/current")).code == 0
    assert (tmp_path / "real/file").read_bytes() == b"new"
    assert (tmp_path / "real/current").is_symlink()
    assert run("export", "data", f"{tmp_path}/link/tree/").code == 0
    assert (tmp_path / "real/tree/file").read_bytes() == b"new"


@pytest.mark.parametrize(
    ("typed", "found"),
    [
        ("a/b", ("a", "b")),
        ("a/b/", ("a", "b")),
        ("a/.", ("", "a")),
        ("a/..", ("", ".")),
        (".", ("", ".")),
        ("x", ("", "x")),
    ],
)
def test_a_typed_path_is_taken_apart_as_the_kernel_does(tmp_path, monkeypatch, typed, found):
    (tmp_path / "a").mkdir()
    monkeypatch.chdir(tmp_path)
    directory, name = open_parent(typed)
    try:
        assert os.path.samestat(os.fstat(directory), os.stat(tmp_path / found[0]))
        assert name == found[1]
    finally:
        os.close(directory)


@pytest.mark.parametrize("typed", ["loop/x", "missing/x", "file/x"])
def test_a_path_that_leads_nowhere_is_named_whole(tmp_path, typed):
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").write_bytes(b"")
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(OSError, match=typed):
        open_parent(f"{tmp_path}/{typed}")
    assert len(os.listdir("/proc/self/fd")) == before

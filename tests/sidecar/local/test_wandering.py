"""Random changes, looked at now and then: what is known ends up to be what is there, whatever was seen between."""

import os
import random
import shutil
from contextlib import suppress

import pytest

from tests.harness.named import a_dir
from tests.harness.waiting import wait_until
from tests.sidecar.local.named import Mirrored, differences, kernel_watches, write

NAMES = "abc"


def some_path(chance):
    return "/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 3)))


def wander(top, outside, chance):
    """Change something at random in a directory, of which things go out and come back."""
    path, other = top / some_path(chance), top / some_path(chance)
    act = chance.choice(
        ["write", "write", "append", "mkdir", "remove", "rename", "out", "back", "link", "fifo", "chmod"]
    )
    with suppress(OSError, shutil.Error):
        if act == "write":
            write(path, f"{chance.random()}")
        elif act == "append" and path.is_file():
            with path.open("a") as file:
                file.write("more")
        elif act == "mkdir":
            path.mkdir(parents=True)
        elif act == "remove":
            shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        elif act == "rename":
            path.rename(other)
        elif act == "out":
            path.rename(outside / str(chance.randint(1, 3)))
        elif act == "back":
            (outside / str(chance.randint(1, 3))).rename(path)
        elif act == "link":
            path.symlink_to(chance.choice(NAMES))
        elif act == "fifo":
            os.mkfifo(path)
        else:
            path.chmod(chance.choice([0o700, 0o755]))


@pytest.mark.parametrize("seed", range(40))
def test_a_full_scan_heals_whatever_was_missed(here, tmp_path, seed):
    chance = random.Random(seed)
    (tmp_path / "outside").mkdir()
    for _ in range(80):
        wander(here.path, tmp_path / "outside", chance)
        if chance.random() < 0.3:
            here.scan(*[chance.choice(["", some_path(chance)]) for _ in range(3)])
        if chance.random() < 0.1:
            here.apply(here.change("x/y", a_dir()), here.file("x/y/z", f"{chance.random()}"))
    here.scan()
    assert differences(here) == set()


@pytest.mark.parametrize("seed", range(10))
def test_the_watch_points_to_all_that_changed(tmp_path, woken, seed):
    chance = random.Random(seed)
    top, outside = tmp_path / "top", tmp_path / "outside"
    outside.mkdir()
    top.mkdir()
    here = Mirrored(top, watch=woken.watch)
    here.scan()

    def look():
        news = woken.news()
        directories, news.directories = news.directories, set()
        if directories:
            here.scan(*directories)
        return not differences(here)

    for _ in range(80):
        wander(top, outside, chance)
        if chance.random() < 0.3:
            look()
    wait_until(look, what="what is known to be what is there")
    directories = {os.path.relpath(path, top) for path, _, _ in os.walk(top) if ".configstore" not in path}
    wait_until(lambda: look() and kernel_watches() == len(directories))
    here.close()

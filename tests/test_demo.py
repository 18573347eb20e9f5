"""The demo: it shows what it promises, fails loudly, and leaves nothing behind."""

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from configstore.model.record import Kind
from tests import demo
from tests.harness import trees
from tests.harness.waiting import wait_until

LINES = [
    "`configstore seal keygen` made the keys, `bootstrap` the subtrees",
    "both sidecars started",
    "`configstore put` of a DKIM key; `get` returned it byte for byte",
    "fresh DKIM keys",
    "a DKIM key from the other side",
    "a certificate as certbot lays it down",
    "overrides of nginx",
    "fetchids",
    "an edit in place",
    "an edit by rename-over",
    "a delete",
    "the certificate renewed",
    "it came in one transaction",
    "two killed by SIGKILL",
    "two restarted on an empty tmpfs",
    "both trees are equal and quiet: no revision written",
    "nothing shows in etcd's",
    "`configstore seal rotate` sealed all anew; no file was touched",
    "SIGTERM: both ended with exit code 0",
    "demo: all 9 changes arrived",
    "What to type next:",
]


def started(folder):
    """Start the demo with a folder of its own for temporary files, by which its children are known again."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background inherits that it is ignored
    return subprocess.Popen(
        [sys.executable, "-m", "tests.demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(folder)},
    )


def processes_with(marker):
    found = []
    for process in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if process.name.isdecimal() and marker.encode() in (process / "environ").read_bytes():
                found.append(process.name)
    return found


def left_behind(pid, folder):
    """Return what the demo that ran as `pid` left: processes, mounts, temporary folders."""
    name = f"configstore-demo-{pid}-"
    mounts = [line for line in Path("/proc/mounts").read_text().splitlines() if name in line]
    folders = [*Path("/dev/shm").glob(f"{name}*"), *folder.iterdir()]
    return processes_with(f"TMPDIR={folder}\0") + mounts + [str(path) for path in folders]


def test_it_shows_every_act_and_leaves_nothing_behind(tmp_path):
    with started(tmp_path) as process:
        shown, complaints = process.communicate(timeout=90)
    assert (process.returncode, complaints) == (0, "")
    assert [line for line in LINES if line not in shown] == []
    assert "PRIVATE KEY" not in shown
    assert left_behind(process.pid, tmp_path) == []


def test_interrupted_it_leaves_nothing_behind(tmp_path):
    with started(tmp_path) as process:
        assert wait_until(lambda: "both sidecars" in process.stdout.readline(), 60)
        assert len(processes_with(f"TMPDIR={tmp_path}\0")) > 3
        process.send_signal(signal.SIGINT)
        _, complaints = process.communicate(timeout=90)
    assert (process.returncode, complaints) == (130, "demo: interrupted; everything is taken down\n")
    assert left_behind(process.pid, tmp_path) == []


def test_what_does_not_arrive_is_named(tmp_path):
    with pytest.raises(AssertionError, match=r"did not arrive within 0\.1 s: two/dkim/never\.key$"):
        trees.arrive(tmp_path, {"two/dkim/never.key": (Kind.FILE, 0o600, "")}, deadline=0.1)


@pytest.mark.parametrize(("mode", "content"), [(0o644, b"right"), (0o600, b"wrong")])
def test_a_file_with_another_mode_or_other_bytes_has_not_arrived(tmp_path, mode, content):
    (tmp_path / "one").write_bytes(b"right")
    (tmp_path / "one").chmod(0o600)
    (tmp_path / "two").write_bytes(content)
    (tmp_path / "two").chmod(mode)
    with pytest.raises(AssertionError, match="did not arrive"):
        trees.arrive(tmp_path, {"two": trees.look(tmp_path / "one")}, deadline=0.1)


def test_a_failure_ends_it_with_1_and_the_last_words_of_both_sidecars(monkeypatch, capsys):
    def play(self):
        self.seal()
        self.start()
        trees.arrive(self.base, {"two/dkim/never.key": (Kind.FILE, 0o600, "")}, deadline=0.1)

    monkeypatch.setattr(demo.Demo, "play", play)
    assert demo.main() == 1
    said = capsys.readouterr().err
    assert said.startswith("demo: FAILED: did not arrive within 0.1 s: two/dkim/never.key\n")
    for name in ("one", "two"):
        assert f"the last words of the sidecar of {name}:\n  " in said
    assert list(Path("/dev/shm").glob(f"configstore-demo-{os.getpid()}-*")) == []

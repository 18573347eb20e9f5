"""Replicas of admin and webmail start one at a time, and those of antispam send reports once.

Mailu's images cannot be had here; what their start.py does to a database, and in which order, is done by stand-ins
that notice a second one at work: admin's `flask db upgrade` and first administrator (core/admin/start.py),
webmail's initdb.sh and update.sh (webmails/start.py), antispam's daily job (core/rspamd/start.py).
"""

import contextlib
import os
import re
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest

from tests.harness.waiting import freeze, wait_until
from tests.real.image import RELEASES, Image, command_of_compose, mounted_by_compose, script

HERE = Path(__file__).parents[2]
COMPOSE = HERE / "docs/deploy/compose"
FILES = {"admin": "configstore.yml", "webmail": "webmail.yml", "antispam": "configstore.yml"}
PORTS = {("admin", True): 8080, ("admin", False): 80, ("webmail", True): 80, ("webmail", False): 80}
ALONE = ("--net",)

STEP = """#!/usr/bin/env python3
# One step that changes the database, as flask and initdb.sh do. When told to, it waits to be met by another one.
import os, pathlib, sys, time
db = pathlib.Path("/db")
name = os.environ["REPLICA"]
try:
    (db / "busy").mkdir()
    busy = True
except FileExistsError:
    (db / "trouble").touch()
    busy = False
with (db / "log").open("a") as log:
    print(name, *sys.argv[1:], file=log)
end = time.monotonic() + float(os.environ.get("MEET", "0"))
while time.monotonic() < end and not (db / "trouble").exists():
    time.sleep(0.02)
if (db / "hang").exists():
    time.sleep(1000)
time.sleep(0.1)
if busy:
    (db / "busy").rmdir()
made = db / "made"
if "initdb" in sys.argv[1]:
    if made.exists():
        sys.exit("table users already exists")
    made.touch()
"""

START = """#!/usr/bin/env python3
import http.server, os, subprocess, sys
def become():
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
def listen():
    served = ["-m", "http.server", os.environ["PORT"], "--bind", "127.0.0.1", "--directory", "/db"]
    os.execv(sys.executable, [sys.executable, *served])
service = os.environ["SERVICE"]
if service == "admin":
    if os.environ["PORT"] == "8080":  # since 2.0
        become()
    os.system("/step 'flask mailu advertise'")
    os.system("/step 'flask db upgrade'")
    os.system("/step 'flask mailu admin'")
    os.system("exec python3 -m http.server $PORT --bind 127.0.0.1 --directory /db")
else:
    try:
        subprocess.check_output(["/step", "initdb.sh"], stderr=subprocess.STDOUT, preexec_fn=become)
    except subprocess.CalledProcessError as error:
        if b"already exists" not in error.stdout:
            sys.exit(3)
    subprocess.check_call(["/step", "update.sh"], stderr=subprocess.STDOUT, preexec_fn=become)
    listen()
"""


class Services:
    """Containers of one service, each beside a replica, with one database for all."""

    def __init__(self, base, service, venv):
        self.base, self.service, self.venv = base, service, venv
        self.port = PORTS[service, venv]
        self.db = base / "db"
        self.db.mkdir()
        self.db.chmod(0o777)
        base.chmod(0o755)
        self.step, self.start_py = script(base / "step", STEP), script(base / "start.py", START)
        self.running = {}

    @property
    def command(self):
        """What compose starts behind the gate."""
        return command_of_compose(self.service, COMPOSE / FILES[self.service])

    def start(self, replica, command=None, **environment):
        """Start one."""
        mounts = mounted_by_compose(self.service, COMPOSE / FILES[self.service], HERE)
        mounts |= {
            "/run/configstore": replica.shared,
            "/db": self.db,
            "/step": self.step,
            "/start.py": self.start_py,
        }
        told = {"REPLICA": replica.name, "SERVICE": self.service, "PORT": str(self.port), **environment}
        told["STARTED_BY"] = str(self.base)
        log = self.log(replica).open("ab")
        image = Image(self.base, venv=self.venv, mounts=mounts)
        process = image.start(*(command or self.command), namespaces=ALONE, stdout=log, stderr=log, **told)
        self.running[replica.name] = process
        log.close()
        return process

    def log(self, replica):
        """Return the file in which the operator sees what it says."""
        return self.base / f"{replica.name}.log"

    def steps(self):
        """Return the replicas whose steps were run, in their order."""
        path = self.db / "log"
        return [line.split()[0] for line in path.read_text().splitlines()] if path.exists() else []

    def close(self):
        """End all, also what has lost its parent."""
        for process in self.running.values():
            process.kill()
            process.wait(90)
        for environ in Path("/proc").glob("[0-9]*/environ"):
            with contextlib.suppress(OSError):
                if f"STARTED_BY={self.base}\0".encode() in environ.read_bytes():
                    os.kill(int(environ.parent.name), signal.SIGKILL)


@pytest.fixture
def services():
    """Return a function that makes the containers of a service."""
    with contextlib.ExitStack() as stack:

        def make(service, *, venv=True):
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="cs-roots-", dir="/tmp")))
            return stack.enter_context(contextlib.closing(Services(folder, service, venv)))

        yield make


@pytest.fixture
def replicas(service):
    """Return a function that starts replicas of a preset."""

    def start(preset, *names):
        made = [service(name, preset) for name in names]
        for each in made:
            each.start()
        return [each.ready() for each in made]

    return start


def runs(turns):
    """Return a sequence without its repetitions."""
    return [name for place, name in enumerate(turns) if not place or turns[place - 1] != name]


def free(replica, lease):
    """Tell whether nobody holds a lease."""
    holding = replica.client("hold", lease, "--no-wait", "--", "true")
    holding.communicate(timeout=60)
    return holding.returncode == 0


@pytest.mark.parametrize("venv", RELEASES.values(), ids=RELEASES)
@pytest.mark.parametrize("name", ["admin", "webmail"])
def test_replicas_start_one_after_another(replicas, services, name, venv):
    made = services(name, venv=venv)
    three = replicas(f"mailu/{name}-start", "one", "two", "three")
    for each in three:
        made.start(each)
    wait_until(lambda: len(made.steps()) == 3 * (3 if name == "admin" else 2), 120, what="three starts")
    assert not (made.db / "trouble").exists()
    assert sorted(runs(made.steps())) == ["one", "three", "two"], "steps of two starts are mixed"
    for each in three:  # and each lives on, and holds nothing
        assert made.running[each.name].poll() is None
    wait_until(
        lambda: three[0].client("hold", f"{name}-start", "--no-wait", "--", "true").communicate() and True, 30
    )


@pytest.mark.parametrize("name", ["admin", "webmail"])
def test_without_the_lease_two_migrate_at_once(replicas, services, name):
    """The harm."""
    made = services(name)
    for each in replicas(f"mailu/{name}-start", "one", "two"):
        made.start(each, ["/start.py"], MEET="60")
    wait_until((made.db / "trouble").exists, 60, what="two steps that meet")


def test_who_does_not_get_the_lease_in_time_says_so_and_does_not_start(replicas, services):
    made = services("admin")
    one, two = replicas("mailu/admin-start", "one", "two")
    (made.db / "hang").touch()
    made.start(one)
    wait_until(made.steps, 60)
    assert made.start(two, CONFIGSTORE_START_WAIT="0.5").wait(120) == 3
    said = made.log(two).read_text()
    assert "lease admin-start is held by one" in said
    assert "/start.py is not started: no lease admin-start" in said
    assert "two" not in made.steps()


def test_a_start_that_takes_too_long_keeps_nobody_waiting_for_ever(replicas, services):
    made = services("admin")
    one, two = replicas("mailu/admin-start", "one", "two")
    (made.db / "hang").touch()
    hanging = made.start(one, CONFIGSTORE_START_LIMIT="1")
    wait_until(
        lambda: "does not listen at port 8080 or 80 after 1 s; others may start" in made.log(one).read_text()
    )
    (made.db / "hang").unlink()
    made.start(two)
    wait_until(lambda: "two" in made.steps(), 120)
    assert hanging.poll() is None


def test_a_start_that_loses_its_lease_is_stopped(replicas, services):
    made = services("admin")
    (one,) = replicas("mailu/admin-start", "one")
    (made.db / "hang").touch()
    process = made.start(one)
    wait_until(made.steps, 60)
    freeze(one.process)
    try:
        assert process.wait(120) == 3
    finally:
        os.kill(one.process.pid, signal.SIGCONT)
    assert "lost in the middle of the start, so this start is stopped" in made.log(one).read_text()
    wait_until(
        lambda: not [line for line in commands() if "flask mailu advertise" in line and str(made.base) in line]
    )


def commands():
    """Return the command lines of what runs, with what is mounted for each."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            found.append((place / "cmdline").read_text() + (place / "mountinfo").read_text())
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGQUIT])
def test_signals_reach_the_service_and_its_exit_code_comes_back(replicas, services, number):
    made = services("webmail")
    (one,) = replicas("mailu/webmail-start", "one")
    process = made.start(one)
    wait_until(lambda: len(made.steps()) == 2, 60)
    wait_until(lambda: free(one, "webmail-start"), 120)
    process.send_signal(number)
    assert process.wait(120) == 128 + number


def test_a_sidecar_that_is_not_there_is_told_in_the_services_log(service, services):
    made = services("admin")
    away = service("away", "mailu/admin-start")
    assert made.start(away).wait(120) == 4
    assert "configstore-client: No such file or directory; is the sidecar running" in made.log(away).read_text()


REPORT = """#!/bin/sh
# What `rspamadm dmarc_report` does in Redis: reads what there is to report, sends it, takes it away.
[ -e /db/reports ] || exit 0
echo "$REPLICA" >>/db/sent
end=0
while [ $end -lt 3000 ] && [ -n "$MEET" ] && [ "$(wc -l </db/sent)" -lt 2 ]; do sleep 0.02; end=$((end + 1)); done
rm -f /db/reports
"""
ANTISPAM = """#!/bin/sh
mkdir -p /etc/periodic/daily
cat >/etc/periodic/daily/dmarc-reports <<'END'
#!/bin/sh
su root -s /bin/sh -c "/usr/bin/rspamadm dmarc_report 20240601" >>/proc/1/fd/1 2>&1
END
chmod 755 /etc/periodic/daily/dmarc-reports
# cron at two in the morning: what root's crontab says for that hour
sed -n 's/^0\\t2\\t\\*\\t\\*\\t\\*\\t//p' /etc/crontabs/root >/cron
sh /cron
echo done
"""
CRONTAB = "*/15\t*\t*\t*\t*\trun-parts /etc/periodic/15min\n0\t2\t*\t*\t*\trun-parts /etc/periodic/daily\n"


@pytest.mark.parametrize("under_the_lease", [True, False], ids=["as-shipped", "without"])
def test_reports_of_a_day_are_sent_by_one_replica(replicas, roots, under_the_lease):
    db = roots / "db"
    db.mkdir()
    (db / "reports").touch()
    shared = {"/db": db, "/usr/bin/rspamadm": script(roots / "rspamadm", REPORT),
              "/start.py": script(roots / "start.py", ANTISPAM)}  # fmt: skip
    command = command_of_compose("antispam", COMPOSE / FILES["antispam"])
    assert command == ["/usr/local/lib/configstore/antispam-start", "/start.py"]
    processes = []
    for each in replicas("mailu/antispam-daily", "one", "two", "three"):
        folder = roots / each.name
        (folder / "crontabs").mkdir(parents=True)
        (folder / "crontabs/root").write_text(CRONTAB)
        mounts = mounted_by_compose("antispam", COMPOSE / FILES["antispam"], HERE) | shared
        mounts |= {"/run/configstore": each.shared, "/etc/crontabs": folder / "crontabs"}
        told = {"REPLICA": each.name, "MEET": "" if under_the_lease else "yes"}
        how = {"namespaces": ("--pid", "--fork", "--kill-child"), **told}
        told_to = command if under_the_lease else command[1:]
        processes.append(Image(folder, venv=True, mounts=mounts).start(*told_to, **how))
    for process in processes:
        out, err = process.communicate(timeout=120)
        assert "done" in out, out + err
    sent = (db / "sent").read_text().split()
    assert (len(sent) == 1) == under_the_lease, sent


def test_a_crontab_without_the_daily_jobs_is_told(roots):
    crontab = roots / "crontab"
    crontab.write_text("")
    start = HERE / "docs/starts/antispam-start"
    image = Image(roots, venv=True, mounts={"/etc/crontabs/root": crontab, "/antispam-start": start})
    done = image.run("/antispam-start", "echo", "started", DMARC_SEND_REPORTS="True")
    assert done.stdout == "started\n"
    assert "not kept apart from those of other replicas" in done.stderr


def test_the_crontab_is_changed_once_and_nothing_else_in_it(tmp_path):
    crontab = tmp_path / "crontab"
    crontab.write_text(CRONTAB)
    for _ in range(2):
        subprocess.run([HERE / "docs/starts/antispam-start", "true"], check=True, timeout=20,
                       env={"PATH": os.environ["PATH"], "CONFIGSTORE_CRONTAB": str(crontab)})  # fmt: skip
    quarter, daily = crontab.read_text().splitlines()
    assert quarter == CRONTAB.splitlines()[0]
    assert re.fullmatch(
        r"0\t2(\t\*){3}\t\S+/configstore-client hold antispam-daily --wait 1h -- run-parts /etc/periodic/daily "
        r">/proc/1/fd/1 2>&1",
        daily,
    )

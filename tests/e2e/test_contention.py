"""Contenders on three replicas increment a number in a leased file, under kills and freezes.

Others take the same lease from etcd itself, with `configstore run` and with `etcdctl lock`. Whoever holds it also
takes a lock of the kernel, which is free, or two held the lease at once.
"""

import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import threading
import time
from collections import Counter

import pytest

from configstore.errors import StoreUnavailableError
from configstore.model.keys import Keys
from configstore.model.path import StorePath
from configstore.store.history import versions_below
from configstore.store.lease_queue import queue
from configstore.store.store import Store
from tests.e2e.soaking import three_replicas
from tests.harness import zygote
from tests.harness.named import a_tree
from tests.harness.replica import ENVIRONMENT
from tests.harness.servers import etcdctl, leader
from tests.harness.waiting import freeze, wait_until

TTL = "4"  # seconds; as many pass before a successor follows one that died
POLICY = 'lease = "counter"\nsettle = "10ms"\nkeep = 100000\nexclude = ["*.new"]'
TWO_AT_ONCE = 99
ALONE = f"""#!/bin/sh
exec 9> "$(dirname "$0")/alone"
flock --nonblock 9 || {{ echo two at once; exit {TWO_AT_ONCE}; }}
"""
INCREMENT = f"""{ALONE}
echo begun
number=$(cat "$1" 2>/dev/null)
number=$((number + 1))
echo $number > "$1.new.$$" && mv "$1.new.$$" "$1" && echo $number
"""


class Contender(threading.Thread):
    """Increments, again and again, on any replica; notes what it was told."""

    def __init__(self, name, replicas, seed):
        super().__init__(name=name, daemon=True)
        self.replicas, self.chance = replicas, random.Random(f"{seed} {name}")
        self.program = replicas[0].folder.parent / name  # the claim in the queue carries its name
        self.program.write_text(INCREMENT)
        self.program.chmod(0o700)
        self.ended, self.process, self.replica = threading.Event(), None, None
        self.confirmed, self.doubtful, self.codes = [], 0, Counter()

    def run(self):
        while not self.ended.is_set():
            self.replica = self.chance.choice(self.replicas)
            number = str(self.replica.folder / "number")
            self.process = self.replica.client("hold", "counter", "--ttl", TTL, "--", str(self.program), number)
            out, _ = self.process.communicate()
            self.codes[self.process.returncode] += 1
            said = out.split()
            if self.process.returncode == 0:
                self.confirmed.append(int(said[1]))
            elif said:
                self.doubtful += 1
            else:  # such as no sidecar there: a person would not try again at once either
                self.ended.wait(0.2)


def of_stock(command):
    environment = ENVIRONMENT | {"ETCDCTL_API": "3"}
    return subprocess.run(command, capture_output=True, text=True, env=environment, check=False)


class Guest(threading.Thread):
    """Takes the lease from etcd itself, again and again. turns: how often it was held."""

    def __init__(self, name, endpoints, program, *, stock):
        super().__init__(name=name, daemon=True)
        self.ended, self.turns, self.codes = threading.Event(), 0, Counter()
        lease = ("--socket=", "--lease=counter", f"--ttl={TTL}")
        ours = [f"--endpoints={endpoints}", "run", *lease, "--", str(program)]
        stocks = [etcdctl(), f"--endpoints={endpoints}", "lock", f"--ttl={TTL}"]
        stocks += [Keys().lease_queue("counter").decode(), str(program)]
        self.hold = (
            (lambda: of_stock(stocks)) if stock else lambda: zygote.run_text("configstore", ours, ENVIRONMENT)
        )

    def run(self):
        while not self.ended.is_set():
            done = self.hold()
            self.codes[TWO_AT_ONCE if "two at once" in done.stdout else done.returncode] += 1
            self.turns += "alone" in done.stdout


class Bench:
    """What contends, and what can go wrong with it."""

    def __init__(self, kv, members, replicas, seed):
        self.kv, self.members, self.replicas = kv, members, replicas
        self.chance = random.Random(seed)
        self.contenders = [Contender(f"contender-{number}", replicas, seed) for number in range(20)]
        program = replicas[0].folder.parent / "guest"
        program.write_text(f"{ALONE}\necho alone\nsleep 0.05\n")
        program.chmod(0o700)
        endpoints = ",".join(each.endpoint for each in members)
        self.guests = [Guest(f"guest-{number}", endpoints, program, stock=number % 2 == 0) for number in range(4)]

    def holder(self):
        """Return token and name of the holder, None for nobody, or while etcd does not say."""
        with contextlib.suppress(StoreUnavailableError):
            places = queue(Store(self.kv, Keys()), "counter")
            return (places[0].token, places[0].contender) if places else None
        return None

    def until_passed_on(self):
        """Wait until another one holds the lease."""
        before = wait_until(self.holder, 60)[0]
        wait_until(lambda: (found := self.holder()) and found[0] != before, 60, what="a successor")

    def client_of_the_holder(self):
        """Return the client whose command holds the lease, once it is one of a replica."""

        def client():
            _, who = self.holder() or (0, None)
            return next((each.process for each in self.contenders if who and each.name == who.command), None)

        return wait_until(client, 60, what="a client to hold the lease")

    def replica_of_the_holder(self):
        """Return the replica that holds the lease, once it is one."""

        def replica():
            _, who = self.holder() or (0, None)
            return next((each for each in self.replicas if who and each.name == who.replica), None)

        return wait_until(replica, 60, what="a replica to hold the lease")

    def kill_a_client(self):
        self.client_of_the_holder().kill()

    def freeze_a_client(self):
        client = self.client_of_the_holder()
        freeze(client)
        self.until_passed_on()
        client.send_signal(signal.SIGCONT)

    def kill_a_sidecar(self):
        self.replica_of_the_holder().end(signal.SIGKILL)
        self.restart()

    def wipe_a_replica(self):
        replica = self.replica_of_the_holder()
        replica.end(signal.SIGKILL)
        for each in replica.folder.iterdir():
            shutil.rmtree(each) if each.is_dir() else each.unlink(missing_ok=True)
        self.restart()

    def restart(self):
        for each in self.replicas:
            if each.process is None:
                each.start()

    def freeze_a_sidecar(self):
        replica = self.replica_of_the_holder()
        freeze(replica.process)
        self.until_passed_on()
        replica.process.send_signal(signal.SIGCONT)

    def kill_etcds_leader(self):
        member = wait_until(lambda: leader(self.members), 30)
        member.kill()
        self.until_passed_on()
        member.start(wait=False)

    def freeze_a_member(self):
        process = self.chance.choice(self.members).process
        freeze(process)
        self.until_passed_on()
        process.send_signal(signal.SIGCONT)

    def confirmed(self):
        return [number for each in self.contenders for number in each.confirmed]

    def every_fault(self):
        """Return all that can go wrong, in random order."""
        faults = [self.kill_a_client, self.freeze_a_client, self.kill_a_sidecar, self.wipe_a_replica]
        faults += [self.freeze_a_sidecar, self.kill_etcds_leader, self.freeze_a_member]
        return self.chance.sample(faults, len(faults))


def contend(wanted, every, seed, base, binary):
    """Let all contend until so many increments are confirmed, with a fault after each `every`; returns figures."""
    spoilt = Counter()
    with three_replicas(base, binary, POLICY) as (kv, members, replicas, _):
        bench = Bench(kv, members, replicas, seed)
        begun = time.monotonic()
        everyone = [*bench.contenders, *bench.guests]
        for each in everyone:
            each.start()
        faults = itertools.chain.from_iterable(bench.every_fault() for _ in itertools.count())
        for target in range(every, wanted, every):
            wait_until(lambda target=target: len(bench.confirmed()) >= target, 300, what=f"{target} increments")
            fault = next(faults)
            fault()
            spoilt[fault.__name__] += 1
        wait_until(lambda: len(bench.confirmed()) >= wanted, 300, what=f"{wanted} increments")
        seconds = time.monotonic() - begun
        for each in everyone:
            each.ended.set()
        for each in everyone:
            each.join(120)
            assert not each.is_alive()
        history = numbers_of(a_tree(kv))
    return {
        "seed": seed,
        "seconds": round(seconds),
        "confirmed": bench.confirmed(),
        "doubtful": sum(each.doubtful for each in bench.contenders),
        "exit codes": dict(sum((each.codes for each in bench.contenders), Counter())),
        "guests' turns": [each.turns for each in bench.guests],
        "guests' codes": dict(sum((each.codes for each in bench.guests), Counter())),
        "spoilt": dict(spoilt),
        "history": history,
    }


def numbers_of(tree):
    """Return all that the file ever held in the store, the oldest first."""
    (versions,) = (
        found for path, found in versions_below(tree, StorePath("data")).items() if path == "data/number"
    )
    known = sorted(versions.known, key=lambda each: each.mod_revision)
    return [int(tree.content(each)) for each in known]


def check(figures, wanted):
    """Check that no increment was lost and none made twice, and print the figures."""
    confirmed, history = figures.pop("confirmed"), figures.pop("history")
    print(figures | {"confirmed": len(confirmed), "last number": history[-1]})
    assert len(confirmed) == len(set(confirmed)) >= wanted
    assert history == list(range(1, history[-1] + 1)), "each number follows the one before it"
    assert set(confirmed) <= set(history)
    assert history[-1] <= len(confirmed) + figures["doubtful"]
    assert TWO_AT_ONCE not in figures["exit codes"].keys() | figures["guests' codes"].keys()
    assert all(figures["guests' turns"])


def test_no_increment_is_lost_and_none_is_made_twice(tmp_path, binary_named):
    figures = contend(40, 5, os.environ.get("CONFIGSTORE_SOAK_SEED", "1"), tmp_path, binary_named("debian"))
    assert set(figures["spoilt"].values()) == {1}
    check(figures, 40)


@pytest.mark.soak
def test_no_increment_of_a_thousand_is_lost(tmp_path, binary_named):
    seed = os.environ.get("CONFIGSTORE_SOAK_SEED", str(time.time_ns()))
    check(contend(1000, 20, seed, tmp_path, binary_named("debian")), 1000)

"""Shows configstore at work: `make demo`, or `python -m tests.demo`. Takes seconds and leaves nothing behind.

One embedded etcd and two replicas, "one" and "two": real sidecar processes that mirror a Mailu tree, each on a
tmpfs. Everything in etcd is sealed. A heading says what an act is good for; each line below it says what was done,
and how long it took until the other side had it, with equal bytes and modes. What does not arrive ends the demo
with exit code 1, a sentence naming it, and the sidecars' last words. Its keys are made on the spot,
and never printed.
"""

import contextlib
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from inotify_simple import INotify

from configstore.embedded import EmbeddedEtcd
from configstore.errors import ConfigstoreError
from configstore.model.keys import Keys
from configstore.model.path import PRIVATE_NAME
from configstore.model.record import Kind, sha256
from configstore.model.replica import MappingState, Report
from configstore.store.replicas import live_reports
from configstore.store.store import Store
from tests.harness.certificates import Authority
from tests.harness.servers import connect
from tests.harness.trees import Look, arrive, follow, tree
from tests.harness.waiting import wait_until

LETSENCRYPT, FETCHIDS = "certs/letsencrypt", "fetchmail/fetchids"
PROXY, GZIP, OLD = (f"overrides/nginx/{name}.conf" for name in ("proxy", "gzip", "old"))

MAPPINGS = {
    "dkim": 'include = ["*.key"]\nrefuse_empty = ["*.key"]',
    LETSENCRYPT: 'exclude = ["*.new", "previous_*"]\nsettle = "250ms"',
    "overrides/nginx": "",
    "fetchmail": 'exclude = ["fetchids_"]',
}
"""The mirrored subtrees, which lie at the same place below a replica's folder, and their policies."""

KEYS = "keys"
"""The folder of the master, and of the keyring that both replicas have."""

INTRODUCTION = """\
Two hosts, "one" and "two", share a mail platform's keys and certificates
without a shared disk: each has a directory in memory and a sidecar that mirrors
it, and a real etcd is between them. The time of a change ends when the other
host has it, with the same bytes and modes.
"""

NEXT = """
What to type next:
  .venv/bin/configstore dev       an etcd to try it with, as README.md shows it
  .venv/bin/configstore --help    the command
docs/tutorial.md takes ten minutes; docs/index.md leads to all the rest.
"""

ENVIRONMENT = {name: os.environ[name] for name in os.environ if not name.startswith(("CONFIGSTORE_", "ETCDCTL_"))}


class Replica:
    """A sidecar process and the tmpfs folder that it mirrors to."""

    def __init__(self, name: str, base: Path, endpoint: str) -> None:
        self.name, self.folder, self.log = name, base / name, base / f"{name}.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._settings = base / f"{name}.toml"
        text = f'[store]\nendpoints = ["{endpoint}"]\n[state]\ndirectory = "{base}/{name}-state"\n'
        text += f'[seal]\nkeyring = "{base}/{KEYS}/host"\n[control]\nsocket = ""\n[health]\nlisten = ""\n'
        for store, policy in MAPPINGS.items():
            text += f'[[mapping]]\nname = "{store.replace("/", "-")}"\nstore = "{store}"\n'
            text += f'path = "{self.folder / store}"\n{policy}\n'
        self._settings.write_text(text)

    def start(self) -> None:
        """Start the sidecar on an empty tmpfs: one of its own, or /dev/shm for those who may not mount."""
        self.folder.mkdir(mode=0o700)
        mount = ["mount", "-t", "tmpfs", "-o", "size=16m,mode=0700", "configstore-demo", str(self.folder)]
        subprocess.run(mount, capture_output=True, check=False)
        found = subprocess.run(["stat", "-f", "-c", "%T", self.folder], capture_output=True, check=True).stdout
        assert found == b"tmpfs\n", "no tmpfs: mounting one is not permitted here, and there is none on /dev/shm"
        for store in MAPPINGS:
            (self.folder / store).mkdir(parents=True)
        command = [sys.executable, "-m", "sidecar", "run", "--replica", self.name, "--config", str(self._settings)]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, stderr=log, env=ENVIRONMENT, start_new_session=True)

    def end(self, number: signal.Signals) -> int:
        """Send the sidecar a signal, wait for its end, and return its exit code."""
        if self.process is None:
            return 0
        self.process.send_signal(number)
        code, self.process = self.process.wait(15), None
        return code

    def clear(self) -> None:
        """Take the folder away, and its tmpfs."""
        if self.folder.is_mount():
            subprocess.run(["umount", self.folder], check=True)
        shutil.rmtree(self.folder, ignore_errors=True)

    def write(self, path: str, content: bytes, mode: int = 0o644, *, beside: str = "") -> None:
        """Write a file in place, as Mailu's admin does; or beside it, then rename it over, as fetchmail does."""
        file = self.folder / (path + beside)
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "wb", opener=lambda name, how: os.open(name, how, mode)) as target:
            target.write(content)
        if beside:
            file.rename(self.folder / path)

    def tree(self) -> dict[str, Look | None]:
        """Return all that lies below the mirrored subtrees."""
        return {f"{store}/{path}": seen for store in MAPPINGS for path, seen in tree(self.folder / store).items()}

    def last_words(self) -> str:
        """Return the end of the sidecar's log, which names paths and never content."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n  ".join([f"the last words of the sidecar of {self.name}:", *lines[-10:]])


def dkim_key() -> bytes:
    """Return a fresh RSA-2048 key."""
    form, lock = serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(serialization.Encoding.PEM, form, lock)


def certbot(replica: Replica, number: int) -> None:
    """Lay a new certificate down in certbot's order: archive in place, live by links, renewal by a rename."""
    home, authority = replica.folder / LETSENCRYPT, Authority(replica.folder.parent / "authority")
    cert, key = (file.read_bytes() for file in authority.issue("mail.example.com"))
    for folder in ("archive", "live", "live/mailu"):
        (home / folder).mkdir(mode=0o700, exist_ok=True)
    files = {"cert": cert, "chain": authority.cacert.read_bytes(), "privkey": key}
    files["fullchain"] = files["cert"] + files["chain"]
    for name, content in files.items():
        mode = 0o600 if name == "privkey" else 0o644
        replica.write(f"{LETSENCRYPT}/archive/mailu/{name}{number}.pem", content, mode)
    for name in files:
        (home / f"live/mailu/{name}.pem").unlink(missing_ok=True)
        (home / f"live/mailu/{name}.pem").symlink_to(f"../../archive/mailu/{name}{number}.pem")
    renewal = b"cert = /certs/letsencrypt/live/mailu/cert.pem  # number %d\n" % number
    replica.write(f"{LETSENCRYPT}/renewal/mailu.conf", renewal, beside=".new")


class Demo:
    """What is shown, act by act."""

    def __init__(self, base: Path, endpoint: str) -> None:
        self.base, self.endpoint, self.store = base, endpoint, connect(endpoint)
        self.one, self.two = (Replica(name, base, endpoint) for name in ("one", "two"))
        self.took: list[float] = []
        self.ended: set[str] = set()  # the sessions of killed sidecars, whose reports stay for a while

    def play(self) -> None:
        """Show everything."""
        acts = {
            "Start: all that etcd will hold is encrypted first": (self.seal, self.start),
            "By hand: the command works wherever etcd can be reached": (self.put,),
            "Day by day: programs write plain files, as they always did": (self.fill, self.edit),
            "Renewal: key and certificate change together, or not at all": (self.renew,),
            "A host dies: it comes back with what the store holds": (self.crash, self.compare),
            "Secrets: etcd and its backups hold nothing that can be read": (self.look, self.rotate, self.look),
            "The end: nothing was left unsent": (self.end,),
        }
        for heading, steps in acts.items():
            print(f"\n{heading}", flush=True)
            for step in steps:
                step()

    def tell(self, what: str, since: float, until: float = 0.0) -> None:
        """Print one line; both moments are on the perf counter, `until` is now unless given."""
        print(f"{1000 * ((until or time.perf_counter()) - since):>7.0f} ms  {what}", flush=True)

    @contextlib.contextmanager
    def crossing(self, what: str, source: Replica, target: Replica) -> Iterator[None]:
        """Wait until what the block changes on one replica is on the other one, and tell how long that took."""
        before, start = source.tree(), time.perf_counter()
        yield
        after = source.tree()
        changed = [path for path in before | after if before.get(path) != after.get(path)]
        last = arrive(self.base, {f"{target.name}/{path}": after.get(path) for path in changed})
        self.took.append(last - start)
        what += f", {len(changed)} paths" if len(changed) > 1 else ""
        self.tell(f"{source.name} → {target.name}: {what}", start, last)

    def configstore(self, *arguments: str, content: bytes = b"") -> bytes:
        """Run the command as a person would; content travels on stdin and stdout, never in arguments."""
        command = [sys.executable, "-m", "configstore", "--endpoints", self.endpoint, *arguments]
        keyring = (
            {"CONFIGSTORE_SEAL_KEYRING": str(self.base / KEYS / "master")} if arguments[1] != "keygen" else {}
        )
        done = subprocess.run(command, input=content, capture_output=True, env=ENVIRONMENT | keyring, check=False)
        assert done.returncode == 0, f"`configstore {arguments[0]}` failed: {done.stderr.decode().strip()}"
        return done.stdout

    def seal(self) -> None:
        """Make the keys, of which the replicas get those of what they mirror, and the subtrees."""
        start = time.perf_counter()
        subtrees = [word for store in MAPPINGS for word in ("--subtree", store)]
        self.configstore("seal", "keygen", "--out", str(self.base / KEYS), "--one", "host", *subtrees)
        self.configstore("bootstrap", "--preset", "mailu")
        self.tell("`configstore seal keygen` made the keys, `bootstrap` the subtrees", start)

    def look(self) -> None:
        """Look at all that lies in etcd, for anything that the replicas hold."""
        start, root = time.perf_counter(), Keys().root.encode()
        found = {item.key: item.value for item in self.store.range(root + b"/", root + b"0").items}
        everything = b"\n".join([*found, *found.values()])
        held = [file for file in self.one.folder.rglob("*") if file.is_file() and not file.is_symlink()]
        for file in held:
            content = file.read_bytes()
            assert content[:64] not in everything or PRIVATE_NAME in str(file), f"{file} shows in etcd"
            assert sha256(content).encode() not in everything, f"the digest of {file} shows in etcd"
        self.tell(f"of {len(held)} files nothing shows in etcd's {len(found)} values", start)

    def rotate(self) -> None:
        """Seal everything with a new key, under the running sidecars, which must not notice."""
        start, before = time.perf_counter(), self.one.tree()
        with INotify() as inotify:
            follow(inotify, self.base)
            self.configstore("seal", "rotate")
            self.configstore("seal", "forget", "--anyway")
            wait_until(self.all_ready, what="both sidecars to report all mappings as ready")
            touched = [event.name for event in inotify.read(timeout=1000)]
        left = [
            name for name in touched if not name.startswith(".configstore-") and name not in {"master", "host"}
        ]
        assert (self.one.tree(), self.two.tree(), left) == (before, before, []), f"files were touched: {left}"
        self.tell("`configstore seal rotate` sealed all anew; no file was touched", start)

    def start(self) -> None:
        """Start both sidecars."""
        start = time.perf_counter()
        for replica in (self.one, self.two):
            replica.start()
        private = [f"{name}/{store}/{PRIVATE_NAME}" for store in MAPPINGS for name in ("one", "two")]
        arrive(self.base, dict.fromkeys(private, (Kind.DIR, 0o700, "")))
        self.tell("both sidecars started and took their directories", start)

    def put(self) -> None:
        """Put a key by hand, see it on both, and get it back."""
        path, key, start = "dkim/example.edu.dkim.key", dkim_key(), time.perf_counter()
        self.configstore("put", path, content=key)
        last = arrive(self.base, {f"{name}/{path}": (Kind.FILE, 0o600, sha256(key)) for name in ("one", "two")})
        assert self.configstore("get", path) == key, f"`configstore get {path}` returned other bytes"
        what = "`configstore put` of a DKIM key; `get` returned it byte for byte"
        self.tell(what, start, last)

    def fill(self) -> None:
        """Make a Mailu tree on one, and a key on two."""
        com, org, net = dkim_key(), dkim_key(), dkim_key()
        with self.crossing("fresh DKIM keys", self.one, self.two):
            self.one.write("dkim/example.com.dkim.key", com, 0o600)
            self.one.write("dkim/example.org.dkim.key", org, 0o600)
        with self.crossing("a DKIM key from the other side", self.two, self.one):
            self.two.write("dkim/example.net.dkim.key", net, 0o600)
        with self.crossing("a certificate as certbot lays it down", self.one, self.two):
            certbot(self.one, 1)
        with self.crossing("overrides of nginx", self.one, self.two):
            self.one.write(PROXY, b"client_max_body_size 50m;\n")
            self.one.write(OLD, b"gzip off;\n")
        with self.crossing("fetchids, 80 kB", self.one, self.two):
            self.one.write(FETCHIDS, secrets.token_hex(40_000).encode(), 0o600)

    def edit(self) -> None:
        """Change files in each way that programs do it, and delete one."""
        with self.crossing("an edit in place", self.one, self.two):
            self.one.write(PROXY, b"client_max_body_size 80m;\n")
        with self.crossing("an edit by rename-over", self.two, self.one):
            self.two.write(FETCHIDS, secrets.token_hex(40_000).encode(), 0o600, beside="_")
        with self.crossing("a delete; it waits 1 s, so that a mass delete is noticed", self.one, self.two):
            (self.one.folder / OLD).unlink()

    def renew(self) -> None:
        """Renew the certificate: it travels as a set, so key and certificate always fit."""
        with self.crossing("the certificate renewed", self.one, self.two):
            certbot(self.one, 2)
        start, live = time.perf_counter(), self.two.folder / LETSENCRYPT / "live/mailu"
        rows = json.loads(self.configstore("ls", "-R", "--json", LETSENCRYPT))
        commits = {row["revision"] for row in rows if row["path"].endswith("2.pem") or row["target"]}
        assert len(commits) == 1, f"the renewed certificate came in {len(commits)} transactions"
        cert = x509.load_pem_x509_certificate((live / "fullchain.pem").read_bytes())
        key = serialization.load_pem_private_key((live / "privkey.pem").read_bytes(), None)
        assert cert.public_key() == key.public_key(), "two/live/mailu: the key does not fit the certificate"
        self.tell("it came in one transaction; the live key fits the live certificate", start)

    def crash(self) -> None:
        """Kill two, change things without it, and start it again on an emptied tmpfs."""
        start = time.perf_counter()
        self.ended = {report.session for report in self.reports() if report.replica == self.two.name}
        self.two.end(signal.SIGKILL)
        self.two.clear()
        self.one.write(PROXY, b"# two is dead\n")
        self.one.write(GZIP, b"gzip on;\n")
        (self.one.folder / "dkim/example.org.dkim.key").unlink()
        wait_until(lambda: b".org" not in self.configstore("ls", "dkim"), what="the delete to be in the store")
        self.tell("two killed by SIGKILL; on one an edit, a new file and a delete", start)
        start, tree = time.perf_counter(), self.one.tree()
        self.two.start()
        last = arrive(self.base, {f"two/{path}": found for path, found in tree.items()})
        self.tell(f"two restarted on an empty tmpfs: it pulled {len(tree)} paths", start, last)
        assert self.one.tree() == tree, "the restart of two changed something on one"

    def compare(self) -> None:
        """See that nothing moves any more, and that both sides are equal."""
        start = time.perf_counter()
        wait_until(self.all_ready, what="both sidecars to report all mappings as ready")
        revision = self.store.status().revision
        with INotify() as inotify:
            follow(inotify, self.base)
            touched = [event.name for event in inotify.read(timeout=2000)]  # longer than any settle window
        written = self.store.status().revision - revision
        assert (written, touched) == (0, []), f"not quiet: {written} revisions written, files touched: {touched}"
        assert self.one.tree() == self.two.tree(), "the trees of one and two differ"
        self.tell("both trees are equal and quiet: no revision written, no file touched", start)

    def reports(self) -> list[Report]:
        """Return what the sidecars say of themselves in the store."""
        return live_reports(Store(self.store, Keys()))

    def all_ready(self) -> bool:
        """Tell whether both sidecars say that all their mappings are ready."""
        ready = [
            each for each in self.reports() if each.state is MappingState.READY and each.session not in self.ended
        ]
        return len(ready) == 2 * len(MAPPINGS)

    def end(self) -> None:
        """Stop both sidecars as an orchestrator does."""
        start = time.perf_counter()
        codes = [replica.end(signal.SIGTERM) for replica in (self.one, self.two)]
        assert codes == [0, 0], f"the sidecars ended with {codes} on SIGTERM"
        self.tell("SIGTERM: both ended with exit code 0", start)


@contextlib.contextmanager
def stage() -> Iterator[Demo]:
    """Set everything up, and take everything down whatever happens."""
    with contextlib.ExitStack() as stack:
        stack.callback(signal.signal, signal.SIGINT, signal.getsignal(signal.SIGINT))
        base = Path(tempfile.mkdtemp(prefix=f"configstore-demo-{os.getpid()}-", dir="/dev/shm"))
        stack.callback(shutil.rmtree, base)
        start = time.perf_counter()
        etcd = stack.enter_context(EmbeddedEtcd())
        demo = Demo(base, etcd.endpoint)
        stack.callback(demo.store.close)
        for replica in (demo.one, demo.two):
            stack.callback(replica.clear)
            stack.callback(replica.end, signal.SIGKILL)
        stack.callback(signal.signal, signal.SIGINT, signal.SIG_IGN)  # the first to run: nothing cuts this short
        demo.tell(f"an etcd {demo.store.status().version} answers; it is one for trying", start)
        try:
            yield demo
        except Exception as error:
            for replica in (demo.one, demo.two):
                error.add_note(replica.last_words())
            raise


def main() -> int:
    """Show everything and return 0; 1 when something did not come to pass."""
    start = time.perf_counter()
    print(INTRODUCTION, flush=True)
    try:
        with stage() as demo:
            demo.play()
    except (AssertionError, ConfigstoreError, OSError, subprocess.SubprocessError) as error:
        print("\n".join([f"demo: FAILED: {error}", *getattr(error, "__notes__", [])]), file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("demo: interrupted; everything is taken down", file=sys.stderr)
        return 130
    median, whole = 1000 * sorted(demo.took)[len(demo.took) // 2], time.perf_counter() - start
    print(f"\ndemo: all {len(demo.took)} changes arrived, median {median:.0f} ms; {whole:.1f} s, nothing is left")
    print(NEXT, end="")
    return 0


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    sys.exit(main())

"""Roundcube's enigma with one home of a user, by the commands that it runs: those of Crypt_GPG, on a real gpg.

Sources: roundcubemail plugins/enigma/lib/enigma_driver_gnupg.php (a home a user below /data/gpg, 0700, and what is
done with it), Crypt_GPG's Engine.php (the options of each command, and the agent that is ended after it), GPG.php
and KeyGenerator.php (the commands themselves).
"""

import re
import subprocess

from tests.harness.waiting import wait_until
from tests.real.acme import program
from tests.real.preset import PresetReplica

NO_AGENT = re.compile(rb"can't connect to the (gpg-)?agent|[Nn]o agent running|no running gpg-agent")
SPOILT = re.compile(rb"key generation failed: Corrupted protection")
"""gpg cannot open the key that it made; busy machines without a sidecar see that, too (rnpgp/rnp issue 2457)."""

OPTIONS = (
    "--no-secmem-warning",
    "--no-tty",
    "--no-default-keyring",
    "--no-options",
    "--no-permission-warning",
    "--exit-on-status-write-error",
    *("--trust-model", "always"),
    *("--pinentry-mode", "loopback"),
    "--ignore-time-conflict",
    "--ignore-valid-from",
)


class Roundcube(PresetReplica):
    """A webmail's container in which one user has enigma switched on."""

    user = "user@example.org"

    @property
    def home(self):
        """Where his keys lie."""
        return self.at(f"/data/gpg/{self.user}")

    def run(self, *command, data=b"", codes=(0,)):
        """Run one gpg as Crypt_GPG does, end its agent, and return what was printed.

        gpg waits five seconds for an agent to start; on a busy machine that may be too little, so it is run again,
        as it is where the key that it made is spoilt.
        """
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        whole = [program("gpg"), *OPTIONS, "--homedir", str(self.home), "--passphrase", "secret", *command]

        def once():
            tried = subprocess.run(whole, input=data, capture_output=True, check=False)
            self.end_agent()
            return None if NO_AGENT.search(tried.stderr) or SPOILT.search(tried.stderr) else tried

        done = wait_until(once, 60, what="an agent")
        assert done.returncode in codes, done.stderr.decode()
        return done

    def end_agent(self):
        subprocess.run(
            ["gpgconf", "--homedir", str(self.home), "--kill", "gpg-agent"], capture_output=True, check=False
        )

    def gen_key(self, name, email):
        """Make a pair in one batch, look for its fingerprint, and return that."""
        lines = [
            "Key-Type: RSA", "Key-Length: 1024", "Key-Usage: sign,cert", "Subkey-Type: RSA", "Subkey-Length: 1024",
            "Subkey-Usage: encrypt", f"Name-Real: {name}", f"Name-Email: {email}", "Passphrase: secret",
            "Expire-Date: 0", "%commit", "",
        ]  # fmt: skip
        self.run("--gen-key", "--batch", data="\n".join(lines).encode())
        return self.keys(email)[0]

    def keys(self, pattern=""):
        """List secret keys and then public ones, as `getKeys` does; returns the fingerprints of the latter."""
        form = ["--utf8-strings", "--with-colons", "--with-fingerprint", "--fixed-list-mode"]
        wanted = [pattern] if pattern else []
        self.run(*form, "--list-secret-keys", *wanted, codes=(0, 2))
        listed = self.run(*form, "--list-public-keys", *wanted, codes=(0, 2)).stdout.decode().splitlines()
        first = [number for number, line in enumerate(listed) if line.startswith("pub:")]
        return [
            next(each for each in listed[number:] if each.startswith("fpr:")).split(":")[9] for number in first
        ]

    def secret_keys(self):
        """Return the fingerprints of the secret keys."""
        listed = self.run("--with-colons", "--fixed-list-mode", "--list-secret-keys", codes=(0, 2)).stdout.decode()
        lines = listed.splitlines()
        return [lines[number + 1].split(":")[9] for number, line in enumerate(lines) if line.startswith("sec:")]

    def import_key(self, key):
        self.run("--batch", "--import", data=key)

    def export(self, fingerprint):
        """Return the public and the secret key, each by a command of its own."""
        public = self.run("--armor", "--export", fingerprint).stdout
        return public + self.run("--batch", "--armor", "--export-secret-keys", fingerprint).stdout

    def delete_key(self, fingerprint):
        """Try the public key, which is refused while there is a secret one; then that, then the first again."""
        if self.run("--batch", "--yes", "--delete-key", fingerprint, codes=(0, 2)).returncode:
            self.run("--batch", "--yes", "--delete-secret-key", fingerprint)
            self.run("--batch", "--yes", "--delete-key", fingerprint)

    def sign(self, text, fingerprint):
        return self.run("--armor", "--local-user", fingerprint, "--clearsign", data=text).stdout

    def verify(self, text):
        return self.run("--verify", data=text, codes=(0, 1, 2)).returncode == 0

    def encrypt(self, text, fingerprint):
        return self.run("--armor", "--recipient", fingerprint, "--encrypt", data=text).stdout

    def decrypt(self, text):
        return self.run("--decrypt", "--skip-verify", data=text).stdout

    def __exit__(self, *_):
        if self.home.exists():
            self.end_agent()
        super().__exit__()

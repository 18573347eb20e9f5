"""SnappyMail's files of one webmail, written and removed as its PHP does it.

Sources, below snappymail/v/0.0.0/app/libraries of SnappyMail 2.38: RainLoop/Providers/Storage/FileStorage.php
(places, and the clean-up), RainLoop/Utils.php (`saveFile`: in place, then chmod), RainLoop/Actions/UserAuth.php
(sessions), RainLoop/Actions/User.php (`DoAppDelayStart`: the timer), RainLoop/Providers/Files/FileStorage.php
(uploads), RainLoop/Providers/AddressBook/PdoAddressBook.php (contacts), snappymail/upgrade.php (Rainloop's files);
RainLoop/Providers/Storage/FileStorage.php of Rainloop 1.16 for the latter; and webmails/start.py of Mailu.
"""

import hashlib
import os
import secrets
import shutil
import sqlite3
import time

from tests.real.preset import PresetReplica

HOUR, DAY = 3600, 86400


def make(folder):
    """As PHP's mkdir(…, 0700, true): what is missing above has that mode, too."""
    if not folder.exists():
        make(folder.parent)
        folder.mkdir(mode=0o700)


class SnappyMail(PresetReplica):
    """A webmail's container with SnappyMail."""

    @property
    def private(self):
        return self.at("/data/_data_/_default_")

    @property
    def storage(self):
        return self.private / "storage"

    def starts(self):
        """Do what /start.py and the first request do: configuration anew, the salt where there is none."""
        shutil.rmtree(self.private / "domains", ignore_errors=True)
        for name in ("domains/default.json", "configs/application.ini"):
            self.save(self.private / name, "{}")
        if not self.at("/data/SALT.php").exists():
            self.save(self.at("/data/SALT.php"), f"<?php //{secrets.token_hex(16)}")

    def save(self, path, content):
        """As `saveFile`: in place, then the mode."""
        make(path.parent)
        path.write_text(content)
        path.chmod(0o600)

    def home(self, user):
        local, _, domain = user.rpartition("@")
        return self.storage / domain / local

    def timer(self):
        return self.storage / "__nobody__" / hashlib.sha1(b"Cache/Timers").hexdigest()

    def logs_in(self, user):
        """Begin a session and return its token."""
        token = secrets.token_hex(20)
        self.save(self.home(user) / ".sessions" / token, "true")
        return token

    def request(self, user, token):
        """Tell whether a session is known; a look keeps it alive. Where it is not, it is over."""
        path = self.home(user) / ".sessions" / token
        if path.exists() and path.read_text():
            os.utime(path)
            return True
        path.unlink(missing_ok=True)
        return False

    def remembers(self, user):
        """Leave the server's half of a "remember me"."""
        self.save(self.home(user) / ".sign_me" / secrets.token_hex(16), secrets.token_hex(32))

    def uploads(self, user, content):
        """Take an attachment of a message that is being written."""
        path = self.home(user) / ".files" / hashlib.sha1(content).hexdigest()
        make(path.parent)
        path.write_bytes(content)

    def sets(self, user, content):
        """Save a user's settings."""
        self.save(self.home(user) / "settings", content)

    def has_set(self, user):
        path = self.home(user) / "settings"
        return path.read_text() if path.exists() else None

    def forgets(self, user):
        """As `DeleteStorage`: the user's whole folder."""
        shutil.rmtree(self.home(user))

    def adds_contact(self, user, email):
        make(self.home(user))
        with sqlite3.connect(self.home(user) / "AddressBook.sqlite") as book:
            book.execute("create table if not exists contacts (email text)")
            book.execute("insert into contacts values (?)", (email,))
        book.close()

    def contacts(self, user):
        book = sqlite3.connect(self.home(user) / "AddressBook.sqlite")
        try:
            return [email for (email,) in book.execute("select email from contacts")]
        finally:
            book.close()

    def ages(self, seconds):
        """Let time pass for what lies here: each file is older."""
        for where, _, files in os.walk(self.storage):
            for name in files:
                path = os.path.join(where, name)
                before = os.stat(path).st_mtime
                os.utime(path, (before - seconds, before - seconds))
        if self.timer().exists():
            main, files = (int(each) - seconds for each in self.timer().read_text().split(","))
            self.save(self.timer(), f"{main},{files}")

    def delayed_start(self):
        """Do what each page does a moment after it was opened: once a day the clean-up."""
        now = int(time.time())
        main, files = map(int, self.timer().read_text().split(",")) if self.timer().exists() else (0, 0)
        cleans, cleans_files = main + 23 * HOUR < now, files + 25 * HOUR < now
        if cleans or cleans_files:
            self.save(self.timer(), f"{now if cleans else main},{now if cleans_files else files}")
        if cleans:
            for home in self.storage.glob("*/*/"):
                self._remove_old(home / ".sign_me", 30 * DAY)
                self._remove_old(home / ".sessions", 3 * HOUR)
        return cleans

    def _remove_old(self, folder, seconds):
        """As `RecTimeDirRemove`: files that are older, then the folder when it is empty."""
        if not folder.is_dir():
            return
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir():
                if not any(path.iterdir()):
                    path.rmdir()
            elif path.stat().st_mtime < time.time() - seconds:
                path.unlink()
        if not any(folder.iterdir()):
            folder.rmdir()

    def rainloop_saved(self, user, content):
        """Leave a user's settings where Rainloop had them."""
        self.save(self.storage / "cfg" / user[:2] / user / "settings", content)

    def upgrades(self):
        """Do what the first request of SnappyMail does to what Rainloop left."""
        if not (self.storage / "cfg").is_dir():
            return
        for old in self.storage.glob("cfg/*/*/"):
            home = self.home(old.name)
            make(home)
            for item in old.glob("*"):
                if item.name == "sign_me":
                    item.unlink()
                else:
                    item.rename(home / item.name)
            shutil.rmtree(old)
        for name in ("cfg", "data", "files"):
            shutil.rmtree(self.storage / name, ignore_errors=True)

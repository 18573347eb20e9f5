#!/usr/bin/env python3
"""What Mailu's admin does to its folders when it starts, as far as they are there; then nothing, until SIGTERM.

/starts gets a line at each start: the files that were there. At its end it writes the file that /at-the-end names.
"""

import json
import os
import pathlib
import signal
import socket
import sys

USER, GROUP = 100, 1000  # `mailu` in Mailu's images


def end(*_):
    """Write a last file, as programs do that note at their end how far they came."""
    named = pathlib.Path("/at-the-end")
    if named.exists():
        pathlib.Path(named.read_text().strip()).write_text("last\n")
    sys.exit(0)


signal.signal(signal.SIGTERM, end)
there = [
    f"{place}/{name}"
    for folder in ("/certs", "/data", "/dkim", "/overrides")
    for place, _, files in os.walk(folder)
    if ".configstore" not in place
    for name in files
]
with open("/starts", "a") as starts:
    starts.write(json.dumps(sorted(there)) + "\n")
for folder in ("/data", "/dkim"):
    for place, _, files in os.walk(folder):
        for path in (place, *(f"{place}/{name}" for name in files)):
            os.chown(path, USER, GROUP)
pathlib.Path("/started").touch()
listening = [
    socket.create_server(("", port)) for port in (80, 8080)
]  # webmail's and admin's, once they have started
while True:
    signal.pause()

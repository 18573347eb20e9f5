#!/usr/bin/env python3
"""What Mailu's admin does to its folders when it starts, as far as they are there; then nothing, until SIGTERM."""

import os
import pathlib
import signal
import sys

USER, GROUP = 100, 1000  # `mailu` in Mailu's images

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
for folder in ("/data", "/dkim"):
    for place, _, files in os.walk(folder):
        for path in (place, *(f"{place}/{name}" for name in files)):
            os.chown(path, USER, GROUP)
pathlib.Path("/started").touch()
while True:
    signal.pause()

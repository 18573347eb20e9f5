"""Keeps what a release costs: `python -m tests.bench.record`, or `make bench-record`, once for each release.

Writes tests/bench/releases/VERSION.json: the figures that `make bench` printed, the counts, and where they were
measured. `tests.bench.compare` takes the newest of them: its commit to measure this version beside, its counts as
they are. Milliseconds are kept to be read, not to be compared: they are of one machine and one day.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from configstore import __version__
from tests.bench.compare import RELEASES
from tests.bench.counts import counts
from tests.bench.outside import HERE


def main() -> int:
    """Write the file of this version."""
    parser = argparse.ArgumentParser(prog="bench-record", description=__doc__)
    parser.add_argument("--figures", metavar="FILE", help="what `python -m tests.bench --json FILE` wrote")
    parser.add_argument("--commit", help="the commit that they are of; default: the one that is checked out")
    options = parser.parse_args()
    git = ["git", "rev-parse", "--verify", options.commit or "HEAD"]
    commit = subprocess.run(git, cwd=HERE, check=True, capture_output=True, text=True).stdout.strip()
    found = {
        "version": __version__,
        "commit": commit,
        "date": time.strftime("%Y-%m-%d"),
        "machine": {
            "cores": os.cpu_count(),
            "kernel": platform.release().split("-")[0],
            "load": os.getloadavg()[0],
        },
        "figures": json.loads(Path(options.figures).read_text()) if options.figures else [],
        "counts": counts(),
    }
    RELEASES.mkdir(exist_ok=True)
    file = RELEASES / f"{__version__}.json"
    file.write_text(json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    print(f"written: {file.relative_to(HERE)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

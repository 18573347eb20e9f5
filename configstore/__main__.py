"""`python -m configstore` is the command `configstore`."""

import sys

from configstore.cli import main

if __name__ == "__main__":
    sys.exit(main())

"""Runs the command: `python -m imagenet_family`."""

import sys

from imagenet_family.cli import main

if __name__ == "__main__":
    sys.exit(main())

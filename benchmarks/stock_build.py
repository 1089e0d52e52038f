"""Builds one dataset with stock TFDS: what the other benchmarks compare with.

Files that stock TFDS would download are taken from the folder of the archives.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "support"))

import parity


def main() -> None:
    """Builds the dataset."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", metavar="NAME[/CONFIG]")
    parser.add_argument("--manual_dir", type=Path, required=True)
    parser.add_argument("--data_dir", type=Path, required=True)
    parser.add_argument("--file_format")
    args = parser.parse_args()
    name, _, config = args.name.partition("/")
    parity.build_stock(
        name, args.manual_dir, args.data_dir, config=config or None, file_format=args.file_format
    )


if __name__ == "__main__":
    main()

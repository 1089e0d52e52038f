"""The `imagenet-family` command.

Exit codes: 0 all done; 1 an error, said in one line on standard error; 2 arguments that are not
those of the command; 130 stopped by Ctrl-C.
"""

from __future__ import annotations

import argparse
import importlib
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

import imagenet_family
from imagenet_family.cli import interrupts
from imagenet_family.errors import ImagenetFamilyError

# Each is a module here with `add_arguments(parser)` and `run(args) -> int`, imported only when it
# is asked for: every command starts at once.
_COMMANDS = {
    "build": "build datasets from the archives",
    "verify": "check archives before a build, and prepared datasets after it",
    "export-wds": "write a dataset as WebDataset tars, as timm reads them",
    "evaluate": "measure models on datasets by their predictions, with a report",
    "predictions-template": "write the file names to fill predictions in",
    "demo": "build every dataset from small fake archives and show what came out",
}


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command.

    Args:
        argv: Arguments; those of the process if None.

    Returns:
        The exit code.
    """
    argv = sys.argv[1:] if argv is None else list(argv)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that has no “…” is no reason to end in an error.
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        with interrupts.held_back():
            args = _parse(argv)
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except ImagenetFamilyError as error:
        print(f"imagenet-family: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        resumes = argv[:1] in (["build"], ["export-wds"]) and "--check" not in argv
        hint = " The same command again goes on from what is finished." if resumes else ""
        print(f"imagenet-family: stopped.{hint}", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `| head` has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except OSError as error:  # of which nobody has said more
        print(f"imagenet-family: error: {error}", file=sys.stderr)
        return 1


class _Version(argparse.Action):
    """Shows the version, which is only looked up for that."""

    def __init__(self, option_strings: Sequence[str], dest: str, **kwargs: Any) -> None:
        super().__init__(option_strings, argparse.SUPPRESS, nargs=0, **kwargs)

    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        print(f"{parser.prog} {imagenet_family.__version__}")
        parser.exit()


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="imagenet-family",
        description="ImageNet-2012 and the datasets derived from it, straight from the archives.",
        epilog="`imagenet-family COMMAND --help` explains a command.",
    )
    parser.add_argument("--version", action=_Version, help="show the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in _COMMANDS.items():
        command = commands.add_parser(
            name, help=summary, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        if name in argv[:1]:
            module = importlib.import_module(f"imagenet_family.cli.{name.replace('-', '_')}")
            command.description = module.__doc__
            module.add_arguments(command)
            command.set_defaults(run=module.run)
    return parser.parse_args(argv)

"""The command as a user runs it, what it says, and what it leaves."""

import re

from imagenet_family import cli


def build(archives, data_dir, name, *options):
    return cli.main(
        [
            *("build", name, "--manual_dir", str(archives), "--data_dir", str(data_dir)),
            *("--no_verify_checksums", "--workers", "1", *options),
        ]
    )


def said(capsys):
    """Gives the one line that the command says of an error."""
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    lines = [line for line in errors.splitlines() if line.startswith("imagenet-family: error: ")]
    assert len(lines) == 1, errors
    assert errors.rstrip("\n").endswith(lines[0]), "the message has more than one line"
    return lines[0]


def assert_nothing_prepared(data_dir):
    if data_dir.is_dir():
        left = [path.name for path in data_dir.rglob("*") if path.is_dir()]
        assert not [name for name in left if re.fullmatch(r"\d+\.\d+\.\d+", name)], left
        assert not [name for name in left if name.startswith("incomplete.")], left

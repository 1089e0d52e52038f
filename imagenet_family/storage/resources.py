"""Data files that lie at the repository's top level in a checkout and in the package in a wheel."""

from pathlib import Path

from imagenet_family.errors import MissingFileError

_PACKAGE = Path(__file__).resolve().parent.parent


def resource_path(*parts: str) -> Path:
    """Returns where a data file or folder of this project is.

    Args:
        *parts: path below the top level, e.g. `"checksums", "imagenet_v2.tsv"`.

    Returns:
        The path inside the installed package when it is there, else the one in the checkout.

    Raises:
        MissingFileError: It is in neither.
    """
    candidates = [base.joinpath(*parts) for base in (_PACKAGE, _PACKAGE.parent)]
    for candidate in candidates:
        if candidate.exists():
            return candidate
    raise MissingFileError(
        f"{'/'.join(parts)} belongs to imagenet_family but is neither {candidates[0]} nor "
        f"{candidates[1]}. The installation is incomplete: install the package again."
    )

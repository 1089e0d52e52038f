"""What there is in a folder instead of an archive that is not there.

Whoever is told that 148 GB are missing will fetch them again; mostly they are there, under another
name or in another form.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# What browsers and file managers add to the name of a second copy.
_COPY = re.compile(r"( ?\(\d+\)|[ _-]+copy( ?\d+)?|\.\d+|~)(?=(\.tar)?$)")
_UNFINISHED = (".part", ".partial", ".crdownload", ".download", ".aria2", ".tmp", ".st")
_UNPACK = {
    ".bz2": "bunzip2",
    ".xz": "unxz",
    ".zst": "unzstd",
    ".zip": "unzip",
    ".7z": "7z x",
    ".rar": "unrar x",
}


def near_misses(names: Iterable[str], wanted: str, elsewhere: Mapping[str, str]) -> list[str]:
    """Says which files of a folder may be the wanted archive, and what to do with each.

    Args:
        names: What the folder holds.
        wanted: The name of the tar archive that is not among them.
        elsewhere: Other names under which the archive's content is known to lie about, each with
            what to do with it.

    Returns:
        A sentence for each.
    """
    found = []
    for name in sorted(names):
        plain, tar = name.lower(), wanted.lower()
        stem = tar.removesuffix(".tar")
        end = next((e for e in _UNPACK if plain in (f"{tar}{e}", f"{stem}{e}")), None)
        if plain in (f"{tar}{suffix}" for suffix in _UNFINISHED):
            found.append(f"{name} is a download that has not ended.")
        elif plain in (tar, f"{tar}.gz", f"{stem}.tgz") or _COPY.sub("", plain) == tar:
            found.append(f"{name} is there: give it the name {wanted}.")
        elif end is not None:
            found.append(f"{name} is there: unpack it ({_UNPACK[end]}) to {wanted}.")
        elif name in elsewhere:
            found.append(f"{name} is there: {elsewhere[name]}.")
    return found

"""Links in a tar are the files that they name, as `tarfile` reads them.

Whoever packs a folder in which equal files were made one (`cp -al`, `rdfind`) gets a tar with links
instead of images. A link becomes a member of its own name at the place of the file's data.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from imagenet_family.copies.tar.parts import Link, Members, Part, Region, Skipped
from imagenet_family.errors import ArchiveError


class _Place(NamedTuple):
    """Where a file's data is: a row of members."""

    members: Members
    row: int


def resolve(parts: Sequence[Part], source: str) -> list[Members | Region | Skipped]:
    """Gives what was found in one region of an archive, with a member for each link.

    Args:
        parts: What was found, in archive order.
        source: What messages call the archive.

    Raises:
        ArchiveError: A link names no file of the region.
    """
    if not any(isinstance(part, Link) for part in parts):
        return [part for part in parts if not isinstance(part, Link)]
    found: dict[str, _Place | Link] = {}
    hard: dict[Link, _Place | Link | None] = {}
    for part in parts:
        if isinstance(part, Members):
            for row, path in enumerate(_paths(part)):
                found[path] = _Place(part, row)
        elif isinstance(part, Link):
            # A hard link is to a file before it, even if one of that name follows.
            if not part.symbolic:
                hard[part] = found.get(part.target)
            found[part.path] = part
    return [
        _member(part, _place(part, found, hard, source)) if isinstance(part, Link) else part
        for part in parts
    ]


def _paths(members: Members) -> list[str]:
    folders = [f"{directory}/" if directory else "" for directory in members.directories]
    names = members.names.tolist()
    directories = members.directory.tolist()
    return [folders[at] + name.decode() for at, name in zip(directories, names, strict=True)]


def _place(
    link: Link,
    found: dict[str, _Place | Link],
    hard: dict[Link, _Place | Link | None],
    source: str,
) -> _Place:
    """Follows a link, and the links that it names, to a file."""
    seen = {link}
    target: _Place | Link | None = link
    while isinstance(target, Link):
        target = found.get(target.target) if target.symbolic else hard[target]
        if target in seen:
            target = None
        elif isinstance(target, Link):
            seen.add(target)
    if target is None:
        kind = "symbolic" if link.symbolic else "hard"
        raise ArchiveError(
            f"{source}: at offset {link.position} in {link.path!r}: expected a link to a file of "
            f"the archive, found a {kind} link to {link.target!r}. Pack the archive again with the "
            "files themselves (tar --dereference --hard-dereference), or without this link."
        )
    return target


def _member(link: Link, place: _Place) -> Members:
    directory, _, name = link.path.rpartition("/")
    members, row = place
    rows = slice(row, row + 1)
    return Members(
        (directory,),
        np.zeros(1, np.int32),
        np.array([name.encode()]),
        members.offsets[rows],
        members.sizes[rows],
        members.checks[rows],
    )


def described(skipped: Sequence[Skipped]) -> str:
    """Says in words what was left out; nothing if that was nothing."""
    counts: dict[str, tuple[int, str]] = {}
    for part in skipped:
        count, first = counts.get(part.kind, (0, part.first))
        counts[part.kind] = count + part.count, first
    return ", ".join(
        f"{count:,} {kind} (such as {first})" for kind, (count, first) in counts.items()
    )

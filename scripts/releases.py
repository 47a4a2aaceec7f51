"""The releases of the template: releases.yml names each version's commit.

Tags do the same for users. A clone may come without them, and the tests have to find every release
in any clone.
"""

from __future__ import annotations

import re
from pathlib import Path

import yaml
from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).resolve().parent.parent
FULL_COMMIT = re.compile(r"[0-9a-f]{40}")
HEADER = "# Every release and its commit, oldest first. `make release` appends; the tests read.\n"


class ReleasesError(Exception):
    """The list of releases is wrong; the message names entry, reason and fix."""


def read(root: Path = ROOT) -> dict[str, str]:
    """The full commit of each version, oldest first.

    Raises:
        ReleasesError: a version is not PEP 440 or not newer than the one before it, or a commit is
            not written in full.
    """
    path = root / "releases.yml"
    entries = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    last = None
    for text, commit in entries.items():
        if not isinstance(text, str):
            raise ReleasesError(f'{path.name}: {text} is a number. Quote the version: "{text}"')
        version = parsed(text)
        if last is not None and version <= last:
            raise ReleasesError(
                f"{path.name}: {text} follows {last}. Releases stand oldest first: sort the lines"
            )
        if not (isinstance(commit, str) and FULL_COMMIT.fullmatch(commit)):
            raise ReleasesError(
                f"{path.name}: {text} names {commit!r}. A commit is written with all 40 digits: "
                f"`git rev-parse {text}`"
            )
        last = version
    return dict(entries)


def write(releases: dict[str, str], root: Path = ROOT) -> None:
    """Write the list."""
    lines = [f'"{version}": {commit}\n' for version, commit in releases.items()]
    (root / "releases.yml").write_text(HEADER + "".join(lines), encoding="utf-8")


def parsed(version: str) -> Version:
    """A version as copier orders it.

    Raises:
        ReleasesError: it is not PEP 440.
    """
    try:
        return Version(version)
    except InvalidVersion as error:
        raise ReleasesError(
            f"{version!r} is refused. A version is written as PEP 440 has it, or copier does not "
            "see its tag; for example: 1.2.0 or 1.2.0rc1"
        ) from error

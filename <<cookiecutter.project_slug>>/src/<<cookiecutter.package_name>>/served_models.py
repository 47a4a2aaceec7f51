"""The folder between the registry and the server.

``registry sync`` writes it, the server watches it; neither needs the other to be up::

    versions/3/     a bundle
    aliases.json    {"production": "3"}; replaced in one step, after the bundles it names
"""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path

from .bundle import Bundle, BundleError, read_bundle

ALIASES_FILE = "aliases.json"
VERSIONS_FOLDER = "versions"
PRODUCTION = "production"
logger = logging.getLogger(__name__)

VERSION_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def read_aliases(served: Path) -> dict[str, str]:
    """Which version each alias names; empty before the first sync.

    Raises:
        BundleError: the file cannot be read or is not a JSON object of strings.
    """
    path = served / ALIASES_FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise BundleError(f"{path} is not JSON ({error}): run `registry sync` again") from error
    except OSError as error:
        raise BundleError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(v, str) for v in content.values()):
        raise BundleError(f'{path} must look like {{"production": "3"}}: run `registry sync` again')
    return content


def write_aliases(served: Path, aliases: Mapping[str, str]) -> None:
    """Replace the aliases in one step: a reader sees the old ones or the new ones."""
    served.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=".aliases-", dir=served)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        json.dump(dict(aliases), file, sort_keys=True)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(0o644)
    Path(name).replace(served / ALIASES_FILE)


def version_folder(served: Path, version: str) -> Path:
    """Where a version's bundle lies.

    Raises:
        BundleError: the version's name would lead out of the folder.
    """
    if not VERSION_NAME.fullmatch(version):
        raise BundleError(f"{version!r} is no version: a version looks like 3")
    return served / VERSIONS_FOLDER / version


def add_version(served: Path, version: str, source: Path) -> bool:
    """Copy a verified bundle in; it appears complete or not at all.

    Returns:
        Whether it was new. The same bundle is left as it lies; another one of that number, as after
        the registry was started anew or for another model, takes its place.

    Raises:
        BundleError: the source is not intact.
    """
    target = version_folder(served, version)
    wanted = read_bundle(source)
    replaces = target.exists()
    if replaces:
        try:
            if read_bundle(target) == wanted:
                return False
        except BundleError as error:
            logger.warning("replacing version %s: %s", version, error)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".incoming-", dir=target.parent) as incoming:
        staged = Path(incoming) / target.name
        shutil.copytree(source, staged, copy_function=shutil.copyfile)
        staged.chmod(0o755)
        read_bundle(staged)
        try:
            if replaces:
                target.rename(Path(incoming) / "replaced")
            staged.rename(target)
        except OSError:
            read_bundle(target)  # another sync may have been faster
            return False
    return True


def served_bundle(served: Path, version: str) -> Bundle:
    """Read and verify a version's bundle.

    Raises:
        BundleError: it is missing or altered.
    """
    return read_bundle(version_folder(served, version))

"""Release the template: `make release VERSION=1.2.0`.

Checks that version, changelog, branch and tests agree, tags the commit and lists it in
releases.yml, in a commit after it. Nothing is pushed; the commands that do it are printed.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

from packaging.version import Version

import releases

BRANCH = "main"
SECTION = re.compile(r"^## \[(?P<name>[^\]]+)\](?: - (?P<date>\S+))?[ \t]*$", re.MULTILINE)
FIELD = re.compile(r'^\[project\]$.*?^version = "(?P<version>[^"]*)"$', re.MULTILINE | re.DOTALL)


def main() -> int:
    """Release, or say everything that speaks against it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("version", help="such as 1.2.0")
    parser.add_argument(
        "--tested", metavar="COMMIT", default="", help="the full commit that `make test` passed on"
    )
    arguments = parser.parse_args()
    root = releases.ROOT
    try:
        problems = [
            *version_problems(arguments.version, root),
            *changelog_problems(arguments.version, root),
            *repository_problems(arguments.version, arguments.tested, root),
        ]
        require_none(problems)
        if not arguments.tested:
            tested = git(root, "rev-parse", "HEAD")
            run_tests(root)
            require_none([*repository_problems(arguments.version, tested, root)])
        release(arguments.version, root)
    except releases.ReleasesError as error:
        print(f"no release:\n{error}", file=sys.stderr)
        return 1
    print(
        f"{arguments.version} is tagged and listed. Publish it:\n\n"
        f"    git push --atomic origin {BRANCH} {arguments.version}"
    )
    return 0


def require_none(problems: list[str]) -> None:
    """Refuse the release where anything is wrong, with every reason at once.

    Raises:
        ReleasesError: there is a problem.
    """
    if problems:
        raise releases.ReleasesError("\n".join(problems))


def version_problems(version: str, root: Path) -> Iterator[str]:
    """Why a version cannot be the next one."""
    try:
        wanted = releases.parsed(version)
    except releases.ReleasesError as error:
        yield str(error)
        return
    if str(wanted) != version or wanted.local or wanted.epoch:
        yield (
            f"VERSION {version!r} is refused. It is not the plain form that tags have; "
            f"for example: {wanted.base_version.rpartition('!')[2]}"
        )
    listed = releases.read(root)
    if listed and wanted <= Version(last := list(listed)[-1]):
        yield (
            f"VERSION {version!r} is refused. {last} is released already, and copier updates "
            "upwards only: give a higher one"
        )
    field = FIELD.search((root / "pyproject.toml").read_text(encoding="utf-8"))
    written = field["version"] if field else ""
    if written != version:
        yield (
            f"pyproject.toml: the version is {written!r}, not {version!r}: write "
            f'version = "{version}"'
        )


def changelog_problems(version: str, root: Path) -> Iterator[str]:
    """Why the changelog does not fit a version."""
    found = sections((root / "CHANGELOG.md").read_text(encoding="utf-8"))
    if "Unreleased" not in found:
        yield "CHANGELOG.md: the section [Unreleased] is missing: put an empty one on top"
    elif found["Unreleased"][1]:
        yield (
            f"CHANGELOG.md: [Unreleased] still holds entries: move them below "
            f"## [{version}] - {date.today().isoformat()}"
        )
    if version not in found:
        yield (
            f"CHANGELOG.md: {version} has no section: add ## [{version}] - "
            f"{date.today().isoformat()} with what changed"
        )
        return
    day, text = found[version]
    try:
        date.fromisoformat(day)
    except ValueError:
        yield (
            f"CHANGELOG.md: the date {day!r} of [{version}] is not one: write "
            f"## [{version}] - {date.today().isoformat()}"
        )
    if not text:
        yield f"CHANGELOG.md: the section [{version}] is empty: write what changed"


def sections(changelog: str) -> dict[str, tuple[str, str]]:
    """Date and text of each section of a changelog, by its name."""
    heads = list(SECTION.finditer(changelog))
    ends = [head.start() for head in heads[1:]] + [len(changelog)]
    return {
        head["name"]: (head["date"] or "", changelog[head.end() : end].strip())
        for head, end in zip(heads, ends, strict=True)
    }


def repository_problems(version: str, tested: str, root: Path) -> Iterator[str]:
    """Why the state of the repository cannot be released."""
    branch = git(root, "branch", "--show-current")
    if branch != BRANCH:
        yield f"The branch is {branch or 'none'!r}: releases are made on it: git switch {BRANCH}"
    if changed := git(root, "status", "--porcelain"):
        yield f"These files are not committed, so the tag would not hold them: commit\n{changed}"
    if git(root, "tag", "--list", version):
        yield f"The tag {version} exists already: git tag --delete {version}, or a higher version"
    head = git(root, "rev-parse", "HEAD")
    if tested not in ("", head):
        yield f"TESTED {tested!r} is not what is released: leave it out, or test {head} and give it"


def run_tests(root: Path) -> None:
    """Run `make test`.

    Raises:
        ReleasesError: a test failed.
    """
    if subprocess.run(["make", "test"], cwd=root, check=False).returncode != 0:
        raise releases.ReleasesError("`make test` failed: mend what it names and commit that")


def release(version: str, root: Path) -> None:
    """Tag the commit and list it, in a commit of its own: a commit cannot hold its own number.

    Raises:
        ReleasesError: git refused; nothing is left of the release.
    """
    commit = git(root, "rev-parse", "HEAD")
    git(root, "tag", "--annotate", version, "--message", f"Release {version}")
    try:
        releases.write({**releases.read(root), version: commit}, root)
        git(root, "add", "releases.yml")
        git(root, "commit", "--quiet", "--message", f"List release {version}")
    except releases.ReleasesError:
        git(root, "tag", "--delete", version)
        git(root, "checkout", "HEAD", "--", "releases.yml")
        raise


def git(root: Path, *arguments: str) -> str:
    """Run git and give its output, stripped.

    Raises:
        ReleasesError: git refused; with its reason.
    """
    result = subprocess.run(
        ["git", *arguments], cwd=root, capture_output=True, text=True, check=False
    )
    if result.returncode != 0:
        raise releases.ReleasesError(f"git {' '.join(arguments)}: {result.stderr.strip()}")
    return result.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())

"""`make release`: what it refuses, and what it leaves when it goes through."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import releases
from histories import substitute, write
from processes import git, run
from projects import BIN, snapshot

VERSION = "0.2.0"
LISTED = "0.1.0"
CHANGELOG = f"""# Changelog

## [Unreleased]

## [{VERSION}] - 2026-12-01

### Added

- More.

## [{LISTED}] - 2026-11-23

- First.
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone in which everything is ready for VERSION; its `make test` only leaves a mark."""
    folder = snapshot(tmp_path / "clone")
    write(folder / "CHANGELOG.md", CHANGELOG)
    releases.write({LISTED: git(folder, "rev-parse", "HEAD")}, folder)
    substitute(folder / "pyproject.toml", f'version = "{LISTED}"', f'version = "{VERSION}"')
    substitute(folder / "Makefile", "\n\t$(PYTEST)\n", "\n\t@echo the tests ran >> build/tests\n")
    substitute(folder / "Makefile", "\ntest: lint", "\ntest:")
    environment = folder / ".venv"
    environment.mkdir()
    # Python finds its packages by the pyvenv.cfg that lies beside the folder it was called in.
    for name in ("bin", "lib", "pyvenv.cfg"):
        (environment / name).symlink_to(BIN.parent / name)
    commit(folder)
    (environment / ".installed").touch()
    (folder / "build").mkdir()
    return folder


def commit(folder: Path) -> None:
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Prepare")


def release(clone: Path, version: str = VERSION, *options: str) -> subprocess.CompletedProcess[str]:
    script = (sys.executable, "scripts/release.py", version, *options)
    return run(*script, cwd=clone, check=False)


def test_a_release_is_tested_tagged_and_listed(clone: Path) -> None:
    released = git(clone, "rev-parse", "HEAD")
    said = run("make", "release", f"VERSION={VERSION}", cwd=clone).stdout
    assert f"git push --atomic origin main {VERSION}" in said
    assert (clone / "build" / "tests").read_text(encoding="utf-8") == "the tests ran\n"
    assert git(clone, "rev-parse", f"{VERSION}^{{commit}}") == released
    assert list(releases.read(clone)) == [LISTED, VERSION]
    assert releases.read(clone)[VERSION] == released
    assert git(clone, "status", "--porcelain") == ""
    assert git(clone, "diff", "--name-only", released, "HEAD") == "releases.yml"


def test_tests_that_passed_on_the_commit_are_not_repeated(clone: Path) -> None:
    tested = git(clone, "rev-parse", "HEAD")
    run("make", "release", f"VERSION={VERSION}", f"TESTED={tested}", cwd=clone)
    assert not (clone / "build" / "tests").exists()
    assert releases.read(clone)[VERSION] == tested


def test_a_commit_amid_the_tests_is_not_released(clone: Path) -> None:
    substitute(
        clone / "Makefile",
        "\t@echo the tests ran >> build/tests\n",
        "\t@git commit --quiet --allow-empty --message Amid\n",
    )
    commit(clone)
    tested = git(clone, "rev-parse", "HEAD")
    refused = release(clone)
    assert refused.returncode == 1
    assert f"TESTED '{tested}' is not what is released" in refused.stdout + (refused.stderr or "")
    assert git(clone, "tag", "--list") == ""


def test_a_release_that_cannot_be_listed_leaves_nothing(clone: Path) -> None:
    hook = clone / ".git" / "hooks" / "commit-msg"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    assert release(clone).returncode == 1
    assert git(clone, "tag", "--list") == ""
    assert git(clone, "status", "--porcelain") == ""
    hook.unlink()
    assert release(clone).returncode == 0


def test_a_pre_release_may_precede_its_release(clone: Path) -> None:
    for version in ("0.2.0rc1", VERSION):
        for name in ("pyproject.toml", "CHANGELOG.md"):
            text = (clone / name).read_text(encoding="utf-8")
            write(clone / name, text.replace("0.2.0rc1", VERSION).replace(VERSION, version))
        if git(clone, "status", "--porcelain"):
            commit(clone)
        assert release(clone, version).returncode == 0
    assert list(releases.read(clone)) == [LISTED, "0.2.0rc1", VERSION]


REFUSALS: dict[str, tuple[Callable[[Path], object], str]] = {
    "other version in pyproject": (
        lambda clone: substitute(clone / "pyproject.toml", f'"{VERSION}"', '"0.1.5"'),
        f"pyproject.toml: the version is '0.1.5', not '{VERSION}': write version = \"{VERSION}\"",
    ),
    "no section": (
        lambda clone: substitute(clone / "CHANGELOG.md", f"## [{VERSION}]", "## [0.1.5]"),
        f"CHANGELOG.md: {VERSION} has no section: add ## [{VERSION}] - ",
    ),
    "no date": (
        lambda clone: substitute(clone / "CHANGELOG.md", " - 2026-12-01", ""),
        f"CHANGELOG.md: the date '' of [{VERSION}] is not one: write ## [{VERSION}] - ",
    ),
    "wrong date": (
        lambda clone: substitute(clone / "CHANGELOG.md", "2026-12-01", "2026-13-01"),
        f"CHANGELOG.md: the date '2026-13-01' of [{VERSION}] is not one: write ## [{VERSION}] - ",
    ),
    "empty section": (
        lambda clone: substitute(clone / "CHANGELOG.md", "### Added\n\n- More.\n\n", ""),
        f"CHANGELOG.md: the section [{VERSION}] is empty: write what changed",
    ),
    "unreleased entries": (
        lambda clone: substitute(clone / "CHANGELOG.md", "[Unreleased]\n", "[Unreleased]\n\n- X\n"),
        f"CHANGELOG.md: [Unreleased] still holds entries: move them below ## [{VERSION}] - ",
    ),
    "no unreleased section": (
        lambda clone: substitute(clone / "CHANGELOG.md", "## [Unreleased]\n", ""),
        "CHANGELOG.md: the section [Unreleased] is missing: put an empty one on top",
    ),
    "other branch": (
        lambda clone: git(clone, "checkout", "--quiet", "-b", "work"),
        "The branch is 'work': releases are made on it: git switch main",
    ),
    "existing tag": (
        lambda clone: git(clone, "tag", VERSION),
        f"The tag {VERSION} exists already: git tag --delete {VERSION}",
    ),
    "failing tests": (
        lambda clone: substitute(clone / "Makefile", "@echo the tests ran", "@false"),
        "`make test` failed: mend what it names and commit that",
    ),
    "unordered releases": (
        lambda clone: releases.write({"0.1.1": "a" * 40, LISTED: "b" * 40}, clone),
        "releases.yml: 0.1.0 follows 0.1.1. Releases stand oldest first: sort the lines",
    ),
    "short commit": (
        lambda clone: releases.write({LISTED: "abc1234"}, clone),
        "releases.yml: 0.1.0 names 'abc1234'. A commit is written with all 40 digits",
    ),
    "number for a version": (
        lambda clone: write(clone / "releases.yml", f"0.1: {'a' * 40}\n"),
        'releases.yml: 0.1 is a number. Quote the version: "0.1"',
    ),
}


@pytest.mark.parametrize(("spoil", "reason"), REFUSALS.values(), ids=REFUSALS)
def test_what_does_not_agree_is_refused(
    spoil: Callable[[Path], object], reason: str, clone: Path
) -> None:
    spoil(clone)
    if git(clone, "status", "--porcelain"):
        commit(clone)
    assert_refused(clone, release(clone), reason)


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("", "'' is refused. A version is written as PEP 440 has it"),
        ("next", "'next' is refused. A version is written as PEP 440 has it"),
        ("v0.2.0", "VERSION 'v0.2.0' is refused. It is not the plain form that tags have; for "),
        ("0.2.0+ours", "VERSION '0.2.0+ours' is refused. It is not the plain form"),
        ("1!0.2.0", "VERSION '1!0.2.0' is refused. It is not the plain form"),
        (LISTED, f"VERSION '{LISTED}' is refused. {LISTED} is released already"),
        ("0.0.9", f"VERSION '0.0.9' is refused. {LISTED} is released already"),
    ],
)
def test_a_version_that_cannot_follow_is_refused(version: str, reason: str, clone: Path) -> None:
    assert_refused(clone, release(clone, version), reason)


@pytest.mark.parametrize("name", ["README.md", "new.txt"])
def test_what_is_not_committed_is_refused(name: str, clone: Path) -> None:
    write(clone / name, "changed")
    refused = release(clone)
    assert_refused(clone, refused, "These files are not committed, so the tag would not hold them")
    assert name in refused.stdout


def test_tests_of_another_commit_do_not_count(clone: Path) -> None:
    tested = git(clone, "rev-parse", "HEAD~1")
    assert_refused(clone, release(clone, VERSION, "--tested", tested), f"TESTED '{tested}' is not")


def test_every_reason_is_told_at_once(clone: Path) -> None:
    refused = release(clone, "0.3.0").stdout
    assert "pyproject.toml: the version is" in refused
    assert "CHANGELOG.md: 0.3.0 has no section" in refused


def assert_refused(clone: Path, refused: subprocess.CompletedProcess[str], reason: str) -> None:
    assert refused.returncode == 1
    assert reason in refused.stdout
    assert "Traceback" not in refused.stdout
    assert len(git(clone, "log", "--format=%s", "--grep=List release")) == 0
    assert git(clone, "tag") in ("", VERSION)

"""Rendered projects, and the two generators that render them."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, NoReturn

import pytest
import yaml

import lint_template
from processes import git, run

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent
ANSWERS_FILE = ".copier-answers.yml"
SLUG = "purchase-prediction"
TRACKERS = ("mlflow", "wandb")
# Parameters of a test that needs a tracker's environment: each tracker's tests run in one process.
EACH_TRACKER = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in TRACKERS]


class File(NamedTuple):
    """What both generators must agree on."""

    mode: int
    content: bytes

    @property
    def executable(self) -> bool:
        return bool(self.mode & stat.S_IXUSR)


@dataclass(frozen=True)
class RenderedProject:
    """A project on disk.

    Attributes:
        path: its folder.
        environment: variables that its commands get on top of the shell's.
    """

    path: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def answers(self) -> dict[str, str]:
        answers: dict[str, str] = yaml.safe_load(self.read(ANSWERS_FILE))
        return answers

    @property
    def tracker(self) -> str:
        return self.answers["tracker"]

    @property
    def python(self) -> Path:
        return self.path / ".venv" / "bin" / "python"

    def read(self, name: str) -> str:
        return (self.path / name).read_text(encoding="utf-8")

    def has(self, name: str) -> bool:
        return (self.path / name).exists()

    def run(
        self, *command: str | Path, check: bool = True, **environment: str
    ) -> subprocess.CompletedProcess[str]:
        return run(*command, cwd=self.path, check=check, env={**self.environment, **environment})

    def copy(self, folder: Path) -> RenderedProject:
        """A copy to write into, which uses this project's environment with its own package."""
        shutil.copytree(self.path, folder, ignore=shutil.ignore_patterns(".git", ".venv", "demo"))
        programs = f"{self.path / '.venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"
        return RenderedProject(folder, {"PATH": programs, "PYTHONPATH": str(folder / "src")})

    def files(self) -> dict[str, File]:
        """Every file by its relative path, git's own aside."""
        found = {}
        for path in sorted(self.path.rglob("*")):
            name = path.relative_to(self.path)
            if path.is_file() and name.parts[0] != ".git":
                mode = stat.S_IMODE(path.stat().st_mode)
                found[name.as_posix()] = File(mode, path.read_bytes())
        return found


def differences(one: RenderedProject, other: RenderedProject) -> list[str]:
    """What two projects differ in; only the origin that copier and the hook record may differ."""
    ours, theirs = one.files(), other.files()
    found = [f"{name}: in one of them only" for name in sorted(set(ours) ^ set(theirs))]
    for name in sorted(set(ours) & set(theirs)):
        mine, its = ours[name], theirs[name]
        if mine.mode != its.mode:
            found.append(f"{name}: mode {mine.mode:o} and {its.mode:o}")
        if name == ANSWERS_FILE:
            mine, its = (
                file._replace(content=without_origin(file.content)) for file in (mine, its)
            )
        if mine.content != its.content:
            found.append(f"{name}: other content")
    return found


def without_origin(answers: bytes) -> bytes:
    """An answers file without the lines that copier and the hook keep for updates."""
    lines = answers.splitlines(keepends=True)
    return b"".join(line for line in lines if not line.startswith((b"_commit: ", b"_src_path: ")))


def interpreter(version: str) -> Path:
    """A Python of this minor version; the test is skipped, or fails under REQUIRE_SERVICES."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    candidates = list(pyenv.glob(f"{version}.*/bin/python"))
    if on_path := shutil.which(f"python{version}"):
        candidates.append(Path(on_path))
    for candidate in candidates:
        if (
            subprocess.run([candidate, "--version"], capture_output=True, check=False).returncode
            == 0
        ):
            return candidate
    return missing(f"no Python {version} on PATH or in {pyenv}")


def require_program(name: str) -> str:
    """The program's path; the test is skipped, or fails under REQUIRE_SERVICES."""
    return shutil.which(name) or missing(f"{name} is not installed")


def missing(message: str) -> NoReturn:
    """Skip the test that needs it, or fail under REQUIRE_SERVICES."""
    if os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(message)
    pytest.skip(message)


def snapshot(folder: Path) -> Path:
    """A repository of the template as it stands, committed or not, with one commit and no tag."""
    for path in lint_template.repository_files(ROOT):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
        target.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
    make_repository(folder)
    return folder


def make_repository(folder: Path) -> None:
    """Commit everything in a folder, as a repository of its own."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "Everything")


def cookiecutter(
    template: str | Path,
    output: Path,
    answers: Mapping[str, str] | None = None,
    *options: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    output.mkdir(parents=True, exist_ok=True)
    words = [f"{name}={value}" for name, value in (answers or {}).items()]
    return run(
        *(BIN / "cookiecutter", template, "--no-input", "--output-dir", output, *options, *words),
        cwd=cwd or output,
        env=env,
        check=check,
    )


def copier(
    template: str | Path,
    project: Path,
    answers: Mapping[str, str] | None = None,
    *options: str,
    check: bool = True,
) -> subprocess.CompletedProcess[str]:
    data = [f"--data={name}={value}" for name, value in (answers or {}).items()]
    return run(
        *(BIN / "copier", "copy", "--defaults", "--quiet", *options, *data, template, project),
        cwd=project.parent,
        check=check,
    )


def render(
    generator: str, template: Path, folder: Path, answers: Mapping[str, str]
) -> RenderedProject:
    """Render a project with one of the tools, in a new folder."""
    folder.mkdir(parents=True)
    project = folder / answers.get("project_slug", SLUG)
    if generator == "cookiecutter":
        cookiecutter(template, folder, answers)
    else:
        copier(template, project, answers)
    return RenderedProject(project)

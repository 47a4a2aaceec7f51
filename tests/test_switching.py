"""Changing a living project's tracker: files, its own checks, and the models it has registered."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from histories import History, commit_all, fresh, make_owners_edits, update
from projects import SLUG, RenderedProject, cookiecutter, snapshot

CURRENT = "--vcs-ref=:current:"
VERSION = re.compile(r"│ +(\d+) +│")

pytestmark = pytest.mark.usefixtures("own_tools")


@pytest.fixture
def template(tmp_path: Path) -> History:
    """The template as it stands, released."""
    history = History(snapshot(tmp_path / "template"), "0.1.0")
    history.commit("First", "0.1.0")
    return history


def living(template: History, folder: Path, tracker: str, environment: Path) -> RenderedProject:
    """A project with its owner's edits, which uses a ready environment with its own package."""
    cookiecutter(template.path, folder, {"tracker": tracker})
    programs = f"{environment / 'bin'}{os.pathsep}{os.environ['PATH']}"
    path = folder / SLUG
    variables = {
        "PATH": programs,
        "PYTHONPATH": str(path / "src"),
        "OMP_NUM_THREADS": "1",
        "ML_FOLDS": "1",
        "ML_BOOTSTRAP_RESAMPLES": "20",
    }
    project = RenderedProject(path, variables)
    make_owners_edits(project)
    commit_all(project)
    return project


def switch(project: RenderedProject, template: History, tracker: str, folder: Path) -> None:
    """Change the tracker, and require a fresh project of it with the owner's edits."""
    update(project, CURRENT, f"--data=tracker={tracker}")
    expected = fresh(template, "0.1.0", folder, {"tracker": tracker})
    make_owners_edits(expected)
    committed = project.run("git", "ls-files", "--cached", "--others", "--exclude-standard").stdout
    files = project.files()
    assert {name: files[name] for name in committed.splitlines() if name in files} == (
        expected.files()
    )
    commit_all(project, f"Track with {tracker}")


def lint(project: RenderedProject) -> None:
    project.run("ruff", "check", "--no-cache", ".")
    project.run("ruff", "format", "--no-cache", "--check", ".")


def run_its_tests(project: RenderedProject) -> None:
    project.run("python", "-m", "pytest", "--quiet", "tests/tracking")


def command(project: RenderedProject, *words: str) -> str:
    return project.run("python", "-m", project.answers["package_name"], *words).stdout


def versions(project: RenderedProject) -> list[str]:
    return sorted(VERSION.findall(command(project, "registry", "list")))


@pytest.mark.slow
@pytest.mark.xdist_group("wandb")
def test_the_tracker_is_switched_and_back_and_the_models_stay(
    rendered_with_environment: Callable[[str], RenderedProject], template: History, tmp_path: Path
) -> None:
    environment = rendered_with_environment("wandb").path / ".venv"
    project = living(template, tmp_path, "mlflow", environment)
    command(project, "data", "simulate", "--customers", "300")
    train_and_register(project)

    switch(project, template, "wandb", tmp_path / "as-wandb")
    lint(project)
    run_its_tests(project)
    assert versions(project) == ["1"]
    train_and_register(project)
    assert list((project.path / "wandb").glob("offline-run-*"))

    switch(project, template, "mlflow", tmp_path / "as-mlflow")
    run_its_tests(project)
    assert versions(project) == ["1", "2"]


def train_and_register(project: RenderedProject) -> None:
    command(project, "train")
    command(project, "registry", "register")


@pytest.mark.slow
@pytest.mark.parametrize(("first", "second"), [("mlflow", "wandb"), ("wandb", "mlflow")])
def test_the_whole_suite_passes_after_a_switch(
    first: str, second: str, template: History, tmp_path: Path
) -> None:
    cookiecutter(template.path, tmp_path, {"tracker": first})
    project = RenderedProject(tmp_path / SLUG)
    update(project, CURRENT, f"--data=tracker={second}")
    project.run("make", "lint", "test")

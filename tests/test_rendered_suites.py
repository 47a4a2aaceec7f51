"""A rendered project, as a person uses it: its demo, its checks, its own tests, its pins."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

import pre_gen_project
from conftest import Demo
from projects import EACH_TRACKER, RenderedProject, interpreter, render

LIST_INSTALLED = """
import importlib.metadata as metadata
import json
brought_by_venv = {"pip", "setuptools", "wheel"}
versions = {distribution.name: distribution.version for distribution in metadata.distributions()}
modules = metadata.packages_distributions()
print(json.dumps([
    {name: version for name, version in versions.items() if name not in brought_by_venv},
    [module for module, owners in modules.items() if not brought_by_venv.issuperset(owners)],
]))
"""


@pytest.mark.parametrize("tracker", EACH_TRACKER)
def test_the_demo_ends_with_a_prediction_and_a_summary(
    tracker: str, demo: Callable[[str], Demo]
) -> None:
    result = demo(tracker).result
    assert result.returncode == 0, result.stdout
    for part in ("project", "tracked run", "model version", "gain over baseline"):
        assert re.search(rf"^{part}\b", result.stdout, re.MULTILINE), part
    assert '"prediction"' in result.stdout
    assert "Warning" not in result.stdout


@pytest.mark.parametrize("tracker", EACH_TRACKER)
@pytest.mark.parametrize("target", ["lint", "audit", "test"])
def test_its_own_checks_pass(
    tracker: str, target: str, rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    rendered_with_environment(tracker).run("make", target)


@pytest.mark.slow
@pytest.mark.parametrize("tracker", EACH_TRACKER)
def test_the_commands_of_its_readme_run(
    tracker: str, rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    project = rendered_with_environment(tracker)
    project.run(project.python, "-m", "pytest", "-q", "-m", "", "tests/test_readme.py")


@pytest.mark.parametrize("tracker", EACH_TRACKER)
def test_what_its_commands_write_is_not_in_git(
    tracker: str, rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    project = rendered_with_environment(tracker)
    assert project.run("git", "rev-parse", "--show-toplevel").stdout.strip() == str(project.path)
    assert project.run("git", "status", "--porcelain").stdout == ""


@pytest.mark.parametrize("tracker", EACH_TRACKER)
def test_everything_installed_is_pinned_and_its_names_are_reserved(
    tracker: str, rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    project = rendered_with_environment(tracker)
    versions, modules = json.loads(project.run(project.python, "-c", LIST_INSTALLED).stdout)
    own = {project.answers["project_slug"], project.answers["package_name"]}
    installed = {normalized(name): version for name, version in versions.items()}
    pins = {
        (match["name"], match["version"])
        for match in re.finditer(
            r"^(?P<name>\S+)==(?P<version>\S+)", project.read("constraints.txt"), re.MULTILINE
        )
    }
    assert {item for item in installed.items() if item[0] not in own} <= pins

    names = {name.replace("-", "_") for name in [*installed, *modules]} - {
        name.replace("-", "_") for name in own
    }
    package = pre_gen_project.RULES["package_name"].accepts
    possible = {name for name in names if re.fullmatch(package, name)}
    assert possible <= pre_gen_project.RESERVED, "run scripts/refresh_constraints.py"


@pytest.mark.slow
@pytest.mark.parametrize("version", ["3.10", "3.12", "3.13"])
def test_its_suite_passes_on_other_pythons(version: str, template: Path, tmp_path: Path) -> None:
    answers = {"python_version": version, "tracker": "wandb"}
    project = render("cookiecutter", template, tmp_path / "out", answers)
    project.run("make", "test", f"PYTHON={interpreter(version)}")


def normalized(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()

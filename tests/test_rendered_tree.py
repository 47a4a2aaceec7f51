"""What every rendered project is: the same from both tools, complete, and legal everywhere."""

from __future__ import annotations

import itertools
import json
import re
import sys
import unicodedata
from pathlib import Path, PurePosixPath

import pytest

from conftest import Render
from in_process import InProcess
from processes import git, run
from projects import ANSWERS_FILE, BIN, ROOT, TRACKERS, differences

DEFINITION = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))

COMBINATIONS = {
    "mlflow": {},
    "wandb": {"tracker": "wandb"},
    "unicode-apache-newest-python": {
        "project_name": "It's 😀 שלום: {{ a }} 100% #1 & <b>",
        "project_slug": "a",
        "description": "'quoted' ${HOME} $(id) `id` : - # % \u202eright to left\u202c",
        "author_name": "Zoë O'Neil, \u05d0 <x>",
        "author_email": "first.last+tag@sub-domain.example.com",
        "license": "Apache-2.0",
        "python_version": "3.13",
        "tracker": "wandb",
    },
    "long-proprietary-oldest-python": {
        "project_name": "Name " + "x" * 295,
        "project_slug": "abcdefghij-klmnopqrst-uvwxyz-1",
        "package_name": "abcdefghij_klmnopqrst_uvwxyz_1",
        "description": "d" * 300,
        "license": "Proprietary",
        "python_version": "3.10",
    },
    "bsd": {"license": "BSD-3-Clause", "python_version": "3.12"},
}
EVERY_OPTION = [
    {"license": license_, "python_version": python, "tracker": tracker}
    for license_, python, tracker in itertools.product(
        DEFINITION["license"], DEFINITION["python_version"], DEFINITION["tracker"]
    )
]
each_combination = pytest.mark.parametrize("answers", COMBINATIONS.values(), ids=COMBINATIONS)

NAMES_OF_WANDB = re.compile(rb"wandb|w&b|weights\W{0,3}(and\W|&amp;)?\W{0,3}biases", re.IGNORECASE)
LICENSES = {
    "MIT": ("MIT License", "without restriction"),
    "Apache-2.0": ("                                 Apache License", "Copyright Your Name"),
    "BSD-3-Clause": ("BSD 3-Clause License", "Redistribution and use"),
    "Proprietary": ("Copyright (c) Your Name. All rights reserved.", "proprietary"),
}


@each_combination
def test_both_generators_render_the_same(answers: dict[str, str], rendered: Render) -> None:
    projects = (rendered(generator, **answers) for generator in ("cookiecutter", "copier"))
    assert differences(*projects) == []


@pytest.mark.slow
@pytest.mark.parametrize("tracker", TRACKERS)
def test_both_generators_render_the_same_for_every_option(tracker: str, tmp_path: Path) -> None:
    tools = InProcess(tmp_path)
    for answers in (answers for answers in EVERY_OPTION if answers["tracker"] == tracker):
        tools.clear()
        one, other = tools.cookiecutter(answers), tools.copier(answers)
        assert one is not None
        assert other is not None
        assert differences(one, other) == [], answers
        assert {name: one.answers[name] for name in answers} == answers


@each_combination
def test_no_mark_of_the_template_is_left(answers: dict[str, str], rendered: Render) -> None:
    for name, file in rendered(**answers).files().items():
        assert re.search(rb"<<|<%|<#", name.encode() + b"\n" + file.content) is None, name


@each_combination
def test_the_first_commit_holds_every_file(answers: dict[str, str], rendered: Render) -> None:
    project = rendered(**answers)
    listed = git(project.path, "-c", "core.quotePath=off", "ls-files").splitlines()
    assert set(listed) == set(project.files())
    assert git(project.path, "status", "--porcelain") == ""
    assert git(project.path, "log", "--format=%an %s") == (
        f"A Tester Start from the template at {project.answers['_commit']}"
    )


@each_combination
def test_names_are_legal_on_windows(answers: dict[str, str], rendered: Render) -> None:
    names = list(rendered(**answers).files())
    devices = {
        *("con", "prn", "aux", "nul", "conin$", "conout$"),
        *(f"{device}{n}" for device in ("com", "lpt") for n in "0123456789\u00b9\u00b2\u00b3"),
    }
    paths = {*names, *(str(folder) for name in names for folder in PurePosixPath(name).parents)}
    alike = {unicodedata.normalize("NFC", path).casefold() for path in paths}
    assert len(alike) == len(paths)
    for name in names:
        # Of the 260 characters that Windows allows, 100 are left for the folder that holds it.
        assert len(name) <= 160, name
        for part in PurePosixPath(name).parts:
            assert re.search(r'[<>:"\\|?*\x00-\x1f]|[. ]$', part) is None, name
            assert part.partition(".")[0].lower() not in devices, name


@each_combination
def test_python_is_formatted_and_linted(answers: dict[str, str], rendered: Render) -> None:
    path = rendered(**answers).path
    run(BIN / "ruff", "format", "--no-cache", "--diff", ".", cwd=path)
    run(BIN / "ruff", "check", "--no-cache", ".", cwd=path)


@pytest.mark.parametrize("name", ["zz", "p_x1_x1_x1_x1_x1a", "z_x1_x1_x1_x1_x1_x1_x1_x1_x1_y"])
def test_a_package_name_of_any_length_needs_no_formatting(name: str, tmp_path: Path) -> None:
    """Import lines of tests carry the name: its length may wrap them, its letters reorder them."""
    assert len(name) in {2, 17, 30}
    tools = InProcess(tmp_path)
    tools.clear()
    for tracker in TRACKERS:
        slug = {"project_slug": tracker[::-1], "package_name": name, "tracker": tracker}
        project = tools.cookiecutter(slug)
        assert project is not None
        project.run(BIN / "ruff", "format", "--no-cache", "--diff", ".")
        project.run(BIN / "ruff", "check", "--no-cache", ".")


def test_a_project_without_wandb_does_not_speak_of_it(rendered: Render) -> None:
    for name, file in rendered().files().items():
        assert NAMES_OF_WANDB.search(name.encode() + b"\n" + file.content) is None, name


@pytest.mark.parametrize("tracker", TRACKERS)
def test_a_project_holds_the_module_and_the_test_of_its_tracker_only(
    tracker: str, rendered: Render
) -> None:
    project = rendered(tracker=tracker)
    tracking = project.path / "src" / "purchase_prediction" / "tracking"
    assert {path.name for path in tracking.glob("*.py")} == {"__init__.py", f"{tracker}.py"}
    tests = {path.name for path in (project.path / "tests" / "tracking").glob("test_*.py")}
    assert f"test_{tracker}.py" in tests
    assert not tests & {f"test_{other}.py" for other in TRACKERS if other != tracker}


def test_a_wandb_project_keeps_mlflow_as_its_registry(rendered: Render) -> None:
    project = rendered(tracker="wandb")
    assert '"wandb' in project.read("pyproject.toml")
    assert '"mlflow' in project.read("pyproject.toml")


@pytest.mark.parametrize("license_", DEFINITION["license"])
def test_the_license_is_the_one_asked_for(license_: str, rendered: Render) -> None:
    project = rendered(license=license_)
    first_line, phrase = LICENSES[license_]
    assert project.read("LICENSE").splitlines()[0] == first_line
    assert phrase in project.read("LICENSE")
    assert "Your Name" in project.read("LICENSE")
    assert (f'license = "{license_}"' in project.read("pyproject.toml")) == (
        license_ != "Proprietary"
    )


def test_the_apache_license_is_the_official_text(rendered: Render) -> None:
    official = Path("/usr/share/common-licenses/Apache-2.0")
    if not official.exists():
        pytest.skip("this system has no copy of the license to compare with")
    ours = rendered(license="Apache-2.0").read("LICENSE").strip()
    theirs = official.read_text(encoding="utf-8").strip()
    assert ours == theirs.replace("[yyyy] [name of copyright owner]", "Your Name")


@pytest.mark.parametrize("version", DEFINITION["python_version"])
def test_the_python_answer_sets_the_oldest_python_and_nothing_else(
    version: str, rendered: Render
) -> None:
    project = rendered(python_version=version)
    assert f'requires-python = ">={version}"' in project.read("pyproject.toml")
    default = rendered().files()
    files = project.files()
    differing = {name for name in files if files[name].content != default[name].content}
    images = {"Dockerfile", ".devcontainer/Dockerfile", "deploy/compose/base.yaml"}
    workflows = {name for name in files if name.startswith(".github/workflows/")}
    assert (
        differing <= {ANSWERS_FILE, "Makefile", "README.md", "pyproject.toml"} | images | workflows
    )


def test_constraints_hold_exact_versions_and_no_address(rendered: Render) -> None:
    pin = re.compile(r"[a-z0-9-]+==[^ ]+( ; [\w '\"=<>!().*]+)?")
    for path in (ROOT / "constraints.txt", rendered(tracker="wandb").path / "constraints.txt"):
        lines = path.read_text(encoding="utf-8").splitlines()
        assert [line for line in lines if not pin.fullmatch(line)] == []
        assert lines == sorted(lines, key=lambda line: line.partition("==")[0])


def test_constraints_of_trackers_differ_in_what_wandb_needs(rendered: Render) -> None:
    with_wandb = set(rendered(tracker="wandb").read("constraints.txt").splitlines())
    without = set(rendered().read("constraints.txt").splitlines())
    assert without < with_wandb
    assert any(line.startswith("wandb==") for line in with_wandb - without)


def test_this_python_is_supported() -> None:
    assert f"{sys.version_info.major}.{sys.version_info.minor}" in DEFINITION["python_version"]

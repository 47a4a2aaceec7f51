"""Bringing a living project to a newer template: three-way merges, whichever tool made it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import releases
from conftest import once
from histories import (
    NEW,
    OLD,
    OWNERS_EDITS,
    History,
    as_recorded_by,
    commit_all,
    fresh,
    made_up,
    make_owners_edits,
    released,
    substitute,
    update,
    write,
)
from processes import git
from projects import BIN, SLUG, TRACKERS, RenderedProject, cookiecutter, copier, snapshot

GENERATORS = ("cookiecutter", "copier")
STARTS = [("releases", version) for version in releases.read()] + [("made up", OLD)]
DATA = "src/purchase_prediction/data.py"
PAIRED = tuple(zip(GENERATORS, TRACKERS, strict=True))  # the other pairs are long tests
slow = pytest.mark.slow
each_generator = pytest.mark.parametrize("generator", GENERATORS)
# Both tools' projects are the same, and copier updates them: the other one is a long test.
either_generator = pytest.mark.parametrize(
    "generator", [pytest.param("cookiecutter"), pytest.param("copier", marks=slow)]
)

Generate = Callable[..., RenderedProject]


@pytest.fixture
def generate(own_tools: Path, tmp_path: Path) -> Generate:  # noqa: ARG001 - sets the environment
    """Generates a project with one of the tools, and commits it."""

    def give(
        history: History, generator: str = "cookiecutter", tag: str = OLD, **answers: str
    ) -> RenderedProject:
        project = RenderedProject(tmp_path / generator / SLUG)
        if generator == "cookiecutter":
            cookiecutter(history.address, project.path.parent, answers, "--checkout", tag)
        else:
            project.path.parent.mkdir()
            copier(history.path, project.path, answers, "--vcs-ref", tag)
            commit_all(project, "Start from the template")
        return project

    return give


@pytest.fixture(scope="session")
def histories(shared: Path) -> dict[str, History]:
    """The real releases and a made-up pair of versions; shared, so no test may write into them."""
    real = once(shared / "releases", released)
    return {
        "releases": History(real, git(real, "describe", "--tags", "HEAD")),
        "made up": History(once(shared / "made-up", made_up), NEW),
    }


@pytest.fixture
def pair(histories: dict[str, History]) -> History:
    """The made-up pair."""
    return histories["made up"]


@pytest.fixture
def own_template(tmp_path: Path) -> History:
    """A template that a test may change, with one commit and no tag."""
    return History(snapshot(tmp_path / "template"), "")


@pytest.mark.parametrize(
    ("generator", "tracker"),
    [
        pytest.param(*pair, marks=() if pair in PAIRED else slow)
        for pair in product(GENERATORS, TRACKERS)
    ],
)
@pytest.mark.parametrize(("name", "start"), STARTS)
def test_an_update_gives_the_newest_project_with_the_owners_edits(
    name: str,
    start: str,
    generator: str,
    tracker: str,
    generate: Generate,
    histories: dict[str, History],
    tmp_path: Path,
) -> None:
    history = histories[name]
    project = generate(history, generator, start, tracker=tracker)
    write(project.path / ".env", "ML_SEED=11\n")
    make_owners_edits(project)
    commit_all(project)
    update(project)

    expected = fresh(history, history.newest, tmp_path / "expected", {"tracker": tracker})
    as_recorded_by(expected, project)
    write(expected.path / ".env", "ML_SEED=11\n")
    make_owners_edits(expected)
    assert project.files() == expected.files()
    assert project.answers["_commit"] == history.newest
    assert len(OWNERS_EDITS) == 10


def test_the_made_up_pair_differs_in_every_way(pair: History, tmp_path: Path) -> None:
    old, new = (fresh(pair, tag, tmp_path / tag, {}).files() for tag in (OLD, NEW))
    assert set(old) - set(new) == {
        "docs/old.md",
        "docs/guide.md",
        "src/purchase_prediction/gifts.py",
    }
    assert {"docs/handbook.md", "docs/new/page.md", "tools/report.sh"} <= set(new) - set(old)
    assert {name for name in old.keys() & new.keys() if old[name] != new[name]} >= {
        *(edit.name.format(package="purchase_prediction") for edit in OWNERS_EDITS[:8]),
        "tests/test_readme.py",
        ".copier-answers.yml",
    }
    assert new["tools/report.sh"].executable
    assert b"region: eu" in new[".copier-answers.yml"].content


@either_generator
def test_edits_of_the_same_line_become_conflict_markers(
    generator: str, pair: History, generate: Generate
) -> None:
    project = generate(pair, generator)
    substitute(project.path / DATA, "MOST_EXAMPLE_TIMES = 12", "MOST_EXAMPLE_TIMES = 6")
    write(project.path / "docs" / "new" / "page.md", "Our page\n")
    substitute(project.path / "Makefile", "## Run the tests", "## Run our tests")
    commit_all(project)
    update(project)

    marked = ("<" * 7 + " before updating", "=" * 7, ">" * 7 + " after updating")
    for name, ours, theirs in (
        (DATA, "MOST_EXAMPLE_TIMES = 6", "MOST_EXAMPLE_TIMES = 24"),
        ("docs/new/page.md", "Our page", "For Purchase Prediction"),
    ):
        conflict = "\n".join([marked[0], ours, marked[1], theirs, marked[2]])
        assert conflict in project.read(name)
    unmerged = git(project.path, "diff", "--name-only", "--diff-filter=U").splitlines()
    assert unmerged == ["docs/new/page.md", DATA]
    assert "## Run our tests" in project.read("Makefile")
    assert "## Show every target" in project.read("Makefile")


def test_edited_files_that_the_template_drops_or_renames_are_named_and_come_back(
    own_template: History, generate: Generate
) -> None:
    own_template.commit("First", "0.1.0")
    project = generate(own_template, tag="0.1.0")
    for name in (DATA, "tests/test_house.py"):
        write(project.path / name, project.read(name) + "\n# Ours\n")
    commit_all(project)
    data = own_template.template_file("src/{package}/data.py")
    data.rename(data.with_name("problem.py"))
    own_template.template_file("tests/test_house.py").unlink()
    own_template.commit("Second", "0.2.0")

    said = update(project)
    lost = git(project.path, "diff", "--name-only", "--diff-filter=D").splitlines()
    assert lost == [DATA, "tests/test_house.py"]
    commands = re.findall(r"^    (git .+?) +\(", said, re.MULTILINE)
    assert project.run(*commands[0].split()).stdout.splitlines() == lost
    for name in lost:
        project.run(*commands[1].replace("FILE", name).split())
        assert project.read(name).endswith("\n# Ours\n")


@slow
def test_check_update_tells_whether_there_is_a_newer_release(
    pair: History, generate: Generate
) -> None:
    project = generate(pair)
    check = (BIN / "copier", "check-update")
    assert f"Current version is {OLD}, latest version is {NEW}" in project.run(*check).stdout
    assert json.loads(project.run(*check, "--output-format", "json").stdout)["update_available"]
    assert project.run(*check, "--quiet", check=False).returncode == 2
    update(project)
    assert "up-to-date" in project.run(*check).stdout
    assert project.run(*check, "--quiet").returncode == 0


@either_generator
def test_recopy_starts_over_from_the_newest_template(
    generator: str, pair: History, generate: Generate, tmp_path: Path
) -> None:
    project = generate(pair, generator)
    make_owners_edits(project)
    commit_all(project)
    project.run(BIN / "copier", "recopy", "--defaults", "--overwrite", "--quiet")
    expected = fresh(pair, NEW, tmp_path / "expected", {})
    as_recorded_by(expected, project)
    files = project.files()
    kept = set(files) - set(expected.files())
    assert kept == {"src/purchase_prediction/loyalty.py", "docs/old.md", "docs/guide.md"} | {
        "src/purchase_prediction/gifts.py"
    }
    assert {name: files[name] for name in files if name not in kept} == expected.files()
    assert "OUR_DEFAULT" in git(project.path, "show", "HEAD:src/purchase_prediction/settings.py")


@slow
@each_generator
def test_a_template_without_tags_updates_to_its_newest_commit(
    generator: str, own_template: History, generate: Generate
) -> None:
    project = generate(own_template, generator, "main")
    make_owners_edits(project)
    commit_all(project)
    write(own_template.template_file("NEWS.md"), "News\n")
    own_template.commit("Second")
    assert "New template version" in project.run(BIN / "copier", "check-update").stdout
    update(project)
    assert project.read("NEWS.md") == "News\n"
    assert "OUR_DEFAULT" in project.read("src/purchase_prediction/settings.py")
    commit_all(project)

    write(own_template.template_file("NEWS.md"), "More news\n")
    own_template.commit("Third", "0.1.0")
    update(project)
    assert project.read("NEWS.md") == "More news\n"
    assert project.answers["_commit"] == "0.1.0"


@slow
@pytest.mark.usefixtures("own_tools")
@pytest.mark.parametrize("checkout", ["main", "ahead"])
def test_a_project_of_a_commit_after_the_release_is_told_how_it_updates(
    checkout: str, own_template: History, tmp_path: Path
) -> None:
    own_template.commit("First", "0.1.0")
    if checkout != "main":
        git(own_template.path, "checkout", "--quiet", "-b", checkout)
    write(own_template.template_file("EARLY.md"), "Early\n")
    own_template.commit("Between releases")
    said = cookiecutter(own_template.address, tmp_path / "out", {}, "--checkout", checkout).stdout
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.has("EARLY.md")
    write(project.path / "ours.md", "Ours\n")
    commit_all(project)

    assert "Downgrades are not supported" in update(project, check=False)
    write(own_template.template_file("NEWS.md"), "News\n")
    own_template.commit("Later")
    git(own_template.path, "checkout", "--quiet", "main")
    [command] = re.findall(r"`copier update (.+?)`", said)
    update(project, command)
    assert project.read("NEWS.md") == "News\n"
    commit_all(project)

    if checkout != "main":
        git(own_template.path, "merge", "--quiet", checkout)
    own_template.commit("Second", "0.2.0")
    update(project)
    assert project.answers["_commit"] == "0.2.0"
    assert {"EARLY.md", "NEWS.md", "ours.md"} <= set(project.files())


def test_every_release_has_its_version_and_its_dated_entry(histories: dict[str, History]) -> None:
    history = histories["releases"]
    for version, commit in releases.read().items():
        assert f'\nversion = "{version}"\n' in git(history.path, "show", f"{commit}:pyproject.toml")
        changelog = git(history.path, "show", f"{commit}:CHANGELOG.md")
        assert re.search(rf"^## \[{re.escape(version)}\] - \d{{4}}-\d\d-\d\d$", changelog, re.M)
        git(history.path, "merge-base", "--is-ancestor", commit, "HEAD")

"""Whatever way cookiecutter found the template: the project it made takes `copier update`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import pytest

from histories import History, adopt, commit_all, update, write
from processes import git
from projects import SLUG, RenderedProject, cookiecutter, snapshot

HTTPS = "https://github.com/an-owner/a-template.git"
BARE_HTTPS = "https://git.example.com/an-owner/a-template"
SSH = "git@example.com:an-owner/a-template.git"
slow = pytest.mark.slow


@dataclass(frozen=True)
class Published(History):
    """A template at several addresses, with a commit after its first release.

    Attributes:
        released: the commit that is tagged.
        between: the commit after it, on a branch of its own.
    """

    released: str
    between: str


@pytest.fixture
def published(tmp_path: Path, own_tools: Path) -> Published:
    """The template as git finds it at each address."""
    path = snapshot(tmp_path / "template")
    history = History(path, "0.1.0")
    history.commit("First", "0.1.0")
    released = git(path, "rev-parse", "HEAD")
    write(history.template_file("EARLY.md"), "Early\n")
    history.commit("Between")
    git(path, "branch", "between")
    with own_tools.open("a", encoding="utf-8") as file:
        file.write(f'[url "{path.as_uri()}"]\n')
        file.writelines(f"    insteadOf = {address}\n" for address in (HTTPS, BARE_HTTPS, SSH))
    return Published(path, "0.1.0", released, git(path, "rev-parse", "HEAD"))


def release_news(template: History) -> None:
    write(template.template_file("NEWS.md"), "News\n")
    template.commit("Second", "0.2.0")


def assert_updates(project: RenderedProject) -> None:
    """Update a project with a change of its owner's to the release with the news."""
    write(project.path / "README.md", project.read("README.md") + "\nOurs\n")
    commit_all(project)
    update(project)
    assert project.read("NEWS.md") == "News\n"
    assert project.read("README.md").endswith("\nOurs\n")
    assert project.answers["_commit"] == "0.2.0"
    changed = git(project.path, "status", "--porcelain").splitlines()
    assert set(changed) <= {"M .copier-answers.yml", "?? NEWS.md", "?? EARLY.md"}


@pytest.mark.parametrize(
    ("typed", "recorded"),
    [
        ("gh:an-owner/a-template", HTTPS),
        pytest.param(HTTPS, HTTPS, marks=slow),
        pytest.param(BARE_HTTPS, f"git+{BARE_HTTPS}", marks=slow),
        pytest.param(SSH, SSH, marks=slow),
    ],
)
def test_an_address(typed: str, recorded: str, published: Published, tmp_path: Path) -> None:
    cookiecutter(typed, tmp_path / "out")
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.answers["_src_path"] == recorded
    assert project.answers["_commit"] == published.between
    release_news(published)
    assert_updates(project)


@pytest.mark.parametrize(
    "checkout",
    [*(pytest.param(name, marks=slow) for name in ("tag", "branch", "commit")), "short commit"],
)
def test_a_checkout(checkout: str, published: Published, tmp_path: Path) -> None:
    wanted, recorded = {
        "tag": ("0.1.0", "0.1.0"),
        "branch": ("between", published.between),
        "commit": (published.released, "0.1.0"),
        "short commit": (published.between[:8], published.between),
    }[checkout]
    cookiecutter("gh:an-owner/a-template", tmp_path / "out", {}, "--checkout", wanted)
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.answers["_commit"] == recorded
    release_news(published)
    assert_updates(project)


@pytest.mark.parametrize(
    "typed", [*(pytest.param(name, marks=slow) for name in ("absolute", "../template")), "."]
)
def test_a_path(typed: str, published: Published, tmp_path: Path) -> None:
    away = published.path if typed == "." else tmp_path / "away"
    away.mkdir(exist_ok=True)
    template = published.path if typed == "absolute" else typed
    cookiecutter(template, tmp_path / "out", cwd=away)
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.answers["_src_path"] == str(published.path)
    release_news(published)
    assert_updates(project)


def test_a_zip_is_adopted_as_the_hook_says(published: Published, tmp_path: Path) -> None:
    archive = tmp_path / "a-template.zip"
    git(published.path, "archive", "--prefix=a-template/", f"--output={archive}", "0.1.0")
    said = " ".join(cookiecutter(archive, tmp_path / "out").stdout.split())
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.answers["tracker"] == "mlflow"
    assert "Template not found" in update(project, check=False)
    assert (
        "write the template's git address as _src_path and the commit that it was made from as "
        "_commit into .copier-answers.yml, and commit that"
    ) in said
    adopt(project, f"_src_path: {HTTPS}", "_commit: 0.1.0")
    release_news(published)
    assert_updates(project)


def test_a_changed_template_is_adopted_as_the_hook_says(
    published: Published, tmp_path: Path
) -> None:
    write(published.template_file("LATE.md"), "Not committed\n")
    said = cookiecutter(published.path, tmp_path / "out").stdout
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert "Cannot update" in update(project, check=False)
    [line] = re.findall(r"write `(.+?)` into", said)
    assert line == f"_commit: {published.between}"
    adopt(project, line)
    published.template_file("LATE.md").unlink()
    release_news(published)
    assert_updates(project)
    assert project.read("LATE.md") == "Not committed\n"

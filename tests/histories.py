"""Tagged repositories of the template, and the edits of a project's owner, for tests of updates."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import releases
from lint_template import PACKAGE_MARK, TEMPLATE_NAME, repository_files
from processes import git, run
from projects import ANSWERS_FILE, BIN, ROOT, RenderedProject, cookiecutter, copier, snapshot

WORKING_TREE = "9999.0.0"
OLD, NEW = "1.0.0", "2.0.0"


@dataclass(frozen=True)
class History:
    """A repository of the template with tags.

    Attributes:
        path: its folder.
        newest: the newest tag.
    """

    path: Path
    newest: str

    @property
    def address(self) -> str:
        return f"git+{self.path.as_uri()}"

    def template_file(self, name: str) -> Path:
        """A file that is rendered, by its rendered name."""
        return self.path / TEMPLATE_NAME / name.replace("{package}", PACKAGE_MARK)

    def commit(self, message: str, *tags: str) -> None:
        git(self.path, "add", "--all")
        git(self.path, "commit", "--quiet", "--allow-empty", "--message", message)
        for tag in tags:
            git(self.path, "tag", tag)


def released(folder: Path) -> History:
    """This repository's own history: every release tagged, and the working tree as the newest."""
    git(ROOT, "clone", "--quiet", "--no-tags", ROOT, folder)
    git(folder, "checkout", "--quiet", "-B", "main")
    for version, commit in releases.read().items():
        run_or_explain(folder, version, commit)
    replace_files(folder)
    history = History(folder, WORKING_TREE)
    history.commit("The working tree", WORKING_TREE)
    return history


def run_or_explain(folder: Path, version: str, commit: str) -> None:
    """Tag a release, or say why its commit is not there."""
    result = run("git", "tag", version, commit, cwd=folder, check=False)
    assert result.returncode == 0, (
        f"releases.yml: the commit {commit} of {version} is not in this clone's history. In a "
        f"shallow clone, `git fetch --unshallow` brings it: {result.stdout}"
    )


def replace_files(folder: Path) -> None:
    """Make a clone's files those of the working tree."""
    for path in repository_files(folder):
        path.unlink()
    for path in repository_files(ROOT):
        target = folder / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)


def made_up(folder: Path) -> History:
    """Two versions that differ in every way: files edited, added, deleted, renamed; a question."""
    snapshot(folder)
    history = History(folder, NEW)
    write(history.template_file("docs/old.md"), lines(30))
    write(history.template_file("docs/guide.md"), lines(40))
    write(history.template_file("src/{package}/gifts.py"), '"""Gifts."""\n\nGIFTS = 1\n')
    history.commit("Old", OLD)

    for name, old, new in TEMPLATE_EDITS:
        substitute(history.template_file(name), old, new)
    write(history.template_file("docs/new/page.md"), "For << cookiecutter.project_name >>\n")
    write(history.template_file("src/{package}/discounts.py"), '"""Discounts."""\n')
    tool = history.template_file("tools/report.sh")
    write(tool, "#!/bin/sh\necho << cookiecutter.region >>\n")
    tool.chmod(0o755)
    history.template_file("docs/old.md").unlink()
    history.template_file("docs/guide.md").rename(history.template_file("docs/handbook.md"))
    history.template_file("src/{package}/gifts.py").rename(
        history.template_file("src/{package}/presents.py")
    )
    ask_one_more_question(folder)
    history.commit("New", NEW)
    return history


def living_project(folder: Path) -> Path:
    """A project with a commit of its owner's, beside a template that has a newer release.

    Returns:
        the project's folder.
    """
    template = History(snapshot(folder / "ml-template"), "0.2.0")
    template.commit("First", "0.1.0")
    cookiecutter(template.path, folder, {"project_name": "Shop Returns"})
    project = RenderedProject(folder / "shop-returns")
    write(project.path / "notes.md", "Ours\n")
    commit_all(project)
    write(template.template_file("NEWS.md"), "News\n")
    template.commit("Second", "0.2.0")
    return project.path


# In each file, away from where the owner edits it.
TEMPLATE_EDITS = (
    ("src/{package}/data.py", "MOST_EXAMPLE_TIMES = 12\n", "MOST_EXAMPLE_TIMES = 24\n"),
    ("src/{package}/model.py", 'TASK: Task = "binary"\n', 'TASK: Task = "binary"  # or another\n'),
    ("src/{package}/settings.py", '"""', '"""What can be set. '),
    (
        "README.md",
        "\nThe sample problem: ",
        "\nA sentence of the template.\n\nThe sample problem: ",
    ),
    ("pyproject.toml", 'kfp>=2.17", ', 'kfp>=2.17", "tabulate>=0.9", '),
    ("Makefile", "help: ## Show the targets\n", "help: ## Show every target\n"),
    (".gitignore", "# Python\n", "# Python\n*.pyc\n"),
    (".env.example", "# ML_PORT=8000\n", "# ML_PORT=8080\n"),
    ("tests/test_data.py", "import pairwise\n", "import pairwise, tee\n"),
    ("tests/test_readme.py", '"""', '"""Of the readme. '),
)


def ask_one_more_question(template: Path) -> None:
    """Add a question to both tools."""
    path = template / "cookiecutter.json"
    definition = json.loads(path.read_text(encoding="utf-8"))
    prompts = definition["__prompts__"] | {
        "region": {"__prompt__": "Region", "eu": "Europe", "us": "America"}
    }
    definition |= {"region": ["eu", "us"], "__prompts__": prompts}
    write(path, json.dumps(definition, indent=2))
    run(sys.executable, "scripts/copier_questions.py", cwd=template)


def fresh(history: History, tag: str, folder: Path, answers: Mapping[str, str]) -> RenderedProject:
    """A project that was generated at a tag."""
    copier(history.path, folder, answers, "--vcs-ref", tag)
    return RenderedProject(folder)


def as_recorded_by(project: RenderedProject, other: RenderedProject) -> None:
    """Name the template in a project as another project names it, which may be by its address."""
    substitute(
        project.path / ANSWERS_FILE,
        f"_src_path: {project.answers['_src_path']}\n",
        f"_src_path: {other.answers['_src_path']}\n",
    )


def update(project: RenderedProject, *options: str, check: bool = True) -> str:
    """`copier update`, untrusted and without questions.

    Returns:
        what it wrote.
    """
    return project.run(BIN / "copier", "update", "--defaults", *options, check=check).stdout


def adopt(project: RenderedProject, *origin: str) -> None:
    """Add lines to the answers file, as the hook advises where they are missing."""
    path = project.path / ANSWERS_FILE
    write(path, path.read_text(encoding="utf-8") + "".join(f"{line}\n" for line in origin))
    commit_all(project, "Adopt")


def commit_all(project: RenderedProject, message: str = "Work") -> None:
    """Commit everything, in a repository that is made where there is none."""
    if not project.has(".git"):
        git(project.path, "init", "--quiet")
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--allow-empty", "--message", message)


@dataclass(frozen=True)
class OwnersEdit:
    """One change that a project's owner made.

    Attributes:
        name: the file, relative to the project; ``{package}`` stands for the package.
        apply: makes the change.
    """

    name: str
    apply: Callable[[Path], None]

    def make(self, project: RenderedProject) -> None:
        package = project.answers["package_name"]
        self.apply(project.path / self.name.format(package=package))


def replacing(old: str, new: str) -> Callable[[Path], None]:
    return lambda path: substitute(path, old, new)


def appending(text: str) -> Callable[[Path], None]:
    return lambda path: write(path, path.read_text(encoding="utf-8") + text)


def adding(text: str) -> Callable[[Path], None]:
    return lambda path: write(path, text)


OWNERS_EDITS = (
    OwnersEdit("src/{package}/data.py", replacing("timedelta(days=30)", "timedelta(days=14)")),
    OwnersEdit("src/{package}/model.py", replacing('"max_iter": 100', '"max_iter": 150')),
    OwnersEdit("src/{package}/settings.py", appending("\n\nOUR_DEFAULT = 1\n")),
    OwnersEdit("README.md", appending("\n## Our team\n\nAsk Ada.\n")),
    OwnersEdit("pyproject.toml", replacing('version = "0.1.0"', 'version = "3.2.1"')),
    OwnersEdit("Makefile", appending("\nreport: ## Ours\n\techo report\n")),
    OwnersEdit(".gitignore", appending("\n/our-exports/\n")),
    OwnersEdit("tests/test_data.py", appending("\n\ndef test_ours() -> None:\n    assert True\n")),
    OwnersEdit("src/{package}/loyalty.py", adding('"""Ours."""\n')),
    OwnersEdit("tests/test_readme.py", lambda path: path.unlink()),
)


def make_owners_edits(project: RenderedProject) -> None:
    for edit in OWNERS_EDITS:
        edit.make(project)


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def substitute(path: Path, old: str, new: str) -> None:
    """Replace the first occurrence of a text that has to be there."""
    text = path.read_text(encoding="utf-8")
    assert old in text, f"{path}: {old!r} is not there"
    write(path, text.replace(old, new, 1))


def lines(count: int) -> str:
    return "".join(f"line {number}\n" for number in range(1, count + 1))

"""The default project published on a branch, and forks of it that get a name and take changes."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

import pre_gen_project
from conftest import Render
from processes import git, run
from projects import ANSWERS_FILE, BIN, ROOT, RenderedProject, copier, snapshot

ADDRESS = "https://git.example.com/an-owner/ml-template.git"
TEMPLATE = "<<cookiecutter.project_slug>>"
PACKAGE = "<<cookiecutter.package_name>>"
OLD_NAME = re.compile("purchase[-_ ]prediction", re.IGNORECASE)
# What git cannot merge by itself where a fork has renamed a file too; docs/forking.md says so.
RENAMED_OR_DELETED = {
    "src/purchase_prediction/profiling.py",
    "src/shop_returns/profiles.py",
    "src/shop_returns/profiling.py",
    "tests/test_promotions.py",
}
QUICK_TESTS = ("tests/test_house.py", "tests/test_settings.py", "tests/test_schema.py")
slow = pytest.mark.slow
PAGE = ROOT / "docs" / "forking.md"


@dataclass(frozen=True)
class Upstream:
    """The template as git finds it at ADDRESS.

    Attributes:
        hosted: the repository at that address.
        clone: a maintainer's clone, in which the rendered project is published.
    """

    hosted: Path
    clone: Path

    def publish(self, **parameters: str) -> str:
        words = [f"{name}={value}" for name, value in parameters.items()]
        ours = (f"BIN={BIN}", "--old-file=.venv/.installed")
        return run("make", "--silent", "rendered", *ours, *words, cwd=self.clone).stdout

    def push(self) -> None:
        git(self.clone, "push", "--quiet", "--tags", "origin", "main", "rendered")

    def commit_release(self, version: str, change: Callable[[Path], None]) -> None:
        change(self.clone / TEMPLATE)
        git(self.clone, "add", "--all")
        git(self.clone, "commit", "--quiet", "--message", f"Release {version}")
        git(self.clone, "tag", version)

    def release(self, version: str, change: Callable[[Path], None]) -> None:
        self.commit_release(version, change)
        self.publish()
        self.push()

    def published(self) -> list[str]:
        return git(self.clone, "log", "--format=%s", "rendered").splitlines()

    def fork(self, folder: Path) -> RenderedProject:
        options = ("--quiet", "--branch", "rendered", "--origin", "upstream")
        git(folder.parent, "clone", *options, ADDRESS, folder)
        git(folder, "switch", "--quiet", "--create", "main")
        return RenderedProject(folder)


@pytest.fixture
def upstream(tmp_path: Path, own_tools: Path) -> Upstream:
    """The template with its release 0.1.0, of which nothing was published yet."""
    hosted, clone = tmp_path / "hosted", tmp_path / "clone"
    append(own_tools, f'[url "{hosted.as_uri()}"]\n    insteadOf = {ADDRESS}\n')
    snapshot(clone)
    git(clone, "tag", "0.1.0")
    git(tmp_path, "clone", "--quiet", "--bare", clone, hosted)
    git(clone, "remote", "add", "origin", ADDRESS)
    git(clone, "fetch", "--quiet", "origin")
    return Upstream(hosted, clone)


@pytest.fixture
def forked(upstream: Upstream, tmp_path: Path) -> RenderedProject:
    """A fork of release 0.1.0, with a Python that its scripts can use."""
    upstream.publish()
    upstream.push()
    return with_python(upstream.fork(tmp_path / "fork"))


def with_python(project: RenderedProject) -> RenderedProject:
    """Give a project the Python of these tests in place of an environment of its own."""
    project.python.parent.mkdir(parents=True)
    project.python.write_text(f'#!/bin/sh\nexec {BIN / "python"} "$@"\n', encoding="utf-8")
    project.python.chmod(0o755)
    return project


def with_environment(project: RenderedProject, other: RenderedProject) -> None:
    """Give a project a copy of another's environment, large files by hard links."""
    source, target = other.path / ".venv", project.path / ".venv"
    shutil.copytree(source / "lib", target / "lib", copy_function=os.link, symlinks=True)
    shutil.copytree(source / "bin", target / "bin", symlinks=True)
    shutil.copy(source / "pyvenv.cfg", target)
    for script in (target / "bin").iterdir():
        content = b"" if script.is_symlink() else script.read_bytes()
        if content.startswith(b"#!"):
            script.write_bytes(content.replace(bytes(source), bytes(target)))
    project.run("make", "setup", PYTHON=base_python(project))


def base_python(project: RenderedProject) -> str:
    """The Python that a project's environment was made with."""
    return project.run(
        project.python, "-c", "import sys; print(sys._base_executable)"
    ).stdout.strip()


def rename(project: RenderedProject, name: str, *options: str, check: bool = True) -> str:
    """What `make rename` does, the new installation aside."""
    output = project.run(project.python, "scripts/rename.py", *options, "--", name, check=check)
    if output.returncode == 0:
        run(BIN / "ruff", "check", "--quiet", "--fix", "--select=I", ".", cwd=project.path)
        run(BIN / "ruff", "format", "--quiet", ".", cwd=project.path)
    return output.stdout


def commit(project: RenderedProject, message: str) -> None:
    git(project.path, "add", "--all")
    git(project.path, "commit", "--quiet", "--message", message)


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert text.count(old) == 1, (path, old)
    path.write_text(text.replace(old, new), encoding="utf-8")


def make_it_0_2_0(template: Path) -> None:
    """A release that edits, adds, deletes and renames files, lines with the package among them."""
    package = template / "src" / PACKAGE
    append(package / "data.py", "\n\n# release 0.2.0 was here\n")
    edit_around_the_name(template)
    make_it_0_3_0(template)
    edit(template / "README.md", "## Updating", "## News\n\nRelease 0.2.0.\n\n## Updating")
    append(template / ".gitignore", "/new-in-0.2.0/\n")


def edit_around_the_name(template: Path) -> None:
    """A new module with its test, and an import right beside lines that a fork has renamed."""
    package = template / "src" / PACKAGE
    (package / "added.py").write_text('"""Added."""\n\nADDED = 2\n', encoding="utf-8")
    (template / "tests" / "test_added.py").write_text(
        f"from {PACKAGE}.added import ADDED\n\n\ndef test_it() -> None:\n    assert ADDED == 2\n",
        encoding="utf-8",
    )
    bundle = f"from {PACKAGE}.bundle"
    edit(template / "tests" / "trained.py", bundle, f"from {PACKAGE}.added import ADDED\n{bundle}")
    append(template / "tests" / "trained.py", "\n\nassert ADDED\n")


def make_own_edits(project: RenderedProject) -> None:
    package = project.path / "src" / project.answers["package_name"]
    edit(package / "data.py", '\n"""\n', '\n\nOur own shop.\n"""\n')
    edit(project.path / "README.md", "\n```bash\nmake demo ", "\nOurs.\n\n```bash\nmake demo ")
    (package / "own.py").write_text('"""Our own."""\n', encoding="utf-8")
    edit(project.path / "tests" / "trained.py", "\nAMOUNT = ", "\nOURS = 1\nAMOUNT = ")
    (project.path / "tests" / "test_export.py").unlink()
    commit(project, "Our own edits")


def append(path: Path, text: str) -> None:
    path.write_text(path.read_text(encoding="utf-8") + text, encoding="utf-8")


def assert_has_both_sides(project: RenderedProject, fresh: RenderedProject) -> None:
    """Whether a project is the new release under its own name, and its own edits."""
    package = f"src/{project.answers['package_name']}"
    ours, theirs = tracked(project), fresh.files()
    assert set(theirs) - set(ours) == {"tests/test_export.py"}
    assert set(ours) - set(theirs) == {f"{package}/own.py"}
    edited = {f"{package}/data.py", "README.md", "tests/trained.py"}
    for name in set(ours) & set(theirs) - edited - {ANSWERS_FILE}:
        assert ours[name] == theirs[name].content, name
    for name, own, new in (
        (f"{package}/data.py", "\nOur own shop.\n", "\n# release 0.2.0 was here\n"),
        ("README.md", "\nOurs.\n", "\nRelease 0.2.0.\n"),
        ("tests/trained.py", "\nOURS = 1\n", ".profiles import"),
    ):
        assert own in project.read(name)
        assert new in project.read(name)
    assert project.answers == {**fresh.answers, "_src_path": ADDRESS, "_commit": "0.2.0"}


def assert_sound(project: RenderedProject) -> None:
    """Whether files parse, are formatted and linted, and hold no trace of the first name."""
    run(BIN / "ruff", "format", "--no-cache", "--diff", ".", cwd=project.path)
    run(BIN / "ruff", "check", "--no-cache", ".", cwd=project.path)
    for name, content in tracked(project).items():
        assert OLD_NAME.search(name) is None
        assert OLD_NAME.search(content.decode("utf-8")) is None, name
        if name.endswith(".py"):
            ast.parse(content)


def tracked(project: RenderedProject) -> dict[str, bytes]:
    names = git(project.path, "-c", "core.quotePath=off", "ls-files").splitlines()
    return {name: (project.path / name).read_bytes() for name in names}


def test_what_is_published_first_is_the_default_project(
    upstream: Upstream, rendered: Render
) -> None:
    said = upstream.publish()
    assert "Render the template at 0.1.0" in said
    assert upstream.published() == ["Render the template at 0.1.0"]
    folder = RenderedProject(upstream.clone / "build" / "rendered")
    fresh = rendered().files()
    assert set(folder.files()) == set(fresh)
    assert {n for n, file in folder.files().items() if file != fresh[n]} == {ANSWERS_FILE}
    assert folder.answers == {**rendered().answers, "_src_path": ADDRESS, "_commit": "0.1.0"}
    in_git = git(upstream.clone, "ls-tree", "-r", "--name-only", "rendered").splitlines()
    assert set(in_git) == set(fresh)
    message = git(upstream.clone, "log", "-1", "--format=%B", "rendered")
    assert git(upstream.clone, "rev-parse", "0.1.0") in message


def test_publishing_again_adds_a_commit_only_where_the_rendering_changed(
    upstream: Upstream,
) -> None:
    upstream.publish()
    first = git(upstream.clone, "rev-parse", "rendered")
    assert "rendered is unchanged" in upstream.publish()
    git(upstream.clone, "commit", "--quiet", "--allow-empty", "--message", "Words")
    assert "rendered is unchanged" in upstream.publish()
    assert git(upstream.clone, "rev-parse", "rendered") == first
    upstream.release("0.2.0", make_it_0_2_0)
    assert upstream.published() == [f"Render the template at {n}" for n in ("0.2.0", "0.1.0")]
    assert git(upstream.clone, "rev-parse", "rendered^") == first


def test_a_commit_that_is_no_release_is_named_in_full(upstream: Upstream) -> None:
    append(upstream.clone / TEMPLATE / "README.md", "More.\n")
    git(upstream.clone, "commit", "--quiet", "--all", "--message", "More")
    newest = git(upstream.clone, "rev-parse", "HEAD")
    assert f"push {newest} to origin too" in upstream.publish()
    answers = git(upstream.clone, "show", f"rendered:{ANSWERS_FILE}")
    assert f"_commit: {newest}\n" in answers
    assert upstream.published() == [f"Render the template at commit {newest[:12]}"]


def test_publishing_leaves_the_work_tree_and_the_branch_alone(upstream: Upstream) -> None:
    (upstream.clone / "README.md").write_text("staged", encoding="utf-8")
    git(upstream.clone, "add", "README.md")
    (upstream.clone / "LICENSE").write_text("changed", encoding="utf-8")
    (upstream.clone / "notes.txt").touch()
    before = git(upstream.clone, "status", "--porcelain=v2", "--branch")
    upstream.publish()
    assert git(upstream.clone, "status", "--porcelain=v2", "--branch") == before


def test_a_new_clone_continues_what_origin_has(upstream: Upstream, tmp_path: Path) -> None:
    upstream.publish()
    upstream.push()
    git(tmp_path, "clone", "--quiet", ADDRESS, "other-clone")
    other = Upstream(upstream.hosted, tmp_path / "other-clone")
    assert "rendered is unchanged" in other.publish()
    assert other.published() == upstream.published()
    git(other.clone, "checkout", "--quiet", "--detach")
    git(other.clone, "branch", "--delete", "--force", "main")
    other.commit_release("0.2.0", make_it_0_2_0)
    other.publish()
    assert other.published() == [f"Render the template at {n}" for n in ("0.2.0", "0.1.0")]
    git(other.clone, "push", "--quiet", "origin", "rendered")


def test_another_branch_of_another_clone_can_be_named(upstream: Upstream, tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet", "--bare", "elsewhere.git")
    elsewhere = tmp_path / "elsewhere.git"
    upstream.publish(BRANCH="default-project", REPOSITORY="../elsewhere.git")
    assert git(elsewhere, "log", "--format=%s", "default-project") == "Render the template at 0.1.0"
    assert git(upstream.clone, "branch", "--list", "default-project") == ""


def test_a_clone_without_origin_is_refused(upstream: Upstream) -> None:
    git(upstream.clone, "remote", "remove", "origin")
    with pytest.raises(AssertionError, match="git remote add origin ADDRESS"):
        upstream.publish()


def test_changes_in_no_commit_are_refused(upstream: Upstream) -> None:
    (upstream.clone / TEMPLATE / "new.txt").touch()
    with pytest.raises(AssertionError, match="in no commit"):
        upstream.publish()


def test_a_branch_that_is_checked_out_is_refused(upstream: Upstream) -> None:
    upstream.publish()
    before = git(upstream.clone, "rev-parse", "rendered")
    git(upstream.clone, "worktree", "add", "--quiet", "../beside", "rendered")
    with pytest.raises(AssertionError, match="rendered is checked out"):
        upstream.publish()
    assert git(upstream.clone, "rev-parse", "rendered") == before


@pytest.mark.parametrize(
    ("parameter", "value", "reason"),
    [("BRANCH", "a..b", "cannot be a branch"), ("REPOSITORY", "../nowhere", "is no folder")],
)
def test_parameters_that_name_nothing_are_refused(
    parameter: str, value: str, reason: str, upstream: Upstream
) -> None:
    with pytest.raises(AssertionError, match=reason):
        upstream.publish(**{parameter: value})


def test_branches_that_parted_are_not_joined(upstream: Upstream) -> None:
    upstream.publish()
    upstream.push()
    tree = git(upstream.clone, "rev-parse", "rendered^{tree}")
    other = git(upstream.clone, "commit-tree", tree, "-m", "Of its own")
    git(upstream.clone, "branch", "--quiet", "--force", "rendered", other)
    with pytest.raises(AssertionError, match="each what the other has not"):
        upstream.publish()


@pytest.mark.parametrize(
    ("name", "slug", "option"),
    [
        ("Shop Returns", "shop-returns", ()),
        ("Purchase Prediction 2", "purchase-prediction-2", ()),
        ("Very Long Name of a Good Project", "very-long-name-of-a-good-proje", ()),
        (
            "It's 😀 שלום: {{ a }} 100% #1 & <b>",
            "abcdefghij-klmnopqrst-uvwxyz-1",
            ("--slug=abcdefghij-klmnopqrst-uvwxyz-1",),
        ),
    ],
    ids=["words", "old-name-within", "long", "unicode"],
)
def test_a_renamed_project_is_what_is_generated_under_that_name(
    name: str, slug: str, option: tuple[str, ...], rendered: Render, tmp_path: Path
) -> None:
    package = slug.replace("-", "_")
    answers = {"project_name": name, "project_slug": slug, "package_name": package}
    project = with_python(own_copy(rendered(tracker="wandb"), tmp_path))
    said = rename(project, name, *option)
    fresh = rendered(tracker="wandb", **answers)
    assert f"src/{package}" in said
    assert "ML_MODEL_NAME=purchase-prediction" in said
    assert not project.has("src/purchase_prediction")
    commit(project, "Another name")
    assert tracked(project) == {name: file.content for name, file in fresh.files().items()}
    assert set(git(project.path, "show", "--format=", "--name-status").split()) >= {"R100"}


def test_the_same_name_again_changes_nothing(rendered: Render, tmp_path: Path) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    rename(project, "Shop Returns")
    commit(project, "Another name")
    assert "0 changed, 0 moved" in rename(project, "Shop Returns")
    assert git(project.path, "status", "--porcelain") == ""


def test_a_project_can_be_renamed_again(rendered: Render, tmp_path: Path) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    before = tracked(project)
    for name in ("Shop Returns", "Purchase Prediction"):
        rename(project, name)
        commit(project, name)
    assert tracked(project) == before


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("", "one line of text"),
        ("Two\nLines", "one line of text"),
        ('A "Quote"', "one line of text"),
        ("An Opening <" + "<", "one line of text"),
        ("שלום", "SLUG=your-own-name"),
        ("2 Shops", "a letter first"),
        ("Class", "keyword"),
        ("Importlib", "standard module"),
        ("Pytest", "dependency"),
        ("Nul", "device"),
        ("Services", "dependency"),
    ],
)
def test_names_that_the_template_refuses_are_refused(
    name: str, reason: str, rendered: Render, tmp_path: Path
) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    said = rename(project, name, check=False)
    assert said.startswith("nothing was renamed: ")
    assert reason in said
    assert git(project.path, "status", "--porcelain") == ""


def test_a_name_of_one_word_is_given_up_by_hand(rendered: Render, tmp_path: Path) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    rename(project, "Returns")
    commit(project, "One word")
    assert "git grep --word-regexp Returns" in rename(project, "Shop Returns", check=False)
    assert project.answers["package_name"] == "returns"


def test_a_project_that_git_could_not_restore_is_left_alone(
    rendered: Render, tmp_path: Path
) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    (project.path / "mine.txt").touch()
    assert "mine.txt\ncommit them first" in rename(project, "Shop Returns", check=False)
    shutil.rmtree(project.path / ".git")
    assert "is no git repository" in rename(project, "Shop Returns", check=False)
    assert project.has("src/purchase_prediction")


def test_a_file_in_the_way_is_not_overwritten(rendered: Render, tmp_path: Path) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    there = project.path / "src" / "shop_returns" / "data.py"
    there.parent.mkdir()
    there.write_text("mine", encoding="utf-8")
    commit(project, "In the way")
    assert "data.py is there already" in rename(project, "Shop Returns", check=False)
    assert there.read_text(encoding="utf-8") == "mine"
    assert git(project.path, "status", "--porcelain") == ""


def test_links_and_files_that_are_no_text_stay_as_they_are(
    rendered: Render, tmp_path: Path
) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    picture = b"\x89PNG\xff purchase_prediction"
    (project.path / "picture.png").write_bytes(picture)
    (project.path / "windows.txt").write_bytes(b"purchase-prediction-x\r\npurchase_predictions\r\n")
    (project.path / "link").symlink_to("src/purchase_prediction")
    commit(project, "More files")
    rename(project, "Shop Returns")
    assert (project.path / "picture.png").read_bytes() == picture
    windows = (project.path / "windows.txt").read_bytes()
    assert windows == b"shop-returns-x\r\npurchase_predictions\r\n"
    assert (project.path / "link").readlink() == Path("src/purchase_prediction")


def test_lines_that_say_so_keep_their_names(rendered: Render, tmp_path: Path) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    kept = "- ML_MODEL_NAME=purchase-prediction\nnewName: me/purchase-prediction # rename: keep\n"
    (project.path / "mine.yaml").write_text(f"{kept}- purchase-prediction\n", encoding="utf-8")
    digests = [f"{name}=me/purchase-prediction@sha256:{'1' * 64}" for name in ("SERVER", "JOBS")]
    project.run("make", "pin", *digests)
    commit(project, "Where our models and images are")
    rename(project, "Shop Returns")
    assert project.read("mine.yaml") == f"{kept}- shop-returns\n"
    pinned = project.read("deploy/kubernetes/overlays/production/images/kustomization.yaml")
    assert "name: shop-returns-server\n    newName: me/purchase-prediction #" in pinned


@pytest.mark.parametrize("broken", ["no environment", "no names", "no script"])
def test_without_the_merge_driver_git_merges_as_ever(
    broken: str, rendered: Render, tmp_path: Path
) -> None:
    project = with_python(own_copy(rendered(), tmp_path))
    rename(project, "Shop Returns")
    commit(project, "Our own name")
    readme, start = project.path / "README.md", project.read("README.md")
    git(project.path, "checkout", "--quiet", "-b", "theirs")
    readme.write_text(f"{start}\nTheirs\n", encoding="utf-8")
    commit(project, "Theirs")
    git(project.path, "checkout", "--quiet", "-")
    readme.write_text(f"Ours\n\n{start}", encoding="utf-8")
    if broken == "no names":
        (project.path / ANSWERS_FILE).write_text("- no names\n", encoding="utf-8")
    if broken == "no script":
        (project.path / "scripts" / "rename.py").unlink()
    commit(project, "Ours")
    if broken == "no environment":
        shutil.rmtree(project.path / ".venv")
    git(project.path, "merge", "--quiet", "theirs")
    assert project.read("README.md") == f"Ours\n\n{start}\nTheirs\n"


def test_the_script_has_the_rules_of_the_template() -> None:
    script = script_of_the_project()
    assert script.LONGEST_NAME == pre_gen_project.LONGEST_NAME
    assert script.UNSAFE == pre_gen_project.UNSAFE
    assert pre_gen_project.RULES["project_slug"].accepts == script.SLUG
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    assert set(script.Names.__dataclass_fields__) < set(definition)


def test_a_renamed_fork_takes_a_release_by_merge(
    upstream: Upstream, forked: RenderedProject, tmp_path: Path
) -> None:
    rename(forked, "Shop Returns")
    commit(forked, "Our own name")
    make_own_edits(forked)
    upstream.release("0.2.0", make_it_0_2_0)
    git(forked.path, "fetch", "--quiet", "upstream")
    forked.run("git", "merge", "upstream/rendered", check=False)
    assert conflicts(forked) == RENAMED_OR_DELETED
    settle_as_upstream_did(forked)
    rename(forked, "Shop Returns")
    commit(forked, "Our own name for what is new")
    assert_has_both_sides(forked, generated(upstream, tmp_path))
    assert_sound(forked)


def test_a_renamed_fork_takes_a_release_by_copier(
    upstream: Upstream, forked: RenderedProject, tmp_path: Path
) -> None:
    rename(forked, "Shop Returns")
    commit(forked, "Our own name")
    make_own_edits(forked)
    upstream.release("0.2.0", make_it_0_2_0)
    run(BIN / "copier", "update", "--defaults", "--quiet", cwd=forked.path)
    commit(forked, "Release 0.2.0")
    assert_has_both_sides(forked, generated(upstream, tmp_path))
    assert_sound(forked)


def test_only_lines_that_both_changed_are_conflicts(
    upstream: Upstream, forked: RenderedProject
) -> None:
    rename(forked, "Shop Returns")
    commit(forked, "Our own name")
    edit(forked.path / "README.md", "# Shop Returns", "# Shop Returns, ours")
    commit(forked, "Our own heading")
    heading = "# << cookiecutter.project_name >>"

    def change(template: Path) -> None:
        edit(template / "README.md", heading, f"{heading}, theirs")
        edit_around_the_name(template)

    upstream.release("0.2.0", change)
    git(forked.path, "fetch", "--quiet", "upstream")
    assert "README.md" in forked.run("git", "merge", "upstream/rendered", check=False).stdout
    assert conflicts(forked) == {"README.md"}
    marked = forked.read("README.md")
    assert "# Shop Returns, ours\n=======\n# Shop Returns, theirs\n" in marked
    assert "from shop_returns.added import ADDED\nfrom shop_returns.bundle" in forked.read(
        "tests/trained.py"
    )
    assert forked.has("src/shop_returns/added.py")


def conflicts(project: RenderedProject) -> set[str]:
    return set(git(project.path, "diff", "--name-only", "--diff-filter=U").splitlines())


def settle_as_upstream_did(project: RenderedProject) -> None:
    git(project.path, "add", "src/shop_returns/profiles.py")
    left = RENAMED_OR_DELETED - {"src/shop_returns/profiles.py"}
    git(project.path, "rm", "--quiet", "--", *sorted(left))
    git(project.path, "commit", "--quiet", "--no-edit")


def own_copy(project: RenderedProject, folder: Path) -> RenderedProject:
    """A clone to write into."""
    git(folder, "clone", "--quiet", project.path, "own")
    return RenderedProject(folder / "own")


def script_of_the_project() -> ModuleType:
    path = ROOT / TEMPLATE / "scripts" / "rename.py"
    specification = importlib.util.spec_from_file_location("rename_of_the_project", path)
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    specification.loader.exec_module(module)
    return module


def generated(upstream: Upstream, folder: Path) -> RenderedProject:
    """The newest release, generated under the fork's name."""
    names = {"project_name": "Shop Returns", "project_slug": "shop-returns"}
    copier(str(upstream.clone), folder / "fresh", names)
    return RenderedProject(folder / "fresh")


def commands_of_the_page() -> list[list[str]]:
    found = re.findall(
        r"^```bash\n(.*?)^```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [block.splitlines() for block in found]


@pytest.mark.xdist_group("mlflow")
@pytest.mark.parametrize(
    "longer",
    [pytest.param(False, id="quick", marks=slow), pytest.param(True, id="full", marks=slow)],
)
def test_the_page_on_forking_runs_from_top_to_bottom(
    longer: bool,
    upstream: Upstream,
    rendered_with_environment: Callable[[str], RenderedProject],
    tmp_path: Path,
) -> None:
    """What is left out of the quick run is `make demo`, and `make test` stands for a few tests."""
    first, name, merge, update, publish = commands_of_the_page()
    in_the_clone = {"MAKEFLAGS": f"--old-file=.venv/.installed BIN={BIN}"}
    run_block(publish, upstream.clone, **in_the_clone)

    run_block(first[:1], tmp_path)
    fork = RenderedProject(tmp_path / "shop-returns")
    with_environment(fork, rendered_with_environment("mlflow"))
    # Its pytest would else clean up behind other runs, this one among them.
    in_the_fork = {"PYTHON": base_python(fork), "PYTEST_DEBUG_TEMPROOT": str(tmp_path)}
    left_out = () if longer else ("make demo",)
    tests = "make test" if longer else f".venv/bin/pytest {' '.join(QUICK_TESTS)}"
    assert first[1] == "cd shop-returns"

    def run_in_fork(block: list[str]) -> None:
        commands = [tests if command == "make test" else command for command in block]
        kept = [command for command in commands if command not in left_out]
        run_block(kept, fork.path, **in_the_fork)
        assert git(fork.path, "status", "--porcelain") == ""

    run_in_fork(first[2:])
    run_in_fork(name)
    assert fork.run(".venv/bin/shop-returns", "--help").returncode == 0
    assert not fork.has(".venv/bin/purchase-prediction")
    if longer:
        fork.run("make", "demo")
    upstream.release("0.2.0", edit_around_the_name)
    run_in_fork(merge)
    upstream.release("0.3.0", make_it_0_3_0)
    run_in_fork(update)
    fork.run("make", "lint")
    assert fork.answers["_commit"] == "0.3.0"
    assert fork.has("src/shop_returns/profiles.py")
    assert_sound(fork)


def test_commands_of_the_page_that_the_quick_run_leaves_out_are_few() -> None:
    page = [command for block in commands_of_the_page() for command in block]
    assert page.count("make demo") == 1
    assert page.count("make test") == 4


def test_the_workflow_publishes_each_release(upstream: Upstream, tmp_path: Path) -> None:
    definition = yaml.safe_load((ROOT / ".github/workflows/release.yml").read_text("utf-8"))
    assert definition["permissions"] == {}
    assert definition[True] == {"push": {"tags": ["[0-9]*", "v[0-9]*"]}}
    [job] = definition["jobs"].values()
    assert job["permissions"] == {"contents": "read"}
    checkout, *steps = job["steps"]
    assert re.fullmatch(r"actions/checkout@[0-9a-f]{40}", checkout["uses"])
    assert checkout["with"] == {"fetch-depth": 0, "persist-credentials": False}

    git(tmp_path, "clone", "--quiet", ADDRESS, "runner")
    git(tmp_path / "runner", "checkout", "--quiet", "--detach", "0.1.0")
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "gh").write_text('#!/bin/sh\ntest "$1 $2" = "auth setup-git"\n', encoding="utf-8")
    (programs / "gh").chmod(0o755)
    environment = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "MAKEFLAGS": f"--old-file=.venv/.installed BIN={BIN}",
    }

    def run_step(step: Mapping[str, Any], check: bool = True, **changes: str) -> str:
        env = {**step["env"], **environment, **changes}
        command = ("sh", "-e", "-c", step["run"])
        return run(*command, cwd=tmp_path / "runner", env=env, check=check).stdout

    assert "::error::set the secret RENDERED_TOKEN" in run_step(steps[-1], False, GH_TOKEN="")
    for step in steps:
        run_step(step)
    published = git(upstream.hosted, "log", "--format=%an: %s", "rendered")
    assert published == "github-actions[bot]: Render the template at 0.1.0"


def run_block(block: list[str], folder: Path, **environment: str) -> None:
    for command in block:
        path = f"{BIN}{os.pathsep}{os.environ['PATH']}"
        run("sh", "-c", command, cwd=folder, env={"PATH": path, **environment})


def make_it_0_3_0(template: Path) -> None:
    """A release that renames a module and deletes tests."""
    package = template / "src" / PACKAGE
    (package / "profiling.py").rename(package / "profiles.py")
    for path in template.rglob("*.py"):
        if ".profiling import" in path.read_text(encoding="utf-8"):
            edit(path, ".profiling import", ".profiles import")
    (template / "tests" / "test_promotions.py").unlink()

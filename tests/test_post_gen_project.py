"""The functions of the hook that finishes a project, each in a folder of its own."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

import post_gen_project as hook
from conftest import Render
from processes import git
from projects import make_repository

TRACKER_FILES = {"one": ["src/*/one.py", "tests/test_one.py"], "two": ["src/*/two.py"]}
ANSWERS = {"package_name": "shop", "project_slug": "shop", "tracker": "one"}
SOUND = {
    **dict.fromkeys(hook.REQUIRED_FILES, "text\n"),
    ".copier-answers.yml": "# a comment\n",
    "src/shop/__init__.py": "",
    "src/shop/one.py": "x = 1\n",
    "src/shop/two.py": "x = 2\n",
    "tests/test_one.py": "x = 3\n",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    folder = tmp_path / "shop"
    write(folder, SOUND)
    return folder


@pytest.fixture
def origin_template(tmp_path: Path) -> Path:
    """A repository that looks like the template, with one commit and no tag."""
    folder = tmp_path / "template"
    write(folder, {"cookiecutter.json": "{}", "copier.yml": "", "hooks/a.py": "", "README.md": ""})
    write(folder, {"<<cookiecutter.project_slug>>/a.txt": ""})
    make_repository(folder)
    return folder


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def names(folder: Path) -> set[str]:
    return {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}


def origin(template: Path, typed: str | None = None, used: str | None = None) -> hook.Origin:
    context = {"_template": typed or str(template), "_repo_dir": used or str(template)}
    return hook.find_origin(context, [template])


def test_selecting_a_tracker_removes_the_files_of_the_other(project: Path) -> None:
    before = names(project)
    hook.select_tracker(project, TRACKER_FILES, "one")
    assert before - names(project) == {"src/shop/two.py"}
    hook.select_tracker(project, {"one": TRACKER_FILES["one"]}, "two")
    assert before - names(project) == {"src/shop/two.py", "src/shop/one.py", "tests/test_one.py"}


def test_a_tracker_that_the_template_forgot_is_named(project: Path) -> None:
    with pytest.raises(hook.ProjectBrokenError, match=r"src/\*/three.py: missing"):
        hook.select_tracker(project, {"three": ["src/*/three.py"]}, "one")


def test_a_sound_project_passes(project: Path) -> None:
    hook.check(project, ANSWERS)


@pytest.mark.parametrize("name", [*hook.REQUIRED_FILES, "src/shop/__init__.py"])
def test_a_missing_file_is_named(name: str, project: Path) -> None:
    (project / name).unlink()
    with pytest.raises(hook.ProjectBrokenError, match=rf"^{name}: missing$"):
        hook.check(project, ANSWERS)


@pytest.mark.parametrize(
    ("name", "text", "problem"),
    [
        ("a.py", "x = 1\ndef f(:\n", "a.py:2: invalid syntax"),
        ("a.py", 'x = """\n', "a.py:1: unterminated triple-quoted string"),
        ("a.yaml", "a: 1\nb: [1\n", "a.yaml:3: expected ',' or ']'"),
        ("a.yml", "a: 1\n\tb: 2\n", "a.yml:2: found character '\\t'"),
        ("a.yml", "a: \0", "a.yml:1: unacceptable character"),
        ("a.json", '{\n"a": }\n', "a.json:2: Expecting value"),
        ("deep/a.txt", "one\ntwo << three\n", "deep/a.txt:2: '<<' was not rendered"),
        ("a.md", "<% if %>\n", "a.md:1: '<%' was not rendered"),
        ("a.txt", "one <# two", "a.txt:1: '<#' was not rendered"),
    ],
)
def test_a_broken_file_is_named_with_its_line(
    name: str, text: str, problem: str, project: Path
) -> None:
    write(project, {name: text})
    with pytest.raises(hook.ProjectBrokenError) as broken:
        hook.check(project, ANSWERS)
    assert str(broken.value).startswith(problem)


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no TOML parser")
@pytest.mark.parametrize(
    ("text", "line"), [('a = 1\nb = "\n', 2), ("a = 1\na = 2\n", 2), ("a = [1,\n", 1)]
)
def test_broken_toml_is_named_with_its_line(text: str, line: int, project: Path) -> None:
    write(project, {"a.toml": text})
    with pytest.raises(hook.ProjectBrokenError, match=rf"^a.toml:{line}: "):
        hook.check(project, ANSWERS)


def test_a_name_that_was_not_rendered_is_found(project: Path) -> None:
    write(project, {"src/<<name>>/a.txt": ""})
    with pytest.raises(hook.ProjectBrokenError, match="src/<<name>>: the name was not rendered"):
        hook.check(project, ANSWERS)


def test_a_binary_file_is_left_alone(project: Path) -> None:
    (project / "picture.png").write_bytes(b"\x89PNG\xff<<")
    hook.check(project, ANSWERS)


def test_emptying_keeps_the_folder_and_what_links_point_to(project: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "mine.txt").touch()
    (project / "link").symlink_to(tmp_path / "elsewhere")
    hook.empty(project)
    assert list(project.iterdir()) == []
    assert (tmp_path / "elsewhere" / "mine.txt").exists()


def test_a_local_template_is_named_by_its_path_and_commit(origin_template: Path) -> None:
    assert origin(origin_template) == hook.Origin(
        str(origin_template), git(origin_template, "rev-parse", "HEAD"), ""
    )


@pytest.mark.parametrize("tag", ["0.1.0", "v1.2.3", "1.0.0rc1", "2.0.post1"])
def test_a_release_is_named_by_its_tag(tag: str, origin_template: Path) -> None:
    git(origin_template, "tag", "latest")
    git(origin_template, "tag", tag)
    git(origin_template, "tag", "zzz")
    assert origin(origin_template).commit == tag


def test_a_commit_after_a_release_says_how_to_update(origin_template: Path) -> None:
    git(origin_template, "tag", "0.1.0")
    write(origin_template, {"hooks/a.py": "more"})
    git(origin_template, "commit", "--all", "--message", "More")
    found = origin(origin_template)
    assert found.commit == git(origin_template, "rev-parse", "HEAD")
    assert "--vcs-ref" in found.advice


def test_a_commit_that_renders_as_the_release_is_named_by_it(origin_template: Path) -> None:
    for tag in ("0.9.0", "0.10.0rc1", "0.10.0"):
        write(origin_template, {"README.md": tag})
        git(origin_template, "commit", "--all", "--message", "More")
        git(origin_template, "tag", tag)
    write(origin_template, {"README.md": "more words"})
    git(origin_template, "commit", "--all", "--message", "More words")
    assert origin(origin_template) == hook.Origin(str(origin_template), "0.10.0", "")


def test_a_commit_between_releases_needs_no_advice(origin_template: Path) -> None:
    git(origin_template, "tag", "0.1.0")
    write(origin_template, {"hooks/a.py": "more"})
    git(origin_template, "commit", "--all", "--message", "More")
    between = git(origin_template, "rev-parse", "HEAD")
    write(origin_template, {"hooks/a.py": "even more"})
    git(origin_template, "commit", "--all", "--message", "Even more")
    git(origin_template, "tag", "0.2.0")
    git(origin_template, "checkout", "--quiet", between)
    assert origin(origin_template) == hook.Origin(str(origin_template), between, "")


def test_uncommitted_changes_leave_the_commit_open(origin_template: Path) -> None:
    for changed in ("cookiecutter.json", "hooks/a.py", "<<cookiecutter.project_slug>>/new.txt"):
        write(origin_template, {changed: "changed"})
        found = origin(origin_template)
        assert (found.address, found.commit) == (str(origin_template), None)
        assert "not committed" in found.advice
        assert "_commit" in found.advice
        git(origin_template, "clean", "--force", "--quiet", "-d")
        git(origin_template, "checkout", "--quiet", ".")


def test_changes_that_are_not_rendered_do_not_count(origin_template: Path) -> None:
    write(origin_template, {"README.md": "changed", "notes.txt": "new"})
    assert origin(origin_template).commit == git(origin_template, "rev-parse", "HEAD")


def test_a_folder_that_is_no_repository_leaves_both_open(tmp_path: Path) -> None:
    write(tmp_path, {"cookiecutter.json": "{}", "copier.yml": ""})
    found = origin(tmp_path)
    assert (found.address, found.commit) == (None, None)
    assert "_src_path" in found.advice


def test_a_folder_within_another_repository_leaves_both_open(origin_template: Path) -> None:
    inner = origin_template / "inner"
    write(inner, {"cookiecutter.json": "{}", "copier.yml": ""})
    found = origin(inner)
    assert (found.address, found.commit) == (None, None)
    assert "repository of its own" in found.advice


def test_a_clone_is_named_by_its_address(origin_template: Path) -> None:
    git(origin_template, "remote", "add", "origin", "https://user:secret@github.com/an/other.git")
    assert origin(origin_template, typed="gh:an/other").address == (
        "https://github.com/an/other.git"
    )


def test_a_template_that_is_not_found_again_is_said(tmp_path: Path) -> None:
    found = hook.find_origin({"_template": "t", "_repo_dir": "t"}, [tmp_path])
    assert (found.address, found.commit) == (None, None)
    assert "not found" in found.advice


def test_a_machine_without_git_is_said(
    origin_template: Path, monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    monkeypatch.setenv("PATH", "")
    assert "git is not installed" in origin(origin_template).advice
    assert "git is not installed" in hook.first_commit(project, hook.Origin(), "yes")
    assert not (project / ".git").exists()


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://github.com/an/other.git", "https://github.com/an/other.git"),
        ("https://git.example.com/other", "git+https://git.example.com/other"),
        ("https://me:pass@git.example.com:8443/x.git", "https://git.example.com:8443/x.git"),
        ("https://token@git.example.com/x.git", "https://git.example.com/x.git"),
        ("git@example.com:an/other.git", "git@example.com:an/other.git"),
        ("me@example.com:an/other", "git+me@example.com:an/other"),
        ("ssh://git@example.com:22/x", "git+ssh://git@example.com:22/x"),
        ("ssh://git:pass@example.com/x.git", "ssh://git@example.com/x.git"),
        ("git://example.com/x", "git://example.com/x"),
        ("git+https://example.com/x", "git+https://example.com/x"),
        ("file:///srv/x", "git+file:///srv/x"),
    ],
)
def test_addresses_are_copiers_and_hold_no_secret(url: str, address: str) -> None:
    assert hook.copier_address(url) == address


def test_the_answers_are_appended_without_private_values(project: Path) -> None:
    context = {**ANSWERS, "python_version": "3.10", "_template": "x", "__prompts__": {}}
    hook.write_answers(project, context, hook.Origin("/a/b", "1.0.0"))
    text = (project / ".copier-answers.yml").read_text(encoding="utf-8")
    assert text.startswith("# a comment\n_commit: 1.0.0\n_src_path: /a/b\n")
    assert yaml.safe_load(text) == {
        **ANSWERS,
        "python_version": "3.10",
        "_src_path": "/a/b",
        "_commit": "1.0.0",
    }


def test_unknown_origins_are_not_written(project: Path) -> None:
    hook.write_answers(project, ANSWERS, hook.Origin())
    assert yaml.safe_load((project / ".copier-answers.yml").read_text("utf-8")) == ANSWERS


def test_the_first_commit_holds_everything_on_the_users_branch(project: Path) -> None:
    assert hook.first_commit(project, hook.Origin("/t", "1.0.0"), "yes") == ""
    assert set(git(project, "ls-files").splitlines()) == names(project) - {
        name for name in names(project) if name.startswith(".git/")
    }
    assert git(project, "branch", "--show-current") == "main"
    assert git(project, "log", "--format=%s") == "Start from the template at 1.0.0"


@pytest.mark.parametrize("no", ["no", "No", "0", "false"])
def test_no_commit_is_made_where_none_is_wanted(no: str, project: Path) -> None:
    assert hook.first_commit(project, hook.Origin(), no) == ""
    assert not (project / ".git").exists()


def test_an_outer_repository_is_left_alone(project: Path) -> None:
    make_repository(project.parent)
    before = git(project.parent, "status", "--porcelain")
    assert "belongs to a git repository" in hook.first_commit(project, hook.Origin(), "yes")
    assert not (project / ".git").exists()
    assert git(project.parent, "status", "--porcelain") == before


def test_an_ignored_folder_gets_its_own_repository(project: Path) -> None:
    (project.parent / ".gitignore").write_text("/shop/\n", encoding="utf-8")
    make_repository(project.parent)
    assert hook.first_commit(project, hook.Origin(), "yes") == ""
    assert (project / ".git").is_dir()


def test_without_an_identity_the_reason_is_given(
    project: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "gitconfig").write_text("[user]\n    useConfigOnly = true\n", encoding="utf-8")
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    note = hook.first_commit(project, hook.Origin(), "yes")
    assert note.startswith("No first commit: git does not know your name and address. ")
    assert note.endswith("after `git config --global user.name NAME` and `user.email ADDRESS`.")
    assert git(project, "symbolic-ref", "--short", "HEAD") == "main"


def test_the_variables_of_a_git_hook_lead_nowhere(
    project: Path, monkeypatch: pytest.MonkeyPatch, origin_template: Path
) -> None:
    monkeypatch.setenv("GIT_DIR", str(origin_template / ".git"))
    monkeypatch.setenv("GIT_WORK_TREE", str(origin_template))
    assert hook.first_commit(project, hook.Origin(), "yes") == ""
    monkeypatch.undo()
    assert git(project, "log", "--format=%s") == "Start from a template"


def test_the_farewell_names_three_commands(tmp_path: Path) -> None:
    place = tmp_path / "my projects" / "shop"
    lines = hook.farewell(place, "3.12", ["", "a note"]).splitlines()
    assert lines[1] == "a note"
    assert [line.strip() for line in lines if line.startswith("    ")] == [
        f"cd '{place}'",
        "make demo",
        "make test",
    ]


def test_what_the_hook_must_find_is_in_the_template(rendered: Render) -> None:
    assert set(hook.REQUIRED_FILES) <= set(rendered().files())

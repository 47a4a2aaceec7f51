"""Generation from every kind of address, and what stays behind when it fails."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
import yaml

import pre_gen_project
from processes import git, run
from projects import (
    BIN,
    SLUG,
    RenderedProject,
    cookiecutter,
    differences,
    interpreter,
    snapshot,
)

ADDRESS = "https://github.com/an-owner/a-template.git"


@pytest.fixture
def own_template(tmp_path: Path) -> Path:
    """A repository of the template that a test may change."""
    return snapshot(tmp_path / "template")


@pytest.fixture
def published(own_template: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The template as git finds it at ADDRESS: released as 0.1.0, with a commit on top."""
    git(own_template, "tag", "0.1.0")
    with (own_template / "copier.yml").open("a", encoding="utf-8") as file:
        file.write("# More\n")
    git(own_template, "commit", "--quiet", "--all", "--message", "More")
    config = Path(os.environ["GIT_CONFIG_GLOBAL"]).read_text(encoding="utf-8")
    (tmp_path / "gitconfig").write_text(
        f'{config}[url "{own_template.as_uri()}"]\n    insteadOf = {ADDRESS}\n', encoding="utf-8"
    )
    (tmp_path / "cookiecutter.yml").write_text(
        f"cookiecutters_dir: {tmp_path / 'clones'}\nreplay_dir: {tmp_path / 'replay'}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "gitconfig"))
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(tmp_path / "cookiecutter.yml"))
    return own_template


def test_a_relative_path_is_recorded_as_an_absolute_one(own_template: Path, tmp_path: Path) -> None:
    away = tmp_path / "elsewhere"
    cookiecutter("../template", away / "out", cwd=make(away))
    answers = RenderedProject(away / "out" / SLUG).answers
    assert answers["_src_path"] == str(own_template)
    assert answers["_commit"] == git(own_template, "rev-parse", "HEAD")


def test_the_current_folder_is_recorded_as_an_absolute_path(
    own_template: Path, tmp_path: Path
) -> None:
    cookiecutter(".", tmp_path / "out", cwd=own_template)
    answers = RenderedProject(tmp_path / "out" / SLUG).answers
    assert answers["_src_path"] == str(own_template)


@pytest.mark.parametrize("checkout", [None, "0.1.0", "main"])
def test_a_hosted_template_is_recorded_by_its_address(
    checkout: str | None, published: Path, tmp_path: Path
) -> None:
    options = ("--checkout", checkout) if checkout else ()
    cookiecutter("gh:an-owner/a-template", tmp_path / "out", {}, *options)
    answers = RenderedProject(tmp_path / "out" / SLUG).answers
    assert answers["_src_path"] == ADDRESS
    newest = git(published, "rev-parse", "HEAD")
    assert answers["_commit"] == ("0.1.0" if checkout == "0.1.0" else newest)


def test_a_project_of_cookiecutter_takes_copiers_update(published: Path, tmp_path: Path) -> None:
    cookiecutter("gh:an-owner/a-template", tmp_path / "out", {}, "--checkout", "0.1.0")
    project = tmp_path / "out" / SLUG
    changelog = "<<cookiecutter.project_slug>>/NEWS.md"
    (published / changelog).write_text("News of << cookiecutter.project_name >>\n", "utf-8")
    git(published, "add", "--all")
    git(published, "commit", "--quiet", "--message", "News")
    git(published, "tag", "0.2.0")
    run(BIN / "copier", "update", "--defaults", "--quiet", cwd=project)
    assert (project / "NEWS.md").read_text("utf-8") == "News of Purchase Prediction\n"
    assert RenderedProject(project).answers["_commit"] == "0.2.0"
    changed = git(project, "status", "--porcelain").splitlines()
    assert changed == ["M .copier-answers.yml", "?? NEWS.md"]


def test_the_tracker_of_a_living_project_can_be_switched(
    own_template: Path, tmp_path: Path
) -> None:
    cookiecutter(own_template, tmp_path / "out")
    cookiecutter(own_template, tmp_path / "wandb", {"tracker": "wandb"})
    project = RenderedProject(tmp_path / "out" / SLUG)
    switch = (BIN / "copier", "update", "--defaults", "--quiet", "--data", "tracker=wandb")
    run(*switch, cwd=project.path)
    ours, fresh = project.files(), RenderedProject(tmp_path / "wandb" / SLUG).files()
    assert set(ours) == set(fresh)
    assert {name for name in ours if ours[name] != fresh[name]} <= {".copier-answers.yml"}


def test_a_zip_is_rendered_and_its_adoption_explained(own_template: Path, tmp_path: Path) -> None:
    git(own_template, "archive", "--prefix=template/", "--output=../template.zip", "HEAD")
    result = cookiecutter(tmp_path / "template.zip", tmp_path / "out")
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert set(project.answers) & {"_src_path", "_commit"} == set()
    assert project.answers["tracker"] == "mlflow"
    assert "write the template's git address as _src_path" in " ".join(result.stdout.split())
    assert project.has(".git")


def test_a_template_with_changes_is_rendered_and_its_adoption_explained(
    own_template: Path, tmp_path: Path
) -> None:
    (own_template / "<<cookiecutter.project_slug>>" / "LICENSE").write_text("mine", "utf-8")
    result = cookiecutter(own_template, tmp_path / "out")
    project = RenderedProject(tmp_path / "out" / SLUG)
    assert project.read("LICENSE") == "mine"
    assert "_commit" not in project.answers
    assert "not committed" in result.stdout


def test_the_next_commands_are_printed(own_template: Path, tmp_path: Path) -> None:
    lines = cookiecutter(own_template, tmp_path / "out").stdout.splitlines()
    commands = [line.strip() for line in lines if line.startswith("    ")]
    assert commands == [f"cd {tmp_path / 'out' / SLUG}", "make demo", "make test"]


def test_the_first_commit_can_be_declined(own_template: Path, tmp_path: Path) -> None:
    cookiecutter(own_template, tmp_path, env={"TEMPLATE_FIRST_COMMIT": "no"})
    assert not (tmp_path / SLUG / ".git").exists()


def test_a_machine_without_git_still_generates(own_template: Path, tmp_path: Path) -> None:
    empty = make(tmp_path / "no-programs")
    result = cookiecutter(own_template, tmp_path / "out", env={"PATH": str(empty)})
    assert "git is not installed" in result.stdout
    assert (tmp_path / "out" / SLUG / "Makefile").exists()


def test_copier_generates_without_git(own_template: Path, tmp_path: Path) -> None:
    empty = make(tmp_path / "no-programs")
    words = ("copy", "--defaults", "--quiet", own_template, tmp_path / "out")
    run(BIN / "copier", *words, cwd=tmp_path, env={"PATH": str(empty)})
    assert RenderedProject(tmp_path / "out").answers["tracker"] == "mlflow"


def test_without_an_identity_the_project_is_there_and_the_reason_given(
    own_template: Path, tmp_path: Path
) -> None:
    (tmp_path / "gitconfig").write_text("[user]\n    useConfigOnly = true\n", encoding="utf-8")
    nobody = {"GIT_CONFIG_GLOBAL": str(tmp_path / "gitconfig")}
    result = cookiecutter(own_template, tmp_path / "out", env=nobody)
    assert "No first commit: " in result.stdout
    assert (tmp_path / "out" / SLUG / "Makefile").exists()


def test_a_terminal_without_unicode_and_a_folder_with_it_get_along(
    own_template: Path, tmp_path: Path
) -> None:
    out = tmp_path / "mes projets \u2013 été 😀"
    result = cookiecutter(own_template, out, env={"PYTHONIOENCODING": "ascii"})
    assert "is ready. Next:" in result.stdout
    assert git(out / SLUG, "status", "--porcelain") == ""


@pytest.mark.parametrize("tool", ["cookiecutter", "copier"])
def test_a_read_only_folder_is_said_and_stays_empty(
    tool: str, own_template: Path, tmp_path: Path
) -> None:
    out = make(tmp_path / "out")
    out.chmod(0o555)
    words: dict[str, list[str | Path]] = {
        "cookiecutter": [own_template, "--no-input", "--output-dir", out],
        "copier": ["copy", "--defaults", own_template, out / SLUG],
    }
    command = (*heeding_permissions(), BIN / tool, *words[tool])
    refused = run(*command, cwd=tmp_path, check=False)
    assert refused.returncode != 0
    assert str(out / SLUG) in refused.stdout
    assert list(out.iterdir()) == []


def heeding_permissions() -> list[str]:
    """What a command starts with so that read-only folders are that for root, too."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        pytest.skip("root writes everywhere, and there is no setpriv to take that from it")
    rights = "-dac_override,-dac_read_search"
    return ["setpriv", "--bounding-set", rights, "--inh-caps", rights]


@pytest.mark.parametrize("existing", [False, True])
def test_a_failing_check_names_the_line_and_leaves_nothing(
    existing: bool, own_template: Path, tmp_path: Path
) -> None:
    broken = own_template / "<<cookiecutter.project_slug>>" / "broken.yml"
    broken.write_text("a: 1\nb: [<< cookiecutter.project_slug >>\n", encoding="utf-8")
    out = make(tmp_path / "out")
    if existing:
        make(out / SLUG)
    options = ("--overwrite-if-exists",) if existing else ()
    result = cookiecutter(own_template, out, {}, *options, check=False)
    assert result.returncode == 1
    assert "broken.yml:3: expected ',' or ']'" in result.stdout
    assert [path for path in out.rglob("*") if path.is_file()] == []
    assert (out / SLUG).exists() == existing


def test_a_folder_that_cannot_be_written_is_said_and_stays_empty(
    own_template: Path, tmp_path: Path
) -> None:
    (tmp_path / "out").write_text("a file, no folder", encoding="utf-8")
    words = (BIN / "cookiecutter", own_template, "--no-input", "--output-dir", tmp_path / "out")
    result = run(*words, cwd=tmp_path, check=False)
    assert result.returncode != 0
    assert (tmp_path / "out").read_text(encoding="utf-8") == "a file, no folder"


def test_replayed_answers_render_the_same_and_are_checked_again(
    own_template: Path, tmp_path: Path
) -> None:
    cookiecutter(own_template, tmp_path / "first", {"author_name": "Ada"})
    [saved] = Path(
        yaml.safe_load(Path(os.environ["COOKIECUTTER_CONFIG"]).read_text("utf-8"))["replay_dir"]
    ).glob("template.json")
    replay = (BIN / "cookiecutter", own_template, "--replay-file", saved, "--output-dir")
    run(*replay, make(tmp_path / "second"), cwd=tmp_path)
    first, second = (RenderedProject(tmp_path / name / SLUG) for name in ("first", "second"))
    assert first.files() == second.files()
    newest = ("--replay", "--output-dir", make(tmp_path / "newest"))
    run(BIN / "cookiecutter", own_template, *newest, cwd=tmp_path)
    assert RenderedProject(tmp_path / "newest" / SLUG).files() == first.files()

    saved.write_text(saved.read_text("utf-8").replace('"mlflow"', '"neptune"'), "utf-8")
    refused = run(*replay, make(tmp_path / "third"), cwd=tmp_path, check=False)
    assert "tracker 'neptune' is refused" in refused.stdout
    assert list((tmp_path / "third").iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize("version", pre_gen_project.CHOICES["python_version"])
def test_both_tools_render_the_same_on_every_supported_python(
    version: str, own_template: Path, tmp_path: Path
) -> None:
    environment = tmp_path / "environment"
    run(BIN / "uv", "venv", "--quiet", "--python", interpreter(version), environment, cwd=tmp_path)
    install = (BIN / "uv", "pip", "install", "--quiet", "--python", environment, "--constraint")
    run(*install, own_template / "constraints.txt", "cookiecutter", "copier", cwd=tmp_path)
    out = make(tmp_path / "out")
    words = (environment / "bin" / "cookiecutter", own_template, "--no-input", "-o", out)
    run(*words, cwd=tmp_path)
    project = RenderedProject(out / SLUG)
    assert project.answers["_src_path"] == str(own_template)
    copy = (environment / "bin" / "copier", "copy", "--defaults", own_template, out / "copied")
    run(*copy, cwd=tmp_path)
    assert differences(project, RenderedProject(out / "copied")) == []


def make(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder

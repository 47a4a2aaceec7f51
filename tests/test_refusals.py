"""Answers that would render a broken project: both tools refuse them and write nothing."""

from __future__ import annotations

import json
from pathlib import Path

import copier
import pytest
import yaml

import pre_gen_project
from conftest import Render
from in_process import DEFAULTS, DEFINITION
from processes import run
from projects import BIN, ROOT, SLUG, RenderedProject
from projects import cookiecutter as run_cookiecutter
from projects import copier as run_copier

TEXTS = ("project_name", "description", "author_name")
BAD_TEXTS = {
    "empty": "",
    "blank": " ",
    "quote": 'say "hello"',
    "backslash": "C:\\new",
    "newline": "one\ntwo",
    "tab": "one\ttwo",
    "bell": "ding\a",
    "line separator": "one\u2028two",
    "next line": "one\u0085two",
    "byte order mark": "one\ufefftwo",
    "half of a character": "one\ud83dtwo",
    "leading space": " name",
    "trailing space": "name ",
    "variable mark": "a << b",
    "block mark": "a <% b",
    "comment mark": "a <# b",
}
BAD_NAMES = {
    "empty": "",
    "capital": "Customers",
    "digit first": "2nd",
    "space": "my project",
    "accent": "clientèle",
    "path": "a/b",
    "parent": "..",
    "dot": "a.b",
    "newline at the end": "abc\n",
    "31 characters": "a" * 31,
    "keyword": "class",
    "soft keyword": "match",
    "standard module": "json",
    "module of another Python": "imp",
    "dependency": "pandas",
    "device of Windows": "nul",
    "folder of the project": "tests",
    "command of the environment": "python3",
}
BAD_SLUGS = BAD_NAMES | {
    "underscore": "my_project",
    "hyphen first": "-a",
    "hyphen last": "a-",
    "two hyphens": "a--b",
    "distribution": "scikit-learn",
}
BAD_PACKAGES = BAD_NAMES | {
    "hyphen": "my-project",
    "underscore first": "_a",
    "two underscores": "a__b",
    "module of a distribution": "sklearn",
}
BAD_ADDRESSES = {
    "empty": "",
    "no at": "ada.example.com",
    "no domain": "ada@",
    "no top level": "ada@localhost",
    "two dots": "ada..l@example.com",
    "dot first": ".ada@example.com",
    "hyphen before the dot": "ada@example-.com",
    "two": "ada@example.com, bob@example.com",
    "display name": "Ada <ada@example.com>",
    "quote": '"ada"@example.com',
    "newline": "ada@example.com\n",
    "accent": "zoë@example.com",
    "too long": "a" * 250 + "@b.co",
}
BAD = [
    pytest.param(question, answer, id=f"{question}-{reason}")
    for questions, answers in (
        (TEXTS, BAD_TEXTS),
        (("project_slug",), BAD_SLUGS),
        (("package_name",), BAD_PACKAGES),
        (("author_email",), BAD_ADDRESSES),
    )
    for question in questions
    for reason, answer in answers.items()
]
GOOD_TEXTS = (
    "It's",
    "😀",
    "שלום",
    "\u202eabc",
    "{{ a }}",
    "#:-%$()`!&;|*?~^",
    "a > b >> c",
    "a < b",
)
GOOD = {
    **dict.fromkeys(TEXTS, GOOD_TEXTS),
    "project_slug": ("a", "a1", "a-1", "a" * 30, "classes"),
    "package_name": ("a", "a1", "a_1", "a" * 30, "jsons"),
    "author_email": ("a@b.co", "first.last+tag@sub-domain.example.com", "A_%-1@EXAMPLE.museum"),
}
BAD_CHOICES = {"license": "GPL-3.0", "python_version": "3.9", "tracker": "neptune"}


@pytest.fixture(scope="module")
def plain_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The questions alone, outside git and with one file: fast enough to ask a hundred times."""
    folder = tmp_path_factory.mktemp("questions")
    (folder / "copier.yml").write_bytes((ROOT / "copier.yml").read_bytes())
    (folder / "<<cookiecutter.project_slug>>").mkdir()
    (folder / "<<cookiecutter.project_slug>>" / "answers.json").write_text(
        "<< cookiecutter | tojson >>", encoding="utf-8"
    )
    return folder


def reasons(question: str) -> tuple[str, str]:
    rule = pre_gen_project.RULES[question]
    return f"It has to be {rule.text}", f"for example: {rule.example}"


@pytest.mark.parametrize(("question", "answer"), BAD)
def test_the_hook_refuses(question: str, answer: str, rendered: Render) -> None:
    answers = {**rendered().answers, question: answer}
    [refusal] = pre_gen_project.refusals(answers)
    assert refusal.startswith(f"{question} {answer!r} is refused")
    for reason in reasons(question):
        assert reason in refusal


@pytest.mark.parametrize(("question", "answer"), BAD)
def test_copier_refuses(question: str, answer: str, plain_template: Path, tmp_path: Path) -> None:
    project = tmp_path / "project"
    with pytest.raises(ValueError, match=f"question '{question}'") as refusal:
        copier.run_copy(
            str(plain_template), project, data={question: answer}, defaults=True, quiet=True
        )
    assert f"question '{question}': {answer!r} is refused" in str(refusal.value)
    for reason in reasons(question):
        assert reason in str(refusal.value)
    assert not project.exists()


@pytest.mark.parametrize("question", GOOD)
def test_both_accept_what_people_write(
    question: str, plain_template: Path, tmp_path: Path, rendered: Render
) -> None:
    for number, answer in enumerate(GOOD[question]):
        assert pre_gen_project.refusals({**rendered().answers, question: answer}) == []
        project, answers = tmp_path / str(number), {"project_slug": "a", question: answer}
        copier.run_copy(str(plain_template), project, data=answers, defaults=True, quiet=True)
        written = json.loads((project / "answers.json").read_text(encoding="utf-8"))
        assert written[question] == answer


@pytest.mark.parametrize("question", BAD_CHOICES)
def test_an_unknown_choice_is_refused(
    question: str, template: Path, tmp_path: Path, rendered: Render
) -> None:
    answer = {question: BAD_CHOICES[question]}
    [refusal] = pre_gen_project.refusals({**rendered().answers, **answer})
    assert f"{question} {answer[question]!r} is refused" in refusal
    for refused in (
        run_cookiecutter(template, tmp_path / "out", answer, check=False),
        run_copier(template, tmp_path / "out" / SLUG, answer, check=False),
    ):
        assert refused.returncode != 0
        assert answer[question] in refused.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_cookiecutter_shows_every_refusal_and_leaves_nothing(
    template: Path, tmp_path: Path
) -> None:
    answers = {"project_slug": "json", "author_email": "nobody"}
    refused = run_cookiecutter(template, tmp_path / "out", answers, check=False)
    assert refused.returncode == 1
    assert "project_slug 'json' is refused" in refused.stdout
    assert "author_email 'nobody' is refused" in refused.stdout
    assert list((tmp_path / "out").iterdir()) == []


def test_copier_shows_the_refusal_and_leaves_nothing(template: Path, tmp_path: Path) -> None:
    refused = run_copier(template, tmp_path / "out", {"project_slug": "json"}, check=False)
    assert refused.returncode != 0
    assert "'json' is refused" in refused.stdout
    assert not (tmp_path / "out").exists()


def test_a_folder_with_content_is_refused_and_stays_as_it_was(
    template: Path, tmp_path: Path
) -> None:
    (tmp_path / SLUG / "notes").mkdir(parents=True)
    (tmp_path / SLUG / "README.md").write_text("mine", encoding="utf-8")
    for options, reason in (((), "already exists"), (("--overwrite-if-exists",), "is refused")):
        refused = run_cookiecutter(template, tmp_path, {}, *options, check=False)
        assert refused.returncode == 1
        assert SLUG in refused.stdout
        assert reason in refused.stdout
        assert (tmp_path / SLUG / "README.md").read_text(encoding="utf-8") == "mine"
        assert {path.name for path in (tmp_path / SLUG).iterdir()} == {"README.md", "notes"}


@pytest.mark.parametrize("slug", ["a/b", "a/..", "..", "../a", "a/../..", "a/../b", "./a", "a/"])
def test_a_slug_that_is_a_path_harms_nothing_beside_it(
    slug: str, template: Path, tmp_path: Path
) -> None:
    """Cookiecutter removes the folder of a refused slug; that of `a/..` is the output folder."""
    words = ("--no-input", "--output-dir", "out", f"project_slug={slug}")
    (tmp_path / "mine.txt").touch()
    refused = run(BIN / "cookiecutter", template, *words, cwd=tmp_path, check=False)
    assert f"project_slug {slug!r} is refused" in refused.stdout
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["mine.txt", "out"]

    (tmp_path / "out" / "mine-too.txt").touch()
    refused = run(BIN / "cookiecutter", template, *words, cwd=tmp_path, check=False)
    assert refused.returncode != 0
    left = sorted(path.name for path in tmp_path.rglob("*"))
    assert left == ["mine-too.txt", "mine.txt", "out"]


@pytest.mark.parametrize("value", [123, 3.11, True, None, ["mlflow"], {"a": "b"}])
def test_a_replayed_answer_that_is_no_text_is_refused(value: object, rendered: Render) -> None:
    for question in (*pre_gen_project.RULES, *pre_gen_project.CHOICES):
        [refusal] = pre_gen_project.refusals({**rendered().answers, question: value})
        assert refusal.startswith(f"{question} {value!r} is refused")


def test_a_name_without_latin_letters_gets_a_folder(template: Path, tmp_path: Path) -> None:
    answers = {"project_name": "שלום"}
    run_cookiecutter(template, tmp_path, answers)
    run_copier(template, tmp_path / "copier", answers)
    for project in (tmp_path / "my-project", tmp_path / "copier"):
        assert RenderedProject(project).answers["package_name"] == "my_project"


def test_an_empty_folder_is_taken_with_overwrite(template: Path, tmp_path: Path) -> None:
    (tmp_path / SLUG).mkdir()
    run_cookiecutter(template, tmp_path, {}, "--overwrite-if-exists")
    assert (tmp_path / SLUG / "pyproject.toml").exists()


def test_copier_overwrites_no_file_unasked(template: Path, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("mine", encoding="utf-8")
    refused = run_copier(template, tmp_path, check=False)
    assert refused.returncode != 0
    assert (tmp_path / "README.md").read_text(encoding="utf-8") == "mine"


def test_answers_typed_at_the_prompt_stay_text(template: Path, tmp_path: Path) -> None:
    """Typed text is never rendered: here a Jinja expression with cookiecutter's usual marks."""
    typed = ["{{ 7 * 7 }}", "typed", "", "$(touch gone)", "", "", "", "", "2"]
    run(
        *(BIN / "cookiecutter", template, "--output-dir", tmp_path),
        cwd=tmp_path,
        text_in="\n".join([*typed, ""]),
    )
    answers = yaml.safe_load((tmp_path / "typed" / ".copier-answers.yml").read_text("utf-8"))
    assert answers["project_name"] == "{{ 7 * 7 }}"
    assert answers["package_name"] == "typed"
    assert answers["description"] == "$(touch gone)"
    assert answers["tracker"] == "wandb"
    assert not list(tmp_path.rglob("gone"))


@pytest.mark.parametrize("expression", ["<< 7 * 7 >>", "<% set a = 7 * 7 %>", "<# a #>"])
@pytest.mark.parametrize("way", ["typed", "replayed", "copied"])
def test_an_expression_is_refused_and_not_rendered(
    way: str, expression: str, template: Path, tmp_path: Path
) -> None:
    """An expression with the template's own marks, by each way that an answer takes."""
    out = tmp_path / "out"
    out.mkdir()
    command = (BIN / "cookiecutter", template, "--output-dir", out)
    if way == "typed":
        typed = "\n".join(["name", "a", "a", expression, *[""] * len(DEFINITION)])
        refused = run(*command, cwd=tmp_path, text_in=typed, check=False)
    elif way == "replayed":
        replay = tmp_path / "replay.json"
        answers = {**DEFAULTS, "description": expression}
        replay.write_text(json.dumps({"cookiecutter": {**DEFINITION, **answers}}), "utf-8")
        refused = run(*command, "--replay-file", replay, cwd=tmp_path, check=False)
    else:
        refused = run_copier(template, out / "a", {"description": expression}, check=False)
    assert refused.returncode != 0
    assert f"{expression!r} is refused" in refused.stdout
    assert list(out.iterdir()) == []


@pytest.mark.parametrize("text", ["{{ 7 * 7 }}", "{% if a %}", "$(touch gone); `touch gone`"])
def test_what_other_tools_would_execute_stays_text(
    text: str, template: Path, tmp_path: Path
) -> None:
    replay = tmp_path / "replay.json"
    answers = {**DEFAULTS, **dict.fromkeys(TEXTS, text)}
    replay.write_text(json.dumps({"cookiecutter": {**DEFINITION, **answers}}), "utf-8")
    words = (BIN / "cookiecutter", template, "--output-dir", tmp_path, "--replay-file", replay)
    run(*words, cwd=tmp_path)
    run_copier(template, tmp_path / "copied", {"project_slug": "a", **dict.fromkeys(TEXTS, text)})
    for project in (RenderedProject(tmp_path / SLUG), RenderedProject(tmp_path / "copied")):
        assert {project.answers[name] for name in TEXTS} == {text}
        assert f'description = "{text}"' in project.read("pyproject.toml")
    assert not list(tmp_path.rglob("gone"))

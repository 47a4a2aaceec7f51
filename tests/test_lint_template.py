"""The lint of the template's marks: the template is clean, and planted mistakes are found."""

from __future__ import annotations

from pathlib import Path

import pytest

import lint_template
from processes import git
from projects import ROOT

PACKAGE = "<<cookiecutter.package_name>>"


def test_the_template_is_clean() -> None:
    assert list(lint_template.lint(ROOT)) == []


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("run.sh", "set -e\ncat <<EOF\nhello\nEOF\n", "2: '<<'"),
        ("run.sh", "sort <<< text\n", "1: '<<'"),
        ("a.yml", "base: &b {}\nother:\n  <<: *b\n", "3: '<<'"),
        ("a.md", "<<<<<<< HEAD\n", "1: '<<'"),
        ("a.conf", "format = <%Y-%m-%d>\n", "1: '<%'"),
        ("a.c", "int x = 1 << 2;\n", "1: '<<'"),
        ("a.html", "<#anchor>\n", "1: '<#'"),
        ("a.toml", "x = '<< other.name >>'\n", "1: '<<'"),
        ("a.txt", "<% include 'x' %>\n", "1: '<%'"),
        ("a.txt", "one\n<% if cookiecutter.tracker %>\n", "2: "),
        ("a.txt", "<< cookiecutter.tracker | no_such( >>\n", "1: "),
        ("a.txt", "<% if tracker == 'wandb' %>x<% endif %>\n", "1: unknown names tracker"),
        ("a.py", "NAME = '<< cookiecutter.project_name >>'\n", "1: Python may hold"),
        ("a.py", "<% if cookiecutter.tracker == 'wandb' %>\nx = 1\n<% endif %>\n", "1: Python"),
        ("a.py", f"x = {PACKAGE}.y\n", "1: Python may hold"),
        ("a.py", f"from {PACKAGE} import a, {PACKAGE}\n", "1: Python may hold"),
        ("a.py", f"from {PACKAGE}_more import a\n", "1: Python may hold"),
        ("a.py", "y = x << 1\n", "1: '<<'"),
    ],
)
def test_a_planted_mistake_is_found(name: str, text: str, found: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    problems = list(lint_template.file_problems(tmp_path / name))
    assert problems[0].startswith(found)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.py", f"from {PACKAGE}.data import x\nfrom {PACKAGE} import y\nimport {PACKAGE}\n"),
        ("a.py", f"import {PACKAGE} as package\n    from {PACKAGE}.a.b import c as d\n"),
        ("a.toml", 'a = "<< cookiecutter.python_version.replace(".", "") >>"\n'),
        ("a.yml", '<%- if cookiecutter.tracker == "wandb" %>\na: 1\n<%- endif %>\n'),
        ("a.txt", "<# a comment #>\n"),
        ("a.sh", "cat >> file < other\n"),
        ("a.yml", "run: echo ${{ github.ref }} {% raw %}\n"),
    ],
)
def test_what_is_the_templates_own_passes(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert list(lint_template.file_problems(tmp_path / name)) == []


def test_a_file_that_is_no_text_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"\xff<<\xff")
    assert list(lint_template.file_problems(tmp_path / "a.png")) == []


def test_names_and_hooks_are_read_too(tmp_path: Path) -> None:
    (tmp_path / "hooks").mkdir()
    (tmp_path / "hooks" / "hook.py").write_text("x = 1\n# <% one\n", encoding="utf-8")
    (tmp_path / "<<cookiecutter.project_slug>>").mkdir()
    (tmp_path / "<<cookiecutter.project_slug>>" / "<<cookiecutter.tracker>>.txt").touch()
    git(tmp_path, "init", "--quiet")
    hook, name = lint_template.lint(tmp_path)
    assert hook.startswith("hooks/hook.py:2: ")
    assert name.startswith("<<cookiecutter.tracker>>.txt:0: only")

"""Find marks in the template's files that are not the template's own.

A rendered file that holds one of the three opening marks for its own reasons (a heredoc, a
conflict marker, a date format, a shift) breaks generation in both tools. Python in the template
may name nothing but the package, and that only where it is imported, so that it can be linted,
typed and read as Python.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jinja2
import jinja2.meta

ROOT = Path(__file__).resolve().parent.parent
TEMPLATE_NAME = "<<cookiecutter.project_slug>>"
PACKAGE_MARK = "<<cookiecutter.package_name>>"
NAMES = {"cookiecutter", "_copier_answers"}

OPENING_MARK = re.compile(r"<[<%#]")
OWN_MARK = re.compile(
    r"<<-? (?:cookiecutter\.|_copier_answers\b).*?>>"
    r"|<%[-+]? (?:if|elif|else|endif|for|endfor)\b.*?%>"
    r"|<#.*?#>"
    r"|" + PACKAGE_MARK
)
IMPORT = re.compile(rf"\s*(?:from|import) {PACKAGE_MARK}[ .\n]")


def main() -> int:
    """Check the template's folder; 1 where something was found."""
    problems = list(lint(ROOT))
    for problem in problems:
        print(problem, file=sys.stderr)
    return 1 if problems else 0


def lint(root: Path) -> Iterator[str]:
    """Problems of a template repository, as ``file:line: reason``."""
    for path in sorted((root / "hooks").glob("*.py")):
        for problem in syntax_problems(path.read_text(encoding="utf-8")):
            yield f"hooks/{path.name}:{problem}"
    for path in repository_files(root):
        if path.relative_to(root).parts[0] == TEMPLATE_NAME:
            name = path.relative_to(root / TEMPLATE_NAME).as_posix()
            if OPENING_MARK.search(name.replace(PACKAGE_MARK, "")):
                yield f"{name}:0: only {PACKAGE_MARK} may be part of a name"
            for problem in file_problems(path):
                yield f"{TEMPLATE_NAME}/{name}:{problem}"


def repository_files(root: Path) -> list[Path]:
    """The files that a commit of everything would hold."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        capture_output=True,
        text=True,
        check=True,
    )
    names = sorted({*listing.stdout.split("\0")} - {""})
    return [root / name for name in names if (root / name).is_file()]


def file_problems(path: Path) -> Iterator[str]:
    """Problems of one file, as ``line: reason``; a file that is no text is not rendered."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    found = False
    for number, line in enumerate(text.split("\n"), 1):
        if problem := line_problem(line, python=path.suffix in {".py", ".pyi"}):
            found = True
            yield f"{number}: {problem}"
    if not found:
        yield from syntax_problems(text)


def line_problem(line: str, *, python: bool) -> str | None:
    """Why a line of the template may not stay as it is."""
    if foreign := OPENING_MARK.search(OWN_MARK.sub("", line)):
        return (
            f"{foreign.group()!r} would be taken for a mark of the template: write it another way"
        )
    if python and OPENING_MARK.search(line) and not is_import_of_package(line):
        return f"Python may hold {PACKAGE_MARK} in the lines that import it, and no other mark"
    return None


def is_import_of_package(line: str) -> bool:
    """Whether the only mark of a line is the package that it imports from."""
    rest = line.replace(PACKAGE_MARK, "", 1)
    return IMPORT.match(f"{line}\n") is not None and OPENING_MARK.search(rest) is None


def syntax_problems(text: str) -> Iterator[str]:
    """Why Jinja cannot render a text, as ``line: reason``."""
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    jinja = jinja2.Environment(**definition["_jinja2_env_vars"], autoescape=False)  # noqa: S701
    try:
        unknown = jinja2.meta.find_undeclared_variables(jinja.parse(text)) - NAMES
    except jinja2.TemplateSyntaxError as error:
        yield f"{error.lineno}: {error.message}"
        return
    if unknown:
        yield f"1: unknown names {', '.join(sorted(unknown))}: the template knows cookiecutter.NAME"


if __name__ == "__main__":
    sys.exit(main())

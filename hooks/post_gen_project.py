"""Finish a project that cookiecutter has just rendered.

Select the tracker, check every file, write the answers that `copier update` reads, make the first
commit and print what to do next. Cookiecutter renders this file with the answers and runs it in
the project. Only the standard library and PyYAML (which cookiecutter brings) are used, and no
network.

Copier runs no hooks: copier.yml excludes the other tracker's files and copier writes the answers.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import yaml

if sys.version_info >= (3, 11):
    import tomllib

CONTEXT = r"""<< cookiecutter | tojson >>"""

ANSWERS_FILE = ".copier-answers.yml"
FIRST_COMMIT_VARIABLE = "TEMPLATE_FIRST_COMMIT"
REQUIRED_FILES = (ANSWERS_FILE, "LICENSE", "Makefile", "README.md", "constraints.txt")
LEFT_OVER_MARK = re.compile("[<][%#<]")
# Git's own hooks set these; they would point the commands below at another repository.
GIT_LOCATIONS = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_PREFIX")


class ProjectBrokenError(Exception):
    """The rendered project is not what the template promises; the message says where."""


class GitError(Exception):
    """Git is missing or refused; the message is its reason."""


@dataclass(frozen=True)
class Origin:
    """Where a project comes from, as far as `copier update` can find it again.

    Attributes:
        address: the template's absolute path or address.
        commit: the tag or full commit that was rendered.
        advice: what to do where one of them is missing or an update needs a hint.
    """

    address: str | None = None
    commit: str | None = None
    advice: str = ""


def main() -> int:
    """Finish the project in the current folder, or empty the folder and say what is broken."""
    context = json.loads(CONTEXT)
    project = Path.cwd()
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A terminal without Unicode must not make a finished project fail.
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        select_tracker(project, context["_tracker_files"], context["tracker"])
        check(project, context)
    except ProjectBrokenError as error:
        print(
            f"the template rendered a broken project and takes it back:\n{error}", file=sys.stderr
        )
        empty(project)
        return 1
    origin = find_origin(context, template_candidates(context))
    write_answers(project, context, origin)
    commit = first_commit(project, origin, os.environ.get(FIRST_COMMIT_VARIABLE, "yes"))
    print(farewell(project, context["python_version"], [commit, origin.advice]))
    return 0


def select_tracker(project: Path, tracker_files: Mapping[str, list[str]], tracker: str) -> None:
    """Remove the files of every other tracker.

    Args:
        project: the rendered project.
        tracker_files: glob patterns of each tracker's own files.
        tracker: the one that stays.

    Raises:
        ProjectBrokenError: a tracker's file was not rendered.
    """
    for owner, patterns in tracker_files.items():
        for pattern in patterns:
            paths = list(project.glob(pattern))
            if not paths:
                raise ProjectBrokenError(f"{pattern}: missing in the template")
            if owner != tracker:
                for path in paths:
                    path.unlink()


def check(project: Path, answers: Mapping[str, Any]) -> None:
    """Find files that are missing, do not parse, or hold a mark of the template.

    Raises:
        ProjectBrokenError: with one line for each problem, naming file and line.
    """
    package = f"src/{answers['package_name']}/__init__.py"
    problems = [
        f"{name}: missing" for name in (*REQUIRED_FILES, package) if not (project / name).is_file()
    ]
    for path in sorted(project.rglob("*")):
        name = str(path.relative_to(project))
        if LEFT_OVER_MARK.search(name):
            problems.append(f"{name}: the name was not rendered")
        if path.is_file():
            problems += [f"{name}:{found}" for found in file_problems(path)]
    if problems:
        raise ProjectBrokenError("\n".join(problems))


def file_problems(path: Path) -> Iterator[str]:
    """What is wrong with one file, as ``line: reason``."""
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return
    for number, line in enumerate(text.split("\n"), 1):
        if mark := LEFT_OVER_MARK.search(line):
            yield f"{number}: {mark.group()!r} was not rendered"
    parse = PARSERS.get(path.suffix)
    if parse is not None and (problem := parse(text)):
        yield problem


def python_problem(text: str) -> str | None:
    """Why a text is not Python, as ``line: reason``."""
    try:
        ast.parse(text)
    except SyntaxError as error:
        return f"{error.lineno}: {error.msg}"
    return None


def yaml_problem(text: str) -> str | None:
    """Why a text is not YAML, as ``line: reason``."""
    try:
        for _ in yaml.safe_load_all(text):
            pass
    except yaml.MarkedYAMLError as error:
        return f"{error.problem_mark.line + 1 if error.problem_mark else 1}: {error.problem}"
    except yaml.YAMLError as error:
        return f"1: {error}"
    return None


def json_problem(text: str) -> str | None:
    """Why a text is not JSON, as ``line: reason``."""
    try:
        json.loads(text)
    except json.JSONDecodeError as error:
        return f"{error.lineno}: {error.msg}"
    return None


def toml_problem(text: str) -> str | None:
    """Why a text is not TOML, as ``line: reason``; Python 3.10 cannot tell."""
    if sys.version_info >= (3, 11):
        try:
            tomllib.loads(text)
        except tomllib.TOMLDecodeError as error:
            line = re.search(r"line (\d+)", str(error))  # absent where the text ends too early
            return f"{line.group(1) if line else len(text.splitlines())}: {error}"
    return None


PARSERS: dict[str, Callable[[str], str | None]] = {
    ".json": json_problem,
    ".py": python_problem,
    ".toml": toml_problem,
    ".yaml": yaml_problem,
    ".yml": yaml_problem,
}


def empty(folder: Path) -> None:
    """Remove everything in a folder; cookiecutter leaves it there where it existed before."""
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def template_candidates(context: Mapping[str, Any]) -> list[Path]:
    """Folders that may be the template's, the surest first.

    Cookiecutter works in the template's folder while the hook runs, which Linux shows. Elsewhere a
    relative ``_repo_dir`` is looked for from where the shell is and from the output folder.
    """
    used = context["_repo_dir"]
    return [
        Path(f"/proc/{os.getppid()}/cwd"),
        Path(os.environ.get("PWD", "/")) / used,
        Path(context["_output_dir"]) / used,
    ]


def find_origin(context: Mapping[str, Any], candidates: list[Path]) -> Origin:
    """Tell where the template is and which commit of it was rendered.

    Args:
        context: cookiecutter's own record: ``_template`` as typed, ``_repo_dir`` as used.
        candidates: folders that may be the template's.
    """
    typed, used = context["_template"], context["_repo_dir"]
    adopt = (
        f"To update this project later, write the template's git address as _src_path and the "
        f"commit that it was made from as _commit into {ANSWERS_FILE}, and commit that."
    )
    template = next((folder.resolve() for folder in candidates if is_template(folder)), None)
    if template is None:
        return Origin(advice=f"The template's folder {used} was not found again. {adopt}")
    try:
        if Path(git(template, "rev-parse", "--show-toplevel")).resolve() != template:
            return Origin(advice=f"{typed} is not a git repository of its own. {adopt}")
        if typed == used:
            address = str(template)
        else:
            address = copier_address(git(template, "config", "remote.origin.url"))
        if git(template, "status", "--porcelain", "--", *rendered_paths(template)):
            return Origin(address, advice=uncommitted_advice(typed, template))
        if release := same_release(template):
            return Origin(address, release)
        return Origin(address, git(template, "rev-parse", "HEAD"), untagged_advice(template))
    except GitError as error:
        return Origin(advice=f"The template's commit is not known: {error}. {adopt}")


def is_template(folder: Path) -> bool:
    """Whether a folder holds this template."""
    return (folder / "cookiecutter.json").is_file() and (folder / "copier.yml").is_file()


def rendered_paths(template: Path) -> list[str]:
    """The template's entries that decide what is rendered, as git's pathspecs."""
    own = [path.name for path in template.iterdir() if "cookiecutter." in path.name]
    return ["copier.yml", "hooks", *(f":(literal){name}" for name in own)]


def uncommitted_advice(typed: str, template: Path) -> str:
    """How a project made from changes that no commit holds is adopted later."""
    return (
        f"{typed} has changes that are not committed. To update this project later, write "
        f"`_commit: {git(template, 'rev-parse', 'HEAD')}` into {ANSWERS_FILE} and commit that: "
        f"the changes then count as yours."
    )


def same_release(template: Path) -> str:
    """The newest release, if it renders what the commit renders; else nothing.

    So commits that change documents or tests only do not lead past a release.
    """
    for tag in (releases(template, "--points-at") or releases(template, "--merged"))[:1]:
        try:
            git(template, "diff", "--quiet", tag, "HEAD", "--", *rendered_paths(template))
        except GitError:
            return ""
        return tag
    return ""


def untagged_advice(template: Path) -> str:
    """How a project made from a commit after the newest release is updated."""
    if releases(template, "--contains") or not releases(template, "--merged"):
        return ""
    try:
        branch = git(template, "symbolic-ref", "--short", "HEAD")
    except GitError:
        branch = "HEAD"
    return (
        "The template was rendered at a commit after its newest release: until the next one, "
        f"update with `copier update --vcs-ref={branch}`."
    )


def releases(template: Path, relation: str) -> list[str]:
    """Release tags in a relation to the rendered commit, such as ``--merged``; newest first."""
    # Else git takes 0.2.0rc1 for newer than 0.2.0.
    before = (f"versionsort.suffix={part}" for part in (".dev", "a", "b", "rc"))
    options = [word for setting in before for word in ("-c", setting)]
    tags = git(template, *options, "tag", "--sort=-version:refname", relation, "HEAD").split()
    return [tag for tag in tags if is_version(tag)]


def is_version(tag: str) -> bool:
    """Whether copier orders a tag as a version (PEP 440, the forms that releases use)."""
    return re.fullmatch(r"v?\d+(\.\d+)*((a|b|rc)\d+)?(\.post\d+)?(\.dev\d+)?", tag) is not None


def copier_address(url: str) -> str:
    """A clone's address as copier reads it, without a password or token."""
    parts = urlsplit(url)
    if parts.scheme in {"http", "https"} or parts.password:
        user = f"{parts.username}@" if parts.scheme == "ssh" and parts.username else ""
        host = parts.netloc.rpartition("@")[2]
        url = urlunsplit(parts._replace(netloc=user + host))
    if url.endswith(".git") or url.startswith(("git@", "git://", "git+")):
        return url
    return f"git+{url}"


def write_answers(project: Path, context: Mapping[str, Any], origin: Origin) -> None:
    """Append the answers and the template's origin to the answers file, in copier's own form."""
    answers = {name: value for name, value in context.items() if not name.startswith("_")}
    if origin.address:
        answers["_src_path"] = origin.address
    if origin.commit:
        answers["_commit"] = origin.commit
    text = yaml.dump(answers, indent=4, allow_unicode=True, default_flow_style=False)
    with (project / ANSWERS_FILE).open("a", encoding="utf-8", newline="\n") as file:
        file.write(text)


def first_commit(project: Path, origin: Origin, wanted: str) -> str:
    """Make a repository of the project and its first commit.

    Args:
        project: the finished project.
        origin: named in the commit's message.
        wanted: ``no`` leaves git alone.

    Returns:
        Why there is no commit, or nothing.
    """
    if wanted.lower() in {"no", "false", "0"}:
        return ""
    later = "`git init`, `git add --all` and `git commit` there make it later"
    try:
        if belongs_to_a_repository(project):
            return "No first commit: the folder belongs to a git repository already."
        git(project, "-c", f"init.defaultBranch={default_branch(project)}", "init", "--quiet")
        git(project, "add", "--all")
        try:
            git(project, "commit", "--quiet", "--message", commit_message(origin))
        except GitError:
            if knows_the_author(project):
                raise
            return (
                "No first commit: git does not know your name and address. `git commit` there "
                "makes it after `git config --global user.name NAME` and `user.email ADDRESS`."
            )
    except GitError as error:
        return f"No first commit: {error}. {later}."
    return ""


def knows_the_author(project: Path) -> bool:
    """Whether git finds a name and an address to commit with."""
    try:
        git(project, "var", "GIT_AUTHOR_IDENT")
        git(project, "var", "GIT_COMMITTER_IDENT")
    except GitError:
        return False
    return True


def belongs_to_a_repository(project: Path) -> bool:
    """Whether an outer repository would take the project in; an ignored folder is on its own."""
    try:
        git(project, "rev-parse", "--show-toplevel")
    except GitError as error:
        if "not a git repository" in str(error):
            return False
        raise
    try:
        git(project, "check-ignore", "--quiet", str(project))
    except GitError:
        return True
    return False


def default_branch(project: Path) -> str:
    """The branch that the user wants for new repositories, else main."""
    try:
        return git(project, "config", "init.defaultBranch")
    except GitError:
        return "main"


def commit_message(origin: Origin) -> str:
    """The first commit's message."""
    return (
        f"Start from the template at {origin.commit}" if origin.commit else "Start from a template"
    )


def git(folder: Path, *arguments: str) -> str:
    """Run git and give its output, stripped.

    Raises:
        GitError: git is missing or failed; with the reason that it gave.
    """
    environment = {k: v for k, v in os.environ.items() if k not in GIT_LOCATIONS}
    try:
        result = subprocess.run(
            ["git", *arguments],
            cwd=folder,
            env={**environment, "LC_ALL": "C"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
    except FileNotFoundError as error:
        raise GitError("git is not installed") from error
    if result.returncode != 0:
        reason = re.search(r"^(?:fatal|error): (.+)", result.stderr, re.MULTILINE)
        raise GitError(reason.group(1) if reason else f"`git {' '.join(arguments)}` failed")
    return result.stdout.strip()


def farewell(project: Path, python: str, notes: list[str]) -> str:
    """What to tell the user at the end: notes, then the three next commands."""
    commands = f"""{project} is ready. Next:

    cd {shlex.quote(str(project))}
    make demo
    make test

It needs Python {python} or newer. Where python3 is older: make setup PYTHON=python{python}
"""
    return "\n".join(["", *filter(None, notes), commands])


if __name__ == "__main__":
    sys.exit(main())

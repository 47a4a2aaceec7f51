"""Give the project another name, everywhere: ``make rename NAME="Your Own Name"``.

Replaces the names in every text file that git knows and in the files' own names, and writes the
answers from which ``copier update`` renders later versions of the template. Names that the project
had earlier in its history count as old names too: run again with the same name after a merge, it
renames what the merge brought in.

Git of this clone then merges with this file as its merge driver: a file of the upstream is read
under the project's own names, so that renamed lines are no conflict.
"""

from __future__ import annotations

import argparse
import keyword
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

ANSWERS_FILE = ".copier-answers.yml"
LONGEST_NAME = 30
SLUG = rf"(?=.{{1,{LONGEST_NAME}}}\Z)[a-z][a-z0-9]*(-[a-z0-9]+)*"
# A match of this breaks a TOML or YAML string, a line, or a later rendering of the template.
UNSAFE = r'["\\\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff\ufeff\ufffe\uffff]|[<][%#<]|^\s|\s\Z'
DEVICES = "aux con nul prn " + " ".join(f"com{n} lpt{n}" for n in range(10))
PROGRAMS_AND_FOLDERS = "activate build conftest dist pip pip3 python python3 src test tests"


# Where the environment or this file is missing, an ordinary merge: git takes any other end of a
# driver for a conflict in which only our side is left.
MERGE_DRIVER = (
    "test -f scripts/rename.py && .venv/bin/python -c 'import yaml' 2>/dev/null "
    "&& exec .venv/bin/python scripts/rename.py --merge %O %A %B --marker-size %L; "
    "exec git merge-file --marker-size=%L -L ours -L base -L theirs %A %O %B"
)
# Lines whose names stay: where the models of before are, and whatever says so.
KEPT = re.compile(r"^[^#`]*\bML_MODEL_NAME *[=:]|\brename: keep\b")
GIT_SETTINGS = {
    "merge.own-names.name": "merge under this project's own names",
    "merge.own-names.driver": MERGE_DRIVER,
    "merge.default": "own-names",
    "merge.directoryRenames": "true",  # files that are new upstream come into the renamed folder
}


class RenameError(Exception):
    """The project cannot be renamed; the message says why and what to do."""


@dataclass(frozen=True)
class Names:
    """What a project is called.

    Attributes:
        project_name: the name for people.
        project_slug: of the folder, the distribution and the command.
        package_name: of the Python package.
    """

    project_name: str
    project_slug: str
    package_name: str


def main() -> int:
    """Rename the project that this file belongs to; 2 and the reason where that cannot be done."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", nargs="?", default="", help="the new name, for people")
    parser.add_argument("--slug", default="", help="the distribution's name; default: from name")
    parser.add_argument("--merge", nargs=3, type=Path, metavar=("BASE", "OURS", "THEIRS"))
    parser.add_argument("--marker-size", type=int, default=7, help="of conflicts in a merge")
    arguments = parser.parse_args()
    project = Path(__file__).resolve().parents[1]
    try:
        if arguments.merge:
            base, ours, theirs = arguments.merge
            return merge(project, base, ours, theirs, arguments.marker_size)
        rename(project, arguments.name, arguments.slug)
    except RenameError as error:
        print(f"nothing was renamed: {error}", file=sys.stderr)
        return 2
    return 0


def rename(project: Path, name: str, slug: str) -> None:
    """Rename a project and print what changed.

    Raises:
        RenameError: the name, the work tree or the present name does not allow it.
    """
    require_clean_tree(project)
    history = names_in_history(project)
    old, new = history[0], new_names(history[0], name, slug)
    if problem := refusal(new, history, reserved_words(project)):
        raise RenameError(problem)
    words = replacements(history, new)
    moves = file_moves(project, words)
    changed = rewrite_files(project, words)
    move_files(project, moves)
    write_answers(project, new)
    forget_installation(project, {names.project_slug for names in history} - {new.project_slug})
    for setting, value in GIT_SETTINGS.items():
        git(project, "config", setting, value)
    print(f"{old.project_name} is now {new.project_name}")
    print(f"  package  src/{new.package_name}\n  command  {new.project_slug}")
    print(f"  files    {changed} changed, {len(moves)} moved")
    if old.package_name != new.package_name:
        model = old.package_name.replace("_", "-")
        print(f"  models registered so far stay under {model}: ML_MODEL_NAME={model} keeps them")


def require_clean_tree(project: Path) -> None:
    """Make sure that the change can be looked at, and undone, by git alone.

    Raises:
        RenameError: the project is no repository of its own or has changes.
    """
    if not (project / ".git").exists():
        raise RenameError(
            f"{project} is no git repository, which would show and undo the change; "
            "`git init`, `git add --all` and `git commit` make one"
        )
    if changes := git(project, "status", "--porcelain"):
        raise RenameError(f"there are changes that are not committed:\n{changes}commit them first")


def names_in_history(project: Path) -> list[Names]:
    """The names that the project has, then those that it or its upstream had before.

    Raises:
        RenameError: the answers file holds no names.
    """
    every = ("--full-history", "--diff-filter=AM", "--format=%H")
    listing = git(project, "log", *every, "--", ANSWERS_FILE)
    texts = [
        (project / ANSWERS_FILE).read_text(encoding="utf-8"),
        *(git(project, "show", f"{commit}:{ANSWERS_FILE}") for commit in listing.split()),
    ]
    found: dict[Names, None] = {}
    for text in texts:
        answers = yaml.safe_load(text)
        try:
            found[Names(*(str(answers[name]) for name in Names.__dataclass_fields__))] = None
        except (KeyError, TypeError) as error:
            if not found:
                raise RenameError(
                    f"{ANSWERS_FILE} does not hold the names ({error}): restore it from git"
                ) from None
    return list(found)


def new_names(old: Names, name: str, slug: str) -> Names:
    """The names that follow from one; a project keeps its own where the name stays the same."""
    if name == old.project_name and slug in {"", old.project_slug}:
        return old
    if not slug:
        kept = [c for c in re.sub(r"[-_]", " ", name.lower()) if re.fullmatch("[a-z0-9 ]", c)]
        slug = "-".join("".join(kept).split())[:LONGEST_NAME].rstrip("-")
    return Names(name, slug, slug.replace("-", "_"))


def refusal(new: Names, history: list[Names], reserved: set[str]) -> str:
    """Why a name is not taken, or nothing."""
    old = history[0]
    if not new.project_name or re.search(UNSAFE, new.project_name):
        return (
            f"the name {new.project_name!r} has to be one line of text without double quotes, "
            "backslashes, control characters, spaces at its ends, or a < right before <, % or #; "
            "for example: Your Own Name"
        )
    if new == old:
        return ""
    if re.fullmatch(SLUG, new.project_slug) is None:
        return (
            f"the slug {new.project_slug!r} has to be lower-case letters and digits in words "
            f"joined by single hyphens, a letter first, at most {LONGEST_NAME} characters; give "
            "one beside the name, for example: SLUG=your-own-name"
        )
    own = {word for names in history for word in asdict(names).values()}
    if new.package_name in reserved - {as_module(word) for word in own}:
        return (
            f"the slug {new.project_slug!r} is the name of a Python keyword, a standard module, a "
            "dependency or a device; give another, for example: SLUG=your-own-name"
        )
    for word in asdict(old).values():
        if not re.search(r"[\W_]", word):
            return (
                f"{word!r} is one word, which may stand in ordinary text too, so where it is the "
                f"project's name cannot be told; `git grep --word-regexp {word}` lists the places"
            )
    return ""


def reserved_words(project: Path) -> set[str]:
    """Modules, distributions and commands that a package of the same name would hide."""
    beside_tests = {path.stem for path in (project / "tests").iterdir()}
    installed = {*metadata.packages_distributions()}
    for distribution in metadata.distributions():
        commands = distribution.entry_points.select(group="console_scripts")
        installed |= {distribution.name, *(command.name for command in commands)}
    words = {*keyword.kwlist, *keyword.softkwlist, *sys.stdlib_module_names}
    words |= installed | beside_tests
    return {as_module(word) for word in words} | set(f"{DEVICES} {PROGRAMS_AND_FOLDERS}".split())


def as_module(word: str) -> str:
    """A name as a package's name would be written."""
    return re.sub(r"[-.]", "_", word.lower())


def replacements(history: list[Names], new: Names) -> dict[str, str]:
    """What replaces each old name; new names stand for themselves.

    An old name of a single word is left where it is: it may be ordinary text.
    """
    words: dict[str, str] = {}
    for old in history:
        words[old.project_name] = new.project_name
        words[old.package_name.replace("_", "-")] = new.project_slug
        words[old.project_slug] = new.project_slug
        words[old.package_name] = new.package_name
    words = {old: text for old, text in words.items() if re.search(r"[\W_]", old)}
    return words | {word: word for word in asdict(new).values()}


def replaced(text: str, words: Mapping[str, str]) -> str:
    """A text with every name replaced, wherever no letter or digit is next to it."""
    names = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
    name = re.compile(rf"(?<![^\W_])(?:{names})(?![^\W_])")
    return "".join(
        line if KEPT.search(line) else name.sub(lambda found: words[found[0]], line)
        for line in re.split(r"(?<=\n)", text)
    )


def tracked_files(project: Path) -> list[str]:
    """The names of the files in git, links and submodules aside."""
    names = git(project, "ls-files", "-z").split("\0")
    paths = {name: project / name for name in names if name}
    return [name for name, path in paths.items() if path.is_file() and not path.is_symlink()]


def file_moves(project: Path, words: Mapping[str, str]) -> dict[str, str]:
    """The new name of each file whose name changes.

    Raises:
        RenameError: a file of the new name is there already.
    """
    names = {name: replaced(name, words) for name in tracked_files(project)}
    moves = {old: new for old, new in names.items() if old != new}
    if there := [new for new in moves.values() if (project / new).exists()]:
        raise RenameError(f"{there[0]} is there already: move it out of the way")
    return moves


def rewrite_files(project: Path, words: Mapping[str, str]) -> int:
    """Replace the names in every text file; gives how many changed."""
    changed = 0
    for name in tracked_files(project):
        path = project / name
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue
        if name != ANSWERS_FILE and (new := replaced(text, words)) != text:
            path.write_bytes(new.encode("utf-8"))
            changed += 1
    return changed


def move_files(project: Path, moves: Mapping[str, str]) -> None:
    """Move files by git, and remove folders of which only compiled modules are left."""
    for old, new in moves.items():
        (project / new).parent.mkdir(parents=True, exist_ok=True)
        git(project, "mv", "--", old, new)
    left = {folder for old in moves for folder in (project / old).parents if folder != project}
    for folder in sorted(left, reverse=True):
        shutil.rmtree(folder / "__pycache__", ignore_errors=True)
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def write_answers(project: Path, new: Names) -> None:
    """Write the names into the answers file, in copier's own form."""
    path = project / ANSWERS_FILE
    text = path.read_text(encoding="utf-8")
    comments = [line for line in text.splitlines(keepends=True) if line.startswith("#")]
    answers: dict[str, Any] = {**yaml.safe_load(text), **asdict(new)}
    dumped = yaml.dump(answers, indent=4, allow_unicode=True, default_flow_style=False)
    path.write_text("".join(comments) + dumped, encoding="utf-8", newline="\n")


def forget_installation(project: Path, slugs: set[str]) -> None:
    """Take the project out of this environment under its old names."""
    installed = {as_module(distribution.name) for distribution in metadata.distributions()}
    for slug in slugs:
        shutil.rmtree(project / "src" / f"{as_module(slug)}.egg-info", ignore_errors=True)
        if as_module(slug) in installed:
            uninstall = (sys.executable, "-m", "uv", "pip", "uninstall", "--quiet")
            subprocess.run([*uninstall, "--python", sys.executable, slug], check=True)


def merge(project: Path, base: Path, ours: Path, theirs: Path, marker_size: int) -> int:
    """Merge one file as git's merge driver: the result goes into ``ours``.

    Returns:
        0 for a clean merge, 1 to 127 for conflicts, more for an error.
    """
    try:
        history = names_in_history(project)
        words, renamed = replacements(history, history[0]), (base, theirs)
    except (RenameError, OSError, yaml.YAMLError) as error:
        print(f"merged without this project's names: {error}", file=sys.stderr)
        words, renamed = {}, ()
    for path in renamed:
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            return 1  # as git does with a binary file: ours stays, and it is a conflict
        path.write_bytes(replaced(text, words).encode("utf-8"))
    labels = ("-L", "ours", "-L", "base", "-L", "theirs")
    merging = ["git", "merge-file", f"--marker-size={marker_size}", *labels]
    return subprocess.run([*merging, ours, base, theirs], check=False).returncode


def git(project: Path, *arguments: str) -> str:
    """Run git in the project and give its output.

    Raises:
        RenameError: git failed; with what it said.
    """
    words = ["git", "-c", "core.quotePath=off", *arguments]
    result = subprocess.run(words, cwd=project, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise RenameError(f"`git {' '.join(arguments)}` failed: {result.stderr.strip()}")
    return result.stdout


if __name__ == "__main__":
    sys.exit(main())

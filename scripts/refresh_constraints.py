"""Pin what the template and its projects install, and reserve the names that it brings.

Writes three things: constraints.txt of the template's own tools; constraints.txt of the rendered
project, for every supported Python and both trackers; and the words of hooks/pre_gen_project.py
that no project may be named. Pins stay as they are unless --upgrade is given. What changed in the
pins is printed, and what changed for projects is written into CHANGELOG.md.
"""

from __future__ import annotations

import argparse
import json
import keyword
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import jinja2

from copier_questions import ROOT, visible  # isort: split

import pre_gen_project  # found through copier_questions, which puts the hooks on the path

TEMPLATE = ROOT / "<<cookiecutter.project_slug>>"
HOOK = ROOT / "hooks" / "pre_gen_project.py"
CHANGELOG = ROOT / "CHANGELOG.md"
PIN_FILES = {
    "the template's tools": ROOT / "constraints.txt",
    "projects": TEMPLATE / "constraints.txt",
}
OLDEST_PYTHON = "3.10"
ONLY_WANDB = ('<%- if cookiecutter.tracker == "wandb" %>', "<%- endif %>")

# Standard modules that newer or older Pythons have than the one that runs this.
OTHER_STANDARD_MODULES = "annotationlib asynchat asyncore compression distutils imp smtpd tomllib"
DEVICES = "aux con nul prn " + " ".join(f"com{n} lpt{n}" for n in range(10))
FOLDERS_AND_PROGRAMS = "activate build conftest dist src test tests"
OF_EVERY_ENVIRONMENT = "pip pip3 pkg_resources python python3 setuptools wheel"

LIST_NAMES = """
import importlib.metadata as metadata
print(*metadata.packages_distributions())
print(*(distribution.name for distribution in metadata.distributions()))
print(*(point.name for point in metadata.entry_points(group="console_scripts")))
"""


def main() -> int:
    """Write the files."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions")
    upgrade = ["--upgrade"] if parser.parse_args().upgrade else []
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    before = {path: path.read_text(encoding="utf-8") for path in PIN_FILES.values()}

    resolve(ROOT / "pyproject.toml", ROOT / "constraints.txt", "--group", "dev", *upgrade)

    with tempfile.TemporaryDirectory() as scratch:
        pins, requirements = resolve_project(Path(scratch), definition, upgrade)
        (TEMPLATE / "constraints.txt").write_text(pins, encoding="utf-8")
        installed = installed_names(Path(scratch), requirements)
    words = reserved_words([*installed, *pinned_names(pins), *modules_beside_tests()])
    HOOK.write_text(with_words(HOOK.read_text(encoding="utf-8"), words), encoding="utf-8")
    report(before)
    return 0


def report(before: Mapping[Path, str]) -> None:
    """Print what changed in the pins, and write what changed for projects into the changelog."""
    for whose, path in PIN_FILES.items():
        changed = changes(before[path], path.read_text(encoding="utf-8"))
        print(f"Pins of {whose}: {', '.join(changed) or 'no change'}.")
        if changed and whose == "projects":
            entry = f"- Pinned versions of projects: {', '.join(changed)}."
            text = CHANGELOG.read_text(encoding="utf-8")
            CHANGELOG.write_text(with_entry(text, entry), encoding="utf-8")


def changes(before: str, after: str) -> list[str]:
    """What differs between two texts of constraints, such as ``numpy 2.3.0 → 2.4.0``."""
    old, new = pinned_versions(before), pinned_versions(after)
    return [
        f"{name} {old.get(name, '(new)')} → {new.get(name, '(gone)')}"
        for name in sorted(old.keys() | new.keys())
        if old.get(name) != new.get(name)
    ]


def pinned_versions(pins: str) -> dict[str, str]:
    """The version of each distribution; several where Pythons differ."""
    versions: dict[str, list[str]] = {}
    for line in pins.splitlines():
        name, equals, rest = line.partition("==")
        if equals and line not in ONLY_WANDB:
            versions.setdefault(name, []).append(rest.split()[0])
    return {name: " and ".join(dict.fromkeys(found)) for name, found in versions.items()}


def with_entry(changelog: str, entry: str) -> str:
    """A changelog with one more entry among the changes that are not released.

    Raises:
        ValueError: it has no section for them.
    """
    head = "## [Unreleased]\n"
    if head not in changelog:
        raise ValueError(
            f"{CHANGELOG.name} has no line {head.strip()}: put it on top of the versions"
        )
    start = changelog.index(head) + len(head)
    end = changelog.find("\n## [", start)
    end = len(changelog) if end == -1 else end
    section = changelog[start:end]
    if "### Changed\n\n" in section:
        section = section.replace("### Changed\n\n", f"### Changed\n\n{entry}\n", 1)
    else:
        section = f"{section.rstrip()}\n\n### Changed\n\n{entry}\n".lstrip("\n")
        section = f"\n{section}"
    return changelog[:start] + section + changelog[end:]


def resolve_project(
    scratch: Path, definition: Mapping[str, Any], upgrade: Iterable[str]
) -> tuple[str, Path]:
    """Pin every extra of a project, with both trackers.

    Returns:
        the template's constraints.txt, and a rendered pyproject.toml that they hold for.
    """
    wandb, mlflow = scratch / "wandb", scratch / "mlflow"
    for folder in (wandb, mlflow):
        folder.mkdir()
        answers = default_answers(definition) | {
            "python_version": OLDEST_PYTHON,
            "tracker": folder.name,
        }
        for name in ("pyproject.toml", "constraints.txt"):
            text = render(TEMPLATE / name, definition, answers)
            (folder / name).write_text(text, encoding="utf-8")
    everything = resolve(
        wandb / "pyproject.toml", wandb / "constraints.txt", "--all-extras", *upgrade
    )
    without_wandb = resolve(
        mlflow / "pyproject.toml",
        scratch / "without-wandb.txt",
        "--all-extras",
        "--constraint",
        str(wandb / "constraints.txt"),
    )
    return merge(everything, without_wandb), wandb / "pyproject.toml"


def default_answers(definition: Mapping[str, Any]) -> dict[str, str]:
    """The answers of a project whose questions were all answered with the return key."""
    answers: dict[str, str] = {}
    for name in visible(definition):
        value = definition[name]
        text = value[0] if isinstance(value, list) else value
        answers[name] = marks(definition).from_string(text).render(cookiecutter=answers)
    return answers


def render(path: Path, definition: Mapping[str, Any], answers: Mapping[str, str]) -> str:
    """A template's file as text."""
    template = marks(definition).from_string(path.read_text(encoding="utf-8"))
    return template.render(cookiecutter=answers)


def marks(definition: Mapping[str, Any]) -> jinja2.Environment:
    """Jinja as the generators use it."""
    return jinja2.Environment(
        **definition["_jinja2_env_vars"],
        undefined=jinja2.StrictUndefined,
        keep_trailing_newline=True,
        autoescape=False,  # noqa: S701 - no HTML is rendered
    )


def resolve(requirements: Path, output: Path, *options: str) -> list[str]:
    """Pin requirements for every supported Python; pins that the output holds already stay.

    Returns:
        lines such as ``numpy==2.4.0 ; python_full_version >= '3.11'``, sorted by name.
    """
    uv(
        *("pip", "compile", "--quiet", "--universal", "--python-version", OLDEST_PYTHON),
        *("--no-header", "--no-annotate", "--no-emit-index-url", "--no-emit-find-links"),
        *("--output-file", str(output), *options, str(requirements)),
    )
    return output.read_text(encoding="utf-8").splitlines()


def merge(everything: list[str], without_wandb: list[str]) -> str:
    """Mark the pins that only a project with W&B needs, so that others do not hold them."""
    shared = {pinned_name(line) for line in without_wandb}
    lines: list[str] = []
    inside = False
    for line in everything:
        only_wandb = pinned_name(line) not in shared
        if only_wandb != inside:
            lines.append(ONLY_WANDB[0] if only_wandb else ONLY_WANDB[1])
            inside = only_wandb
        lines.append(line)
    if inside:
        lines.append(ONLY_WANDB[1])
    return "\n".join(lines) + "\n"


def pinned_name(line: str) -> str:
    """The distribution's name in a line of constraints."""
    return line.partition("==")[0]


def pinned_names(pins: str) -> list[str]:
    """The distributions' names in a text of constraints."""
    return [pinned_name(line) for line in pins.splitlines() if line not in ONLY_WANDB]


def installed_names(scratch: Path, requirements: Path) -> list[str]:
    """Install a project's requirements and list their modules, distributions and commands."""
    environment = scratch / "environment"
    python = str(environment / "bin" / "python")
    uv("venv", "--quiet", "--python", sys.executable, str(environment))
    constraints = str(requirements.with_name("constraints.txt"))
    uv(
        *("pip", "install", "--quiet", "--python", python, "--constraint", constraints),
        *("--all-extras", "--requirements", str(requirements)),
    )
    listing = subprocess.run([python, "-c", LIST_NAMES], capture_output=True, text=True, check=True)
    return listing.stdout.split()


def modules_beside_tests() -> list[str]:
    """The modules and folders beside the rendered project's tests, which import them by name."""
    names = [path.stem for path in (TEMPLATE / "tests").iterdir()]
    return [name for name in names if not name.startswith("test_")]


def reserved_words(names: Iterable[str]) -> list[str]:
    """Every word that a project's package, distribution or command must not be called."""
    words = {
        *pre_gen_project.RESERVED,
        *keyword.kwlist,
        *keyword.softkwlist,
        *sys.stdlib_module_names,
        *f"{OTHER_STANDARD_MODULES} {DEVICES}".split(),
        *f"{FOLDERS_AND_PROGRAMS} {OF_EVERY_ENVIRONMENT}".split(),
        *names,
    }
    as_answers = (re.sub(r"[-.]", "_", word.lower()) for word in words)
    package = pre_gen_project.RULES["package_name"].accepts
    return sorted({word for word in as_answers if re.fullmatch(package, word)})


def with_words(hook: str, words: Iterable[str]) -> str:
    """The hook's source with other reserved words."""
    lines = [""]
    for word in words:
        if len(lines[-1]) + 1 + len(word) > 100:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".lstrip()
    text = "\n".join(lines)
    return re.sub(
        r'(?<=^RESERVED_WORDS = """\n).*?(?=^""")',
        f"{text}\n",
        hook,
        flags=re.DOTALL | re.MULTILINE,
    )


def uv(*arguments: str) -> None:
    """Run uv of this environment."""
    subprocess.run([sys.executable, "-m", "uv", *arguments], check=True)


if __name__ == "__main__":
    sys.exit(main())

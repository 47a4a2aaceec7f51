"""Write copier.yml: the questions of cookiecutter.json with the rules of hooks/pre_gen_project.py.

Run by `make questions` after either of them has changed; a test compares.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "hooks"))

import pre_gen_project  # noqa: E402 - the hooks are files of their own, in no package

HEADER = "# Written by scripts/copier_questions.py (`make questions`); do not edit by hand.\n"


class _Dumper(yaml.SafeDumper):
    """Writes texts of several lines as blocks."""


def _represent_text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def main() -> int:
    """Write the file."""
    (ROOT / "copier.yml").write_text(copier_yml(), encoding="utf-8")
    return 0


def copier_yml() -> str:
    """The text of copier.yml."""
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    blocks = [settings(definition), {"reserved": reserved_words()}]
    blocks += [{name: question(name, definition)} for name in visible(definition)]
    blocks.append({"cookiecutter": namespace(definition)})
    return HEADER + "".join(
        "\n" + yaml.dump(block, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
        for block in blocks
    )


def visible(definition: Mapping[str, Any]) -> list[str]:
    """The names of the questions that a person is asked."""
    return [name for name in definition if not name.startswith("_")]


def settings(definition: dict[str, Any]) -> dict[str, Any]:
    """How copier renders: the same marks and the same tree as cookiecutter, and nothing trusted."""
    return {
        "_min_copier_version": "9.16.0",
        "_subdirectory": "<% raw %><<cookiecutter.project_slug>><% endraw %>",
        "_templates_suffix": "",
        "_envops": {**definition["_jinja2_env_vars"], "undefined": "jinja2.StrictUndefined"},
        "_exclude": [
            f"<% if tracker != {owner!r} %>{pattern}<% endif %>"
            for owner, patterns in definition["_tracker_files"].items()
            for pattern in patterns
        ],
        "_message_after_copy": (
            "<< _copier_conf.dst_path >> is ready. Next, in that folder:\n\n"
            "    make demo\n"
            "    make test\n"
            "    git init && git add --all && git commit    (`copier update` needs a repository)\n"
            "\nIt needs Python << python_version >> or newer. Where python3 is older: "
            "make setup PYTHON=python<< python_version >>\n"
        ),
        "_message_after_update": (
            "Read `git status` before you commit. U marks conflicts. D marks what the template has "
            "no longer,\nfiles that you had changed among them:\n\n"
            "    git diff --diff-filter=D --name-only    (lists them)\n"
            "    git checkout HEAD -- FILE               (brings one back as you had it)\n"
        ),
    }


def reserved_words() -> dict[str, Any]:
    """A hidden question: the words that names must not be."""
    words = " ".join(sorted(pre_gen_project.RESERVED))
    return {"type": "str", "when": False, "default": words}


def question(name: str, definition: dict[str, Any]) -> dict[str, Any]:
    """One question with its help, default, and choices or validator."""
    prompt, value = definition["__prompts__"][name], definition[name]
    if isinstance(value, list):
        choices = {prompt[choice]: choice for choice in value}
        return {
            "type": "str",
            "help": prompt["__prompt__"],
            "choices": choices,
            "default": value[0],
        }
    return {
        "type": "str",
        "help": prompt,
        "default": re.sub(r"\bcookiecutter\.", "", value),
        "validator": validator(name, pre_gen_project.RULES[name]),
    }


def validator(name: str, rule: pre_gen_project.Rule) -> str:
    """A rule of the hook as copier's validator, which renders to the reason of a refusal."""
    accepts = rf"\A(?:{rule.accepts})\Z"
    conditions = [f"{name} | regex_search({jinja_text(accepts)}) is none"]
    if rule.refuses:
        conditions.append(f"{name} | regex_search({jinja_text(rule.refuses)}) is not none")
    if rule.reserved:
        conditions.append(f"{name} | replace('-', '_') in reserved.split()")
    return (
        f"<% if {chr(10).join(f'or {condition}' for condition in conditions)[3:]} %>\n"
        f'<< "%r" | format({name}) >> is refused. It has to be {rule.text}; '
        f"for example: {rule.example}\n"
        "<% endif %>\n"
    )


def jinja_text(text: str) -> str:
    """A text as a Jinja literal."""
    return json.dumps(text)


def namespace(definition: dict[str, Any]) -> dict[str, Any]:
    """A hidden question that gives the template's files the names that cookiecutter gives them."""
    pairs = ", ".join(f"{name!r}: {name}" for name in visible(definition))
    return {"type": "json", "when": False, "default": f"<< {{{pairs}}} | tojson >>"}


if __name__ == "__main__":
    sys.exit(main())

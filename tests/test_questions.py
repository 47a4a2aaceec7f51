"""One definition of the questions: cookiecutter.json, the hook's rules and copier.yml agree."""

from __future__ import annotations

import yaml

import copier_questions
import pre_gen_project
from copier_questions import visible
from projects import ROOT

DEFINITION = yaml.safe_load((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
COPIER = yaml.safe_load((ROOT / "copier.yml").read_text(encoding="utf-8"))


def test_copier_yml_is_what_the_script_writes() -> None:
    written = (ROOT / "copier.yml").read_text(encoding="utf-8")
    assert written == copier_questions.copier_yml(), "run `make questions`"


def test_every_question_has_a_prompt_and_a_rule_or_choices() -> None:
    choices = {name for name in visible(DEFINITION) if isinstance(DEFINITION[name], list)}
    assert list(DEFINITION["__prompts__"]) == visible(DEFINITION)
    assert set(pre_gen_project.RULES) == set(visible(DEFINITION)) - choices
    assert {name: list(pre_gen_project.CHOICES[name]) for name in pre_gen_project.CHOICES} == {
        name: DEFINITION[name] for name in choices
    }


def test_copier_needs_no_trust() -> None:
    for setting in ("_tasks", "_migrations", "_jinja_extensions"):
        assert setting not in COPIER


def test_the_examples_keep_their_rules() -> None:
    for rule in pre_gen_project.RULES.values():
        assert pre_gen_project.passes(rule, rule.example)


FURTHER_FILES = {"wandb": {"src/*/cli/registry_link.py"}}


def test_each_tracker_owns_a_module_and_its_test() -> None:
    assert set(DEFINITION["_tracker_files"]) == set(DEFINITION["tracker"])
    for tracker, patterns in DEFINITION["_tracker_files"].items():
        owned = {f"src/*/tracking/{tracker}.py", f"tests/tracking/test_{tracker}.py"}
        assert set(patterns) == owned | FURTHER_FILES.get(tracker, set())

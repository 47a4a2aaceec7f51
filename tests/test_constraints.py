"""The script that pins versions: its pure parts, and that pins and reserved words are in step."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

import pre_gen_project
import refresh_constraints
from projects import ROOT


def test_pins_that_only_wandb_needs_are_marked() -> None:
    everything = ["a==1", "sdk==2", "wandb==3", "x==1 ; python_version < '3.11'", "z==9"]
    begin, end = refresh_constraints.ONLY_WANDB
    assert refresh_constraints.merge(everything, ["a==1", "x==1 ; python_version < '3.11'"]) == (
        f"a==1\n{begin}\nsdk==2\nwandb==3\n{end}\n"
        f"x==1 ; python_version < '3.11'\n{begin}\nz==9\n{end}\n"
    )


def test_every_pinned_distribution_is_reserved() -> None:
    pins = (refresh_constraints.TEMPLATE / "constraints.txt").read_text(encoding="utf-8")
    names = {name.replace("-", "_") for name in refresh_constraints.pinned_names(pins)}
    short = {name for name in names if len(name) <= pre_gen_project.LONGEST_NAME}
    assert {"wandb", "mlflow", "scikit_learn"} <= short
    assert short <= pre_gen_project.RESERVED, "run scripts/refresh_constraints.py"


def test_words_are_added_and_never_taken_away() -> None:
    words = refresh_constraints.reserved_words(["Some-New.Name", "_private", "2fast", "test_cli"])
    assert {"some_new_name", "test_cli"} == set(words) - pre_gen_project.RESERVED
    assert set(words) >= pre_gen_project.RESERVED


def test_changed_pins_are_told() -> None:
    begin, end = refresh_constraints.ONLY_WANDB
    before = "a==1\nb==1 ; python_version < '3.11'\nb==2 ; python_version >= '3.11'\nc==3\n"
    after = f"a==1\nb==2\n{begin}\nd==1.0 ; python_version < '3.11'\n{end}\n"
    assert refresh_constraints.changes(before, after) == [
        "b 1 and 2 → 2",
        "c 3 → (gone)",
        "d (new) → 1.0",
    ]
    assert refresh_constraints.changes(before, before) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "\n### Changed\n\n- New.\n"),
        ("\n### Added\n\n- A.\n", "\n### Added\n\n- A.\n\n### Changed\n\n- New.\n"),
        ("\n### Changed\n\n- Old.\n", "\n### Changed\n\n- New.\n- Old.\n"),
    ],
)
def test_an_entry_is_added_to_what_is_not_released(before: str, after: str) -> None:
    text = "# Changelog\n\n## [Unreleased]\n{}\n## [0.1.0] - 2026-11-23\n\n### Changed\n\n- X.\n"
    assert refresh_constraints.with_entry(text.format(before), "- New.") == text.format(after)


def test_an_entry_needs_the_section() -> None:
    with pytest.raises(ValueError, match="has no line ## \\[Unreleased\\]"):
        refresh_constraints.with_entry("# Changelog\n", "- New.")


def test_changed_pins_of_projects_reach_the_changelog(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    changelog, tools, projects = (tmp_path / name for name in ("CHANGELOG.md", "tools", "projects"))
    changelog.write_text("## [Unreleased]\n", encoding="utf-8")
    for path in (tools, projects):
        path.write_text("a==2\n", encoding="utf-8")
    monkeypatch.setattr(refresh_constraints, "CHANGELOG", changelog)
    monkeypatch.setattr(refresh_constraints, "PIN_FILES", {"tools": tools, "projects": projects})
    refresh_constraints.report({tools: "a==2\n", projects: "a==1\n"})
    assert capsys.readouterr().out == "Pins of tools: no change.\nPins of projects: a 1 → 2.\n"
    assert changelog.read_text(encoding="utf-8").endswith(
        "- Pinned versions of projects: a 1 → 2.\n"
    )


def test_standard_modules_are_reserved() -> None:
    public = {name.lower() for name in sys.stdlib_module_names if not name.startswith("_")}
    assert public <= pre_gen_project.RESERVED


def test_modules_beside_the_projects_tests_are_reserved() -> None:
    found = {name.lstrip("_") for name in refresh_constraints.modules_beside_tests()}
    assert found - {"init__"} <= pre_gen_project.RESERVED


def test_the_words_are_written_where_they_are_read() -> None:
    source = (ROOT / "hooks" / "pre_gen_project.py").read_text(encoding="utf-8")
    changed = refresh_constraints.with_words(source, ["one", "two"])
    assert 'RESERVED_WORDS = """\none two\n"""\n' in changed
    words = sorted(pre_gen_project.RESERVED)
    assert refresh_constraints.with_words(changed, words) == source


def test_the_default_answers_are_those_of_an_untouched_prompt() -> None:
    definition = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    answers = refresh_constraints.default_answers(definition)
    assert answers["project_slug"] == "purchase-prediction"
    assert answers["package_name"] == "purchase_prediction"
    assert answers["tracker"] == "mlflow"

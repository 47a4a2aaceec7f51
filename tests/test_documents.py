"""What the documents say is so: their commands run, their links lead somewhere, one version."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
import yaml

from histories import living_project
from lint_template import TEMPLATE_NAME
from processes import git, run
from projects import BIN, ROOT, RenderedProject, snapshot
from test_project_pages import PAGES

if sys.version_info >= (3, 11):
    import tomllib

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Commands that another test runs, by the test that does.
RUN_ELSEWHERE = {
    "make demo": "test_rendered_suites.py: both trackers, in a fresh clone",
    "make test": "this very run",
    "make release VERSION=0.2.0": "test_release.py",
    'make release VERSION=0.2.0 TESTED="$(git rev-parse HEAD)"': "test_release.py",
}
# Pages whose commands another test runs from top to bottom, by the test that does.
RUN_AS_A_WHOLE = {"forking.md": "test_fork.py: test_the_page_on_forking_runs_from_top_to_bottom"}
# Commands that no test runs, with the reason.
NOT_RUN = {
    "pipx install cookiecutter": "installs for the user; the tests have their own",
    "pipx install copier": "installs for the user; the tests have their own",
    'copier copy "$PWD/ml-template" shop-returns': "asks on a terminal; run with --defaults",
    "make refresh": "takes what is newest on that day; test_constraints.py tests its parts",
}


def clone_of_the_template(folder: Path) -> Path:
    """Where most pages start: beside a clone of the template."""
    snapshot(folder / "ml-template")
    return folder


# Where the commands of a page start, if elsewhere: takes seconds, so one of its blocks stands for
# the page, and the others are long tests.
SCENES = {"updating.md": living_project}
EACH_TIME = "updating.md-2"


def blocks(document: Path) -> list[list[str]]:
    """The commands of each shell block of a document."""
    text = document.read_text(encoding="utf-8")
    found = re.findall(r"^```(?:bash|sh|shell|console)\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [block.splitlines() for block in found]


BLOCKS = {
    f"{document.name}-{number}": (document.name, block)
    for document in DOCUMENTS
    if document.name not in RUN_AS_A_WHOLE and document not in PAGES
    for number, block in enumerate(blocks(document), 1)
}
ALL_COMMANDS = {command for _, block in BLOCKS.values() for command in block}


@pytest.mark.usefixtures("own_tools")
@pytest.mark.parametrize(
    ("page", "block"),
    [
        pytest.param(
            *BLOCKS[name],
            id=name,
            marks=pytest.mark.slow if BLOCKS[name][0] in SCENES and name != EACH_TIME else (),
        )
        for name in BLOCKS
    ],
)
def test_the_commands_run(page: str, block: list[str], tmp_path: Path) -> None:
    commands = [command for command in block if command not in NOT_RUN.keys() | RUN_ELSEWHERE]
    place = SCENES.get(page, clone_of_the_template)(tmp_path) if commands else tmp_path
    for command in commands:
        # A person who is asked answers with the return key.
        run(
            *("sh", "-c", command),
            cwd=place,
            env={"PATH": f"{BIN}:/usr/bin:/bin"},
            text_in="\n" * 20,
        )
    if commands:
        [project] = {path.parent for path in tmp_path.glob("*/.copier-answers.yml")}
        assert "tracker" in RenderedProject(project).answers


def test_commands_that_are_not_run_are_few_and_still_there() -> None:
    assert NOT_RUN.keys() <= ALL_COMMANDS
    assert RUN_ELSEWHERE.keys() <= ALL_COMMANDS
    assert len(NOT_RUN) == 4


def test_the_targets_named_in_documents_exist() -> None:
    makefiles = [ROOT / "Makefile", ROOT / TEMPLATE_NAME / "Makefile"]
    text = "\n".join(makefile.read_text(encoding="utf-8") for makefile in makefiles)
    targets = set(re.findall(r"^([a-z-]+):", text, re.MULTILINE))
    for document in DOCUMENTS:
        named = set(re.findall(r"`make ([a-z-]+)", document.read_text(encoding="utf-8")))
        assert named <= targets, document


def test_every_target_is_in_the_help() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
    listing = run("make", "help", cwd=ROOT).stdout
    assert set(re.findall(r"^  make ([a-z-]+) +\S", listing, re.MULTILINE)) == targets


def test_the_pages_build_without_a_warning(tmp_path: Path) -> None:
    run(BIN / "sphinx-build", "-q", "-W", "--keep-going", ROOT / "docs", tmp_path, cwd=ROOT)


def test_links_lead_to_files() -> None:
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        for target, anchor in re.findall(r"\]\(([^)#\s]*)#?([^)\s]*)[^)]*\)", text):
            if "://" in target:
                continue
            place = document.parent / target if target else document
            assert place.exists(), f"{document.name}: {target}"
            assert not anchor or anchor in anchors(place), f"{document.name}: {target}#{anchor}"


def anchors(document: Path) -> set[str]:
    """The anchors that GitHub and Sphinx give to a page's headings."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in headings}


def test_the_files_of_the_page_on_where_things_are_exist() -> None:
    page = (ROOT / "docs" / "explanation" / "where-things-are.md").read_text(encoding="utf-8")
    project = ROOT / TEMPLATE_NAME
    rows = [line.split("|")[2:4] for line in page.splitlines() if "](../" in line]
    assert len(rows) == 13
    for cells in rows:
        for folder, cell in zip(("src/<<cookiecutter.package_name>>", "tests"), cells, strict=True):
            named = re.findall(r"`([^`]+)`", cell)
            assert named
            for path in named:
                place = project / path[1:] if path.startswith("/") else project / folder / path
                assert place.exists(), path


def test_the_options_table_holds_every_question_with_its_choices() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = {line.split("|")[1]: line for line in readme.splitlines() if line.startswith("| `")}
    questions = yaml.safe_load((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
    for name, value in questions.items():
        if not name.startswith("_"):
            [row] = [row for names, row in rows.items() if f"`{name}`" in names]
            for part in value if isinstance(value, list) else []:
                assert part in row
            if isinstance(value, str) and "<<" not in value:
                assert value in row


def test_the_readme_repeats_rows_of_the_table_of_alternatives() -> None:
    table = (ROOT / "docs" / "explanation" / "alternatives.md").read_text(encoding="utf-8")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    section = readme.split("## Beside the alternatives", 1)[1].split("\n## ", 1)[0]
    rows = [line for line in section.splitlines() if line.startswith("|")]
    assert len(rows) > 5
    assert set(rows) <= set(table.splitlines())


@pytest.mark.skipif(sys.version_info < (3, 11), reason="Python 3.10 has no TOML parser")
def test_the_version_stands_in_one_place_and_has_its_entry() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    releases = re.findall(r"^## \[([^\]]+)\](?: - \d{4}-\d\d-\d\d)?$", changelog, re.MULTILINE)
    assert releases[:2] == ["Unreleased", version]
    others = git(ROOT, "grep", "--files-with-matches", f'version = "{version}"', "--", "*.toml")
    assert set(others.splitlines()) <= {
        "pyproject.toml",
        "<<cookiecutter.project_slug>>/pyproject.toml",
    }

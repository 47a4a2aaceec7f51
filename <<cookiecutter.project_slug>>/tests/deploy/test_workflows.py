from __future__ import annotations

import re
from typing import Any

import pytest

from .files import BIN, PROJECT, load, run

WORKFLOWS = sorted((PROJECT / ".github" / "workflows").glob("*.yml"))


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request: pytest.FixtureRequest) -> Any:
    return load(request.param)


def test_the_linters_object_to_nothing() -> None:
    run(BIN / "actionlint", "-shellcheck=", "-pyflakes=", *WORKFLOWS)
    run(BIN / "zizmor", "--offline", "--quiet", PROJECT / ".github")


def test_the_linter_is_awake() -> None:
    bad = "on: push\njobs:\n  a:\n    runs-on: ubuntu-24.04\n    steps:\n"
    bad += "      - run: echo ${{ github.event.head_commit.message }}\n"
    result = run(BIN / "actionlint", "-", check=False, text_in=bad)
    assert "potentially untrusted" in result.stdout


def test_nothing_is_permitted_unless_a_job_names_it(workflow: Any) -> None:
    assert workflow["permissions"] == {}
    for job in workflow["jobs"].values():
        assert "write-all" not in str(job["permissions"])
        assert job["timeout-minutes"] <= 60


def test_actions_are_pinned_by_commit(workflow: Any) -> None:
    used = [
        step["uses"] for job in workflow["jobs"].values() for step in job["steps"] if "uses" in step
    ]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action), action


def test_production_moves_behind_an_approval_only() -> None:
    jobs = load(PROJECT / ".github" / "workflows" / "promote.yml")["jobs"]
    [mover] = [job for job in jobs.values() if "registry promote" in str(job["steps"])]
    assert mover["environment"] == "production"
    assert mover["needs"] == "validate"


def test_images_are_published_with_sbom_and_provenance() -> None:
    steps = load(PROJECT / ".github" / "workflows" / "release.yml")["jobs"]["images"]["steps"]
    pushes = [step["with"] for step in steps if step.get("with", {}).get("push")]
    assert [push["target"] for push in pushes] == ["server", "jobs"]
    for push in pushes:
        assert push["sbom"] is True
        assert push["provenance"] == "mode=max"

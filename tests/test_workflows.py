"""Every command of every workflow that a rendered project ships is run, from the rendered tree.

What stands in ``${{ }}`` becomes what a repository would have there; GitHub's own program is stood
in for by one that notes what it was asked.
"""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml

from conftest import Demo
from lint_template import TEMPLATE_NAME
from processes import run
from projects import ROOT, SLUG, RenderedProject, require_program
from test_project_pages import after_the_demo

pytestmark = pytest.mark.slow
RENDERED = ROOT / TEMPLATE_NAME / ".github" / "workflows"
OWN = ROOT / ".github" / "workflows"
PROGRAM = f".venv/bin/{SLUG}"
EXPRESSIONS = {
    "github.actor": "somebody",
    "github.token": "a-token",
    "inputs.reason": "a test; with $(echo signs)",
    "inputs.version": "staging",
    "needs.images.outputs.image": "ghcr.io/me/shop",
    "needs.images.outputs.jobs": "sha256:" + "b" * 64,
    "needs.images.outputs.server": "sha256:" + "a" * 64,
    "needs.validate.outputs.version": "3",
    "secrets.ML_PROMOTION_DATABASE": "",
    "steps.version.outputs.number": "3",
    "vars.ML_HOME": "demo",
    "vars.ML_KFP_HOST": "http://127.0.0.1:9",
    "vars.MLFLOW_TRACKING_URI": "",
}
# What a step tells the ones after it.
TOLD = {"promote": {"number=3"}, "release": {"name=ghcr.io/me/shop"}}
# Commands that another test runs.
RUN_ELSEWHERE = {
    "make lint": "test_rendered_suites.py",
    "make test": "test_rendered_suites.py",
}
# Commands that nothing here can run, with the reason; docs/deploying.md says the same.
NOT_RUN = {
    f"{PROGRAM} pipeline submit": "asks a Kubeflow cluster; tests/test_kubeflow.py of the project "
    "submits to a stand-in of its API",
}
# The template's own: what is not run by the test named.
OWN_COMMANDS = {
    "make test": "this very run",
    "make test-all": "by hand and nightly: the same with the long tests",
    "make rendered": "test_release.py",
    "make refresh": "takes what is newest on that day; test_constraints.py tests its parts",
    'make "$TARGET"': "test-all and refresh, as above",
    "make check-project": "test_the_matrix_checks_a_project",
    "gh auth setup-git": "asks GitHub",
    "git push origin rendered": "asks GitHub; test_release.py pushes to a repository of its own",
    "gh issue": "asks GitHub",
}


def steps(workflow: Path) -> Iterator[tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Each step that runs a command, with its job, in order."""
    text = workflow.read_text(encoding="utf-8").replace("<< cookiecutter.project_slug >>", SLUG)
    for job in yaml.safe_load(text)["jobs"].values():
        for step in job["steps"]:
            if "run" in step:
                yield job, step


def filled(text: str) -> str:
    return re.sub(r"\$\{\{ (.+?) \}\}", lambda found: EXPRESSIONS[found[1]], text)


@pytest.fixture(scope="module")
def project(
    demo: Callable[[str], Demo], tmp_path_factory: pytest.TempPathFactory
) -> RenderedProject:
    """A project after its demo, in a repository of its own, to write into."""
    made = demo("mlflow").project
    copy = after_the_demo(made, tmp_path_factory.mktemp("workflows") / SLUG)
    (copy.path / ".venv").symlink_to(made.path / ".venv")
    copy.run("git", "add", "--all")
    return copy


@pytest.fixture
def github(tmp_path: Path) -> Path:
    """A folder with a `gh` that writes its arguments to gh.txt."""
    program = tmp_path / "gh"
    program.write_text(
        f'#!/bin/sh\nprintf "%s\\n" "$@" >>{shlex.quote(str(tmp_path))}/gh.txt\n', encoding="utf-8"
    )
    program.chmod(0o755)
    return tmp_path


class NothingKnown(BaseHTTPRequestHandler):
    """A database of vulnerabilities (the OSV interface) that knows one, of a package of 2019."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        known = b'{"vulns": [{"id": "OSV-1", "affected": []}]}' if b'"urllib4"' in body else b"{}"
        self.send_response(200)
        self.end_headers()
        self.wfile.write(known)

    def log_message(self, *arguments: object) -> None:
        pass


@contextmanager
def vulnerabilities() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), NothingKnown)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/query"
    finally:
        server.shutdown()


@pytest.mark.xdist_group("mlflow")
@pytest.mark.parametrize("workflow", sorted(RENDERED.glob("*.yml")), ids=lambda path: path.stem)
def test_the_commands_of_a_projects_workflow_run(
    workflow: Path, project: RenderedProject, github: Path
) -> None:
    require_program("kubectl")
    found = list(steps(workflow))
    assert found
    if workflow.stem == "promote":  # the demo ends with its newest version in production
        words = ("registry", "rollback", "--reason", "a test")
        project.run(PROGRAM, *words, ML_HOME="demo")
    for job, step in found:
        command = step["run"].strip()
        if command in RUN_ELSEWHERE or command in NOT_RUN:
            continue
        variables = {**job.get("env", {}), **step.get("env", {})}
        environment = {name: filled(value) for name, value in variables.items()}
        environment.setdefault("ML_HOME", "demo")
        with vulnerabilities() as address:
            # As GitHub runs a step that names no shell.
            result = run(
                *("bash", "-e", "-c", filled(command)),
                cwd=project.path,
                env={
                    **environment,
                    "PATH": f"{github}:{project.environment['PATH']}",
                    "PYTHONPATH": project.environment["PYTHONPATH"],
                    "GITHUB_OUTPUT": str(github / "output"),
                    "GITHUB_REPOSITORY": "Me/Shop",
                    "AUDIT_OPTIONS": f"--vulnerability-service osv --osv-url {address}",
                },
                check=False,
            )
        assert result.returncode == 0, f"{command}\n{result.stdout}"
    outputs = github / "output"
    told = set(outputs.read_text(encoding="utf-8").splitlines()) if outputs.exists() else set()
    assert TOLD.get(workflow.stem, set()) <= told


@pytest.mark.xdist_group("mlflow")
def test_an_issue_is_opened_for_drift(project: RenderedProject, github: Path) -> None:
    [step] = [s for _, s in steps(RENDERED / "drift.yml") if "gh issue" in s["run"]]
    assert step["if"] == "steps.drift.outputs.code == '3'"
    (project.path / "drift.txt").write_text("drifted\n", encoding="utf-8")
    run("bash", "-e", "-c", step["run"], cwd=project.path, env={"PATH": f"{github}:/usr/bin:/bin"})
    asked = (github / "gh.txt").read_text(encoding="utf-8").splitlines()
    assert asked[:3] == ["issue", "create", "--title"]
    assert re.fullmatch(r"Drift on \d{4}-\d\d-\d\d", asked[3])


@pytest.mark.xdist_group("mlflow")
def test_a_known_vulnerability_fails_the_check(project: RenderedProject, tmp_path: Path) -> None:
    (tmp_path / "constraints.txt").write_text("urllib4==1.24\n", encoding="utf-8")
    options = ("--strict", "--no-deps", "--disable-pip", "--vulnerability-service", "osv")
    with vulnerabilities() as address:
        words = (*options, "--osv-url", address, "--requirement", tmp_path / "constraints.txt")
        result = project.run(".venv/bin/pip-audit", *words, check=False)
    assert result.returncode == 1
    assert "OSV-1" in result.stdout


def test_the_commands_that_are_not_run_are_few_and_listed() -> None:
    commands = {step["run"].strip() for path in RENDERED.glob("*.yml") for _, step in steps(path)}
    assert NOT_RUN.keys() | RUN_ELSEWHERE.keys() <= commands
    page = (ROOT / "docs" / "deploying.md").read_text(encoding="utf-8")
    for command in NOT_RUN:
        assert command.removeprefix(".venv/bin/") in page
    assert len(NOT_RUN) == 1


@pytest.mark.parametrize("workflow", sorted(OWN.glob("*.yml")), ids=lambda path: path.stem)
def test_the_commands_of_the_templates_workflows_are_accounted_for(workflow: Path) -> None:
    for _, step in steps(workflow):
        run("bash", "-n", "-c", re.sub(r"\$\{\{.*?\}\}", "x", step["run"]), cwd=ROOT)
        for line in step["run"].splitlines():
            if line.strip().startswith(("make ", "gh ", "git ")):
                assert line.strip().startswith(tuple(OWN_COMMANDS)), line


def test_the_matrix_checks_a_project(tmp_path: Path) -> None:
    answers = ("GENERATOR=copier", "TRACKER=wandb", "PYTHON_VERSION=3.12")
    run(
        *("make", "check-project", *answers, f"CHECK={tmp_path / 'check'}", "CHECKS=help"),
        *(f"BIN={Path(sys.executable).parent}", "--assume-old=.venv/.installed"),
        cwd=ROOT,
    )
    [project] = [RenderedProject(path.parent) for path in tmp_path.rglob(".copier-answers.yml")]
    assert project.answers["tracker"] == "wandb"
    assert project.answers["python_version"] == "3.12"

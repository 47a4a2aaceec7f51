"""What a rendered project ships to run elsewhere, judged by the linters of its trades."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from conftest import Render, once
from processes import run
from projects import BIN, ROOT, RenderedProject, require_program

OVERLAYS = ("dev", "staging", "production")
# What checkov objects to in the manifests, and why it may stay.
POLICY_EXCEPTIONS = {
    "CKV_K8S_35": "secrets are variables: settings, MLflow and boto3 read nothing else",
    "CKV_K8S_43": "no digest before a release: `make pin` writes it",
}
CUSTOM_RESOURCES = {
    "ExternalSecret": "@kubernetes-models/external-secrets/external-secrets.io/v1/ExternalSecret",
    "PrometheusRule": (
        "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/PrometheusRule"
    ),
    "ServiceMonitor": (
        "@kubernetes-models/prometheus-operator/monitoring.coreos.com/v1/ServiceMonitor"
    ),
}
MODELS = (
    "@kubernetes-models/external-secrets@2.0.0",
    "@kubernetes-models/prometheus-operator@6.0.0",
)
VALIDATE = """
import { readFileSync } from 'node:fs';
const types = JSON.parse(process.argv[2]);
for (const doc of JSON.parse(readFileSync(0, 'utf8'))) {
  const module = await import(types[doc.kind]);
  new module[doc.kind](doc).validate();
}
"""


@pytest.fixture(scope="session")
def linters(shared: Path) -> Path:
    """Programs that are too large for anybody's own environment."""

    def make(folder: Path) -> None:
        run(BIN / "uv", "venv", "--quiet", "--python", sys.executable, folder, cwd=ROOT)
        listed = ROOT / "tests" / "linters.txt"
        python = folder / "bin" / "python"
        run(
            *(BIN / "uv", "pip", "install", "--quiet", "--python", python, "--requirement", listed),
            cwd=ROOT,
        )

    return once(shared / "linters", make) / "bin"


@pytest.fixture(scope="session")
def models(shared: Path) -> Path:
    """The custom resources' types, with a script that reads them."""
    npm = require_program("npm")

    def make(folder: Path) -> None:
        folder.mkdir()
        (folder / "validate.mjs").write_text(VALIDATE, encoding="utf-8")
        run(npm, "install", "--silent", "--no-save", *MODELS, cwd=folder)

    return once(shared / "models", make)


@pytest.fixture(scope="session")
def manifests(shared: Path, rendered: Render) -> Path:
    """Each overlay as one file of objects."""
    kubectl = require_program("kubectl")

    def make(folder: Path) -> None:
        folder.mkdir()
        for overlay in OVERLAYS:
            source = rendered().path / "deploy" / "kubernetes" / "overlays" / overlay
            (folder / f"{overlay}.yaml").write_text(
                run(kubectl, "kustomize", source, cwd=folder).stdout, encoding="utf-8"
            )

    return once(shared / "manifests", make)


def test_the_images_files_are_sound(linters: Path, rendered: Render) -> None:
    project = rendered()
    project.run(linters / "hadolint", "Dockerfile")
    # The devcontainer's packages are of its base's day; nobody but its user runs it.
    project.run(
        *(linters / "hadolint", "--ignore", "DL3008", "--ignore", "DL3066"),
        ".devcontainer/Dockerfile",
    )


@pytest.mark.parametrize(
    ("schema", "files"),
    [
        ("github-workflows", ".github/workflows/*.yml"),
        ("dependabot", ".github/dependabot.yml"),
        ("compose-spec", "compose.yaml"),
    ],
)
def test_files_keep_to_their_schemas(
    schema: str, files: str, linters: Path, rendered: Render
) -> None:
    project = rendered()
    found = sorted(project.path.glob(files))
    assert found
    project.run(linters / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *found)


def test_the_policies_are_kept_but_for_the_listed(linters: Path, manifests: Path) -> None:
    result = run(
        *(linters / "checkov", "--skip-download", "--quiet", "--framework", "kubernetes"),
        *("--output", "json", "--directory", manifests),
        cwd=manifests,
        check=False,
    )
    report = json.loads(result.stdout)
    assert report["summary"]["passed"] > 500
    failed = {check["check_id"] for check in report["results"]["failed_checks"]}
    assert failed == POLICY_EXCEPTIONS.keys()
    assert len(POLICY_EXCEPTIONS) == 2


def test_the_policies_are_awake(linters: Path, manifests: Path, tmp_path: Path) -> None:
    text = (manifests / "production.yaml").read_text(encoding="utf-8")
    changed = text.replace("readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false")
    (tmp_path / "bad.yaml").write_text(changed, encoding="utf-8")
    result = run(
        *(linters / "checkov", "--skip-download", "--quiet", "--compact"),
        *("--framework", "kubernetes", "--file", tmp_path / "bad.yaml"),
        cwd=tmp_path,
        check=False,
    )
    assert "CKV_K8S_22" in result.stdout


def custom_resources(manifests: Path) -> list[dict[str, object]]:
    found = []
    for overlay in OVERLAYS:
        text = (manifests / f"{overlay}.yaml").read_text(encoding="utf-8")
        found += [item for item in yaml.safe_load_all(text) if item["kind"] in CUSTOM_RESOURCES]
    assert len(found) == len(OVERLAYS) * len(CUSTOM_RESOURCES)
    return found


def validate(models: Path, objects: object) -> subprocess.CompletedProcess[str]:
    return run(
        *("node", models / "validate.mjs", json.dumps(CUSTOM_RESOURCES)),
        cwd=models,
        text_in=json.dumps(objects),
        check=False,
    )


def test_custom_resources_are_of_their_types(models: Path, manifests: Path) -> None:
    result = validate(models, custom_resources(manifests))
    assert result.returncode == 0, result.stdout


def test_a_custom_resource_of_a_wrong_type_is_found(models: Path, manifests: Path) -> None:
    [broken] = [
        item
        for item in custom_resources(manifests)[: len(CUSTOM_RESOURCES)]
        if item["kind"] == "ServiceMonitor"
    ]
    assert validate(models, [{**broken, "spec": {"endpoints": "http"}}]).returncode != 0


@pytest.mark.slow
@pytest.mark.xdist_group("mlflow")
def test_pre_commit_passes_as_rendered(
    rendered_with_environment: Callable[[str], RenderedProject], tmp_path: Path
) -> None:
    """What `make lint` and `make audit` check, on every file and without their caches."""
    project = rendered_with_environment("mlflow")
    copy = project.copy(tmp_path / "project")
    (copy.path / ".venv").symlink_to(project.path / ".venv")
    copy.run("git", "init", "--quiet")
    copy.run("git", "add", "--all")
    copy.run(".venv/bin/pre-commit", "run", "--all-files", PRE_COMMIT_HOME=str(tmp_path / "home"))
    secret = "AKIA" + "IOSFODNN7" + "EXAMPLQ"
    (copy.path / "note.txt").write_text(f"key = {secret}\n", encoding="utf-8")
    copy.run("git", "add", "note.txt")
    result = copy.run(".venv/bin/pre-commit", "run", "--all-files", "secrets", check=False)
    assert result.returncode != 0
    assert "note.txt" in result.stdout


@pytest.mark.parametrize("program", ["actionlint", "zizmor"])
def test_the_templates_own_workflows_are_sound(program: str, linters: Path) -> None:
    options = {"actionlint": [], "zizmor": ["--offline", "--quiet", ".github"]}
    run(linters / program, *options[program], cwd=ROOT)


def test_rendered_paths_are_legal_on_windows(rendered: Render) -> None:
    for name in rendered().files():
        assert not set(name) & set('<>:"|?*\\'), name
        assert all(part == part.rstrip(". ") for part in name.split("/")), name

"""A rendered project's images and services in real containers, by its own long tests."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from processes import run
from projects import ROOT, RenderedProject, missing

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("mlflow")]

SCRIPT = ROOT / "tests" / "container-engine.sh"
NAMES = ("image", "pipeline_containers", "stack", "compose")
BASE = "local/python:3.11-slim"


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, str]]:
    """The variables with which commands reach an engine that holds a base image."""
    if os.geteuid() != 0 or not Path("/etc/apt/sources.list.d/debian.sources").exists():
        missing("an engine is started as root on Debian only")
    folder = tmp_path_factory.mktemp("engine")
    run(SCRIPT, "start", folder, cwd=folder)
    try:
        run(SCRIPT, "base", folder, BASE, cwd=folder)
        yield {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "DOCKER_HOST": f"unix://{folder / 'docker.sock'}",
            "DOCKER_CONFIG": str(folder / "cli"),
            "TEST_BASE_IMAGE": BASE,
            "TEST_CONTAINER_NETWORK": "host",
        }
    finally:
        run(SCRIPT, "stop", folder, cwd=folder)
        shutil.rmtree(folder, ignore_errors=True)


def test_images_and_services_work_in_containers(
    engine: Mapping[str, str], rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    project = rendered_with_environment("mlflow")
    files = [f"tests/deploy/test_{name}.py" for name in NAMES]
    pytest_slow = ("-m", "pytest", "-q", "-m", "")
    result = run(project.python, *pytest_slow, *files, cwd=project.path, env=engine)
    assert "skipped" not in result.stdout, result.stdout


def test_the_devcontainer_is_built(
    engine: Mapping[str, str], rendered_with_environment: Callable[[str], RenderedProject]
) -> None:
    project = rendered_with_environment("mlflow")
    arguments = ("--build-arg", f"BASE={BASE}", "--build-arg", "PACKAGES=", "--network", "host")
    build = ("docker", "build", *arguments, "--tag", "local/dev", ".devcontainer")
    run(*build, cwd=project.path, env=engine)
    words = ("docker", "run", "--rm", "--network", "none", "local/dev", "id")
    user = run(*words, cwd=project.path, env=engine)
    assert "uid=1000(dev)" in user.stdout

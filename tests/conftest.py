"""What the tests share: each set of answers is rendered once, each environment made once."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Protocol

import pytest
from filelock import FileLock

from processes import run
from projects import SLUG, RenderedProject, render, snapshot

GIT_CONFIG = """
[user]
    name = A Tester
    email = tester@example.com
[init]
    defaultBranch = main
[advice]
    detachedHead = false
"""


class Render(Protocol):
    """Renders a project, or gives the one that was rendered before from the same answers."""

    def __call__(self, generator: str = "cookiecutter", **answers: str) -> RenderedProject: ...


@dataclass(frozen=True)
class Demo:
    """A project that the template's own `make demo` made, with its environment.

    Attributes:
        project: the project; its `.venv` is ready.
        result: what the command wrote, and its exit code.
    """

    project: RenderedProject
    result: subprocess.CompletedProcess[str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start with the tests that wait for an environment, a group of them for each tracker."""
    items.sort(key=lambda item: item.get_closest_marker("xdist_group") is None)


@pytest.fixture(scope="session", autouse=True)
def _of_no_person(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep the settings of whoever runs the tests out of them."""
    folder = tmp_path_factory.mktemp("settings")
    (folder / "gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    (folder / "cookiecutter.yml").write_text(
        f"cookiecutters_dir: {folder / 'clones'}\nreplay_dir: {folder / 'replay'}\n",
        encoding="utf-8",
    )
    (folder / "copier.yml").write_text("defaults: {}\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            if not name.startswith("GIT_SSL"):
                patch.delenv(name)
        patch.setenv("GIT_CONFIG_GLOBAL", str(folder / "gitconfig"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("COOKIECUTTER_CONFIG", str(folder / "cookiecutter.yml"))
        patch.setenv("COPIER_SETTINGS_PATH", str(folder / "copier.yml"))
        patch.setenv("COPIER_CACHE_DIR", str(folder / "copier-cache"))
        # The hooks run as __main__: what they deprecate is an error.
        patch.setenv("PYTHONWARNINGS", "error::DeprecationWarning:__main__")
        patch.setenv("UV_COMPILE_BYTECODE", os.environ.get("UV_COMPILE_BYTECODE", "1"))
        yield


@pytest.fixture
def own_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings and caches of git and both generators for one test; gives git's settings file."""
    folder = tmp_path / "tools"
    folder.mkdir()
    (folder / "gitconfig").write_text(GIT_CONFIG, encoding="utf-8")
    (folder / "cookiecutter.yml").write_text(
        f"cookiecutters_dir: {folder / 'clones'}\nreplay_dir: {folder / 'replay'}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(folder / "gitconfig"))
    monkeypatch.setenv("COOKIECUTTER_CONFIG", str(folder / "cookiecutter.yml"))
    monkeypatch.setenv("COPIER_CACHE_DIR", str(folder / "copier-cache"))
    return folder / "gitconfig"


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder that all worker processes of this run share."""
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        base = base.parent
    folder = base / "shared"
    folder.mkdir(exist_ok=True)
    return folder


def once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Make a folder's content in whichever process comes first; the others wait.

    Raises:
        AssertionError: making it failed, in this process or in an earlier one.
    """
    done, failed, lock = (
        folder.parent / f"{folder.name}.{end}" for end in ("done", "failed", "lock")
    )
    with FileLock(lock):
        if failed.exists():
            raise AssertionError(failed.read_text(encoding="utf-8"))
        if not done.exists():
            try:
                make(folder)
            except BaseException as error:
                failed.write_text(f"{folder.name} could not be made: {error}", encoding="utf-8")
                raise
            done.touch()
    return folder


@pytest.fixture(scope="session")
def template(shared: Path) -> Path:
    """A repository of the template as it stands."""
    return once(shared / "template", snapshot)


@pytest.fixture(scope="session")
def rendered(shared: Path, template: Path) -> Render:
    """Gives rendered projects; they are shared, so no test may write into one."""

    def give(generator: str = "cookiecutter", **answers: str) -> RenderedProject:
        identity = json.dumps([generator, answers], sort_keys=True)
        folder = shared / f"{generator}-{blake2b(identity.encode(), digest_size=6).hexdigest()}"
        once(folder, lambda place: render(generator, template, place, answers))
        return RenderedProject(folder / answers.get("project_slug", SLUG))

    return give


@pytest.fixture(scope="session")
def demo(shared: Path) -> Callable[[str], Demo]:
    """Gives what `make demo` of a fresh clone made with a tracker; it is run once.

    Mark a test that needs it with ``@pytest.mark.xdist_group(tracker)``, so that it runs in the
    process that made the environment and the trackers' tests run side by side.
    """

    def give(tracker: str) -> Demo:
        clone = shared / f"clone-{tracker}"
        log, code = shared / f"demo-{tracker}.log", shared / f"demo-{tracker}.code"

        def make(folder: Path) -> None:
            snapshot(folder)
            result = run("make", "demo", f"TRACKER={tracker}", cwd=folder, check=False)
            log.write_text(result.stdout, encoding="utf-8")
            code.write_text(str(result.returncode), encoding="utf-8")

        once(clone, make)
        project = RenderedProject(clone / "build" / "demo" / tracker / SLUG)
        output = log.read_text(encoding="utf-8")
        assert project.python.exists(), output
        result = subprocess.CompletedProcess("make demo", int(code.read_text()), output)
        return Demo(project, result)

    return give


@pytest.fixture(scope="session")
def rendered_with_environment(demo: Callable[[str], Demo]) -> Callable[[str], RenderedProject]:
    """Gives the project of a tracker with its `.venv` ready; see ``demo`` for the mark it needs."""
    return lambda tracker: demo(tracker).project

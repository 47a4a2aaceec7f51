"""Both tools called in the test's own process, which takes a third of the time of a command.

Answers reach cookiecutter by a replay file, so that it takes every text as it is.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import copier
import pytest
from cookiecutter.exceptions import CookiecutterException
from cookiecutter.main import cookiecutter

import lint_template
from projects import ROOT, RenderedProject
from refresh_constraints import default_answers

DEFINITION = json.loads((ROOT / "cookiecutter.json").read_text(encoding="utf-8"))
DEFAULTS = default_answers(DEFINITION)
TREE = lint_template.TEMPLATE_NAME
# What refuses an answer: a hook, cookiecutter's own checks, or the file system.
REFUSALS = (CookiecutterException, OSError, ValueError)


class InProcess:
    """Renders from a copy of the template that is no repository, without a first commit."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template"
        self.projects = folder / "projects"
        for path in lint_template.repository_files(ROOT):
            name = path.relative_to(ROOT)
            if name.parts[0] in {TREE, "hooks", "cookiecutter.json", "copier.yml"}:
                (self.template / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, self.template / name)

    def keep_only(self, *names: str) -> None:
        """Reduce the template's tree to the files with these names, to render it faster."""
        for path in sorted((self.template / TREE).rglob("*"), reverse=True):
            if path.is_dir() and not any(path.iterdir()):
                path.rmdir()
            elif path.is_file() and path.relative_to(self.template / TREE).as_posix() not in names:
                path.unlink()

    def clear(self) -> None:
        """Remove what was rendered before."""
        shutil.rmtree(self.projects, ignore_errors=True)
        (self.projects / "cookiecutter").mkdir(parents=True)

    def cookiecutter(self, answers: Mapping[str, str]) -> RenderedProject | None:
        """The project, or nothing where the answers are refused."""
        private = {name: value for name, value in DEFINITION.items() if name.startswith("_")}
        replay = self.folder / "answers.json"
        context = {"cookiecutter": {**DEFAULTS, **answers, **private}}
        replay.write_text(json.dumps(context), encoding="utf-8")
        return self._cookiecutter(str(replay))

    def cookiecutter_asking(self) -> RenderedProject | None:
        """The project of what stands on standard input, or nothing where that is refused."""
        return self._cookiecutter(None)

    def _cookiecutter(self, replay: str | None) -> RenderedProject | None:
        output = self.projects / "cookiecutter"
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("TEMPLATE_FIRST_COMMIT", "no")
            try:
                project = cookiecutter(str(self.template), replay=replay, output_dir=str(output))
            except REFUSALS:
                return None
        return RenderedProject(Path(project))

    def copier(self, answers: Mapping[str, str]) -> RenderedProject | None:
        """The project, or nothing where the answers are refused."""
        project = self.projects / "copier"
        try:
            copier.run_copy(
                str(self.template), project, data=dict(answers), defaults=True, quiet=True
            )
        except ValueError:
            return None
        return RenderedProject(project)

    def left(self) -> list[str]:
        """What lies where projects are rendered."""
        return sorted(str(path.relative_to(self.projects)) for path in self.projects.rglob("*"))

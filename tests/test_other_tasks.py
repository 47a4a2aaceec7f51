"""Another problem is two files: three data sets, with data.py and model.py replaced."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

from processes import clean_environment, run
from projects import ROOT, RenderedProject

TASKS = Path(__file__).parent / "other_tasks"
MODELS = Path(__file__).parent / "other_models"
OTHER_MODELS = {"lightgbm": ["lightgbm", "onnxmltools"], "pytorch": []}
REPLACED = ("data.py", "model.py")
REPORTS = {
    "classification": {"calibration.png", "confusion_matrix.png", "roc.png"},
    "regression": {"predicted_against_actual.png"},
}
IMPORTANCE = {"feature_importance.csv", "feature_importance.png"}

ANSWERS = {
    "iris": {"setosa", "versicolor", "virginica"},
    "breast_cancer": {"benign", "malignant"},
    "diabetes": set(),
}
ONE_OPENER = build_opener(ProxyHandler({}))


@pytest.mark.parametrize(
    "task",
    [name if name == "iris" else pytest.param(name, marks=pytest.mark.slow) for name in ANSWERS],
)
@pytest.mark.xdist_group("mlflow")
def test_another_task_is_two_files(
    task: str, rendered_with_environment: Callable[[str], RenderedProject], tmp_path: Path
) -> None:
    project = rendered_with_environment("mlflow").copy(tmp_path / task)
    package = project.path / "src" / project.answers["package_name"]
    for name in REPLACED:
        shutil.copy(TASKS / task / name, package / name)

    program = ("python", "-m", package.name)
    quick = {"ML_SEARCH_BUDGET": "1", "ML_FOLDS": "1", "ML_BOOTSTRAP_RESAMPLES": "20"}
    project = RenderedProject(project.path, {**project.environment, **quick})
    for words in ("pipeline run", "registry promote"):
        project.run(*program, *words.split())
    project.run(*program, "registry", "sync")

    metadata = json.loads((project.path / "served/versions/1/metadata.json").read_text())
    signature = metadata["signature"]
    assert set(signature["classes"]) == ANSWERS[task]
    assert metadata["gain_over_baseline"]["low"] > 0
    (reports,) = project.path.glob("pipeline/artifacts/*/evaluate/model/reports")
    kind = "classification" if ANSWERS[task] else "regression"
    assert {path.name for path in reports.iterdir()} == REPORTS[kind] | IMPORTANCE

    with server(project, program) as address:
        document = ask(f"{address}/openapi.json")
        assert signature["features"][0]["name"] in json.dumps(document)
        row = {feature["name"]: example(feature["type"]) for feature in signature["features"]}
        answer = ask(f"{address}/predict", {"features": row})
        batch = ask(f"{address}/predict", {"instances": [list(row.values()), row]})
        row[signature["features"][0]["name"]] = None
        refused = ask(f"{address}/predict", {"features": row})
    assert refused["status"] == 422
    assert signature["features"][0]["name"] in json.dumps(refused["errors"])
    predictions = [item["prediction"] for item in batch["predictions"]]
    if ANSWERS[task]:
        assert predictions == [answer["prediction"]] * 2
        assert answer["prediction"] in ANSWERS[task]
        assert 1 / len(ANSWERS[task]) <= answer["confidence"] <= 1
    else:
        assert isinstance(answer["prediction"], float)
        # A batch adds float32 numbers in another order than a single row does.
        assert predictions == pytest.approx([answer["prediction"]] * 2, rel=1e-5)
        assert answer["confidence"] is None


@pytest.mark.slow
@pytest.mark.parametrize(("model", "needs"), OTHER_MODELS.items())
@pytest.mark.xdist_group("mlflow")
def test_another_librarys_model_exports_itself(
    model: str,
    needs: list[str],
    rendered_with_environment: Callable[[str], RenderedProject],
    tmp_path: Path,
) -> None:
    shared = rendered_with_environment("mlflow")
    project = shared.copy(tmp_path / model)
    package = project.path / "src" / project.answers["package_name"]
    shutil.copy(TASKS / "breast_cancer" / "data.py", package)
    shutil.copy(MODELS / f"{model}.py", package / "model.py")
    if model == "pytorch":
        # Its packages are gigabytes where no build for the processor alone lies at hand.
        found = importlib.util.find_spec("torch")
        if found is None or not found.origin:
            pytest.skip("torch is not installed in the environment of these tests")
        more = str(Path(found.origin).parents[1])
    else:
        more = str(tmp_path / "more")
        uv = shared.path / ".venv" / "bin" / "uv"
        run(uv, "pip", "install", "--quiet", "--no-deps", "--target", more, *needs, cwd=tmp_path)
    paths = f"{package.parent}{os.pathsep}{more}"
    for words in ("train", "registry register", "registry validate"):
        project.run("python", "-m", package.name, *words.split(), PYTHONPATH=paths)


@pytest.mark.parametrize("model", OTHER_MODELS)
def test_the_page_on_models_shows_the_files_that_are_tested(model: str) -> None:
    page = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    assert f"```python\n{(MODELS / f'{model}.py').read_text(encoding='utf-8')}```" in page


@pytest.mark.parametrize("name", REPLACED)
def test_the_page_shows_the_files_that_are_tested(name: str) -> None:
    page = (ROOT / "docs" / "your-own-problem.md").read_text(encoding="utf-8")
    shown = re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL)
    assert (TASKS / "iris" / name).read_text(encoding="utf-8") in shown


def example(kind: str) -> Any:
    return {"float": 5.5, "int": 40, "string": "wide"}[kind]


@contextmanager
def server(project: RenderedProject, program: tuple[Any, ...]) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [*map(str, program), "serve", "--port", str(port)],
        cwd=project.path,
        env={**clean_environment(), **project.environment},
    )
    address = f"http://127.0.0.1:{port}"
    try:
        give_up = time.monotonic() + 60
        while not answers(address):
            assert process.poll() is None
            assert time.monotonic() < give_up
            time.sleep(0.1)
        yield address
    finally:
        process.terminate()
        process.wait(30)


def answers(address: str) -> bool:
    try:
        return "model_version" in ask(f"{address}/ready")
    except OSError:
        return False


def ask(url: str, body: object = None) -> Any:
    """The JSON answer, an error's too."""
    content = None if body is None else json.dumps(body).encode()
    request = Request(url, content, {"Content-Type": "application/json"})  # noqa: S310 - loopback
    try:
        with ONE_OPENER.open(request, timeout=30) as response:
            return json.load(response)
    except HTTPError as error:
        return json.load(error)

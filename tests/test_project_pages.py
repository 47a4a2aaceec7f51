"""Pages about a rendered project: their commands run, from top to bottom, after `make demo`.

Such a page says `export ML_HOME=demo`. A command that starts a server stays up until the page's
end; a comment `# exit code N` behind a command is its expected end.
"""

from __future__ import annotations

import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path

import pytest

from conftest import Demo
from processes import clean_environment, run
from projects import ROOT, SLUG, RenderedProject

SCENE = "`export ML_HOME=demo`"
PAGES = [
    page
    for page in sorted((ROOT / "docs").rglob("*.md"))
    if SCENE in page.read_text(encoding="utf-8")
]
# Commands of these pages that no test of this file runs, with the reason or the test that does.
SCENERY = "makes the place that the commands after it stand in; the fixtures do the same"
CLUSTER = "needs a container engine with a registry, or a cluster"
NOT_RUN = {
    "cookiecutter ml-template --no-input": SCENERY,
    "cd purchase-prediction": SCENERY,
    "make demo": SCENERY,
    "source .venv/bin/activate": SCENERY,
    'HALF_A_YEAR="$PWD" .venv/bin/pytest -n 0 -m slow tests/monitoring/test_half_a_year.py': (
        "a quarter of an hour; the project's long tests run it"
    ),
}
# How commands begin that no test runs, with the reason.
NOT_RUN_FROM = dict.fromkeys(
    (
        "make images",
        "docker ",
        "kubectl ",
        "ML_KUBEFLOW_HOST=",
        "curl -s https://purchase-prediction.example.com/",
    ),
    CLUSTER,
)
# Of the pages, what each run of the tests reads; the others take minutes.
EACH_TIME = {"experiments.md"}
ENDS_WITH = re.compile(r"  # exit code (\d+)$")
START_SECONDS = 30


def commands(page: Path) -> list[str]:
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    joined = "".join(blocks).replace("\\\n", " ")
    return [line for line in joined.splitlines() if line and not line.startswith("#")]


ALL_COMMANDS = {command for page in PAGES for command in commands(page)}


@pytest.mark.xdist_group("mlflow")
@pytest.mark.parametrize(
    "page",
    [
        pytest.param(page, marks=() if page.name in EACH_TIME else pytest.mark.slow)
        for page in PAGES
    ],
    ids=lambda page: page.stem,
)
def test_the_commands_run_in_their_order(
    page: Path, demo: Callable[[str], Demo], tmp_path: Path
) -> None:
    project = after_the_demo(demo("mlflow").project, tmp_path / SLUG)
    port = free_port()
    environment = {**project.environment, "ML_HOME": "demo", "ML_PORT": str(port)}
    with ExitStack() as servers:
        for command in commands(page):
            if command in NOT_RUN or command.startswith(tuple(NOT_RUN_FROM)):
                continue
            if exported := re.fullmatch(r"export (\w+)=(\S+)", command):
                environment[exported[1]] = exported[2]
                continue
            if re.search(r" serve\b", command):
                servers.enter_context(server(command, port, project.path, environment))
                continue
            expected = int(found[1]) if (found := ENDS_WITH.search(command)) else 0
            words = ("bash", "-c", command.replace(":8000", f":{port}"))
            result = run(*words, cwd=project.path, env=environment, check=False)
            assert result.returncode == expected, f"{command}\n{result.stdout}"


def test_commands_that_are_not_run_are_still_there() -> None:
    assert NOT_RUN.keys() <= ALL_COMMANDS
    left_out = [command for command in ALL_COMMANDS if command.startswith(tuple(NOT_RUN_FROM))]
    assert len(left_out) == 11, left_out


def after_the_demo(project: RenderedProject, folder: Path) -> RenderedProject:
    """A copy of a project with what its demo left, to write into."""
    copy = project.copy(folder)
    shutil.copytree(project.path / "demo", folder / "demo")
    relocate(folder / "demo" / "mlflow.db", str(project.path), str(folder))
    run("git", "init", "--quiet", cwd=folder)
    return copy


def relocate(database: Path, old: str, new: str) -> None:
    """Let the paths that MLflow's store keeps lead into a copy."""
    with sqlite3.connect(database) as db:
        columns = db.execute(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table' AND (c.name LIKE '%location' OR c.name LIKE '%uri' "
            "OR c.name = 'source')"
        ).fetchall()
        for table, column in columns:
            db.execute(
                f"UPDATE {table} SET {column} = replace({column}, ?, ?)",  # noqa: S608
                (old, new),
            )
    db.close()


@contextmanager
def server(command: str, port: int, folder: Path, environment: Mapping[str, str]) -> Iterator[None]:
    process = subprocess.Popen(
        ["bash", "-c", f"exec {command}"], cwd=folder, env={**clean_environment(), **environment}
    )
    try:
        give_up = time.monotonic() + START_SECONDS
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail(f"{command} did not get ready")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        assert process.wait(START_SECONDS) in {0, -signal.SIGTERM}


def is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

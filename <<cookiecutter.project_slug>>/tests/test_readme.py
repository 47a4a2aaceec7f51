"""Every command of the README runs, in its order, in a home folder of its own."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import date
from http.client import HTTPConnection
from pathlib import Path

import pytest

import <<cookiecutter.package_name>> as package
from <<cookiecutter.package_name>>.database import connect, literal
from <<cookiecutter.package_name>>.purchases import log_path, simulate
from <<cookiecutter.package_name>>.settings import Settings

from .services import free_port, require_program

PROJECT = Path(__file__).parents[1]
PROGRAM = next(
    line.partition(" = ")[0]
    for line in (PROJECT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    if line.endswith('.cli:main"')
)


def commands() -> list[str]:
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```bash\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


def test_every_make_target_exists() -> None:
    makefile = (PROJECT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z]+):", makefile, flags=re.MULTILINE))
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    named = set(re.findall(r"\bmake ([a-z]+)\b", text))
    assert {"demo", "test"} <= named <= targets


def test_all_that_runs_write_is_named_where_it_is_to_be_removed() -> None:
    ignored = (PROJECT / ".gitignore").read_text(encoding="utf-8").partition("\n\n")[0]
    folders = set(re.findall(r"^/(\w+/)$", ignored, flags=re.MULTILINE)) - {"demo/"}
    assert "prediction_log/" in folders
    text = (PROJECT / "README.md").read_text(encoding="utf-8")
    [paragraph] = [part for part in text.split("\n\n") if "Before the first run" in part]
    assert set(re.findall(r"`(\w+/)`", paragraph)) == folders


@pytest.mark.slow
def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    require_program("curl")
    export_purchases(tmp_path)
    port = free_port()
    environment = {
        **os.environ,
        "PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}",
        "ML_PORT": str(port),
        "ML_HOME": str(tmp_path),
        "ML_BOOTSTRAP_RESAMPLES": "20",
        "ML_SEARCH_BUDGET": "1",
        "ML_FOLDS": "1",
    }
    console_script(tmp_path / "bin" / PROGRAM)
    ran = []
    with ExitStack() as servers:
        for command in commands():
            if command.startswith("make "):
                continue
            if command.startswith("export "):
                name, _, value = command.removeprefix("export ").partition("=")
                environment[name] = value
            elif command == f"{PROGRAM} serve":
                servers.enter_context(server(command, port, tmp_path, environment))
            else:
                answer = run(command.replace(":8000", f":{port}"), tmp_path, environment)
                assert answer.returncode == 0, f"{command}\n{answer.stdout}{answer.stderr}"
                if "/predict" in command:
                    assert '"prediction"' in answer.stdout
            ran.append(command)
    assert len(ran) > 10


def export_purchases(folder: Path) -> None:
    """A retailer's export, as the README's import expects it: other customers' purchases."""
    settings = Settings(_env_file=None, home=folder / "retailer")
    simulate(settings, 300, seed=8, until=date(2026, 1, 1), replace=False)
    with connect(settings) as db:
        db.execute(
            "COPY (SELECT customer_id AS customer, purchased_at AS date, amount FROM "
            f"{literal(log_path(settings))}) TO {literal(folder / 'purchases.csv')} (HEADER)"
        )


def console_script(path: Path) -> None:
    path.parent.mkdir()
    path.write_text(
        f"#!{sys.executable}\nfrom {package.__name__}.cli import main\n\nmain()\n",
        encoding="utf-8",
    )
    path.chmod(0o755)


def run(
    command: str, folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    shell = shutil.which("bash") or "sh"
    return subprocess.run(
        [shell, "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
        timeout=300, check=False,
    )  # fmt: skip


@contextmanager
def server(command: str, port: int, folder: Path, environment: dict[str, str]) -> Iterator[None]:
    process = subprocess.Popen(command.split(), cwd=folder, env=environment)
    try:
        give_up = time.monotonic() + 30
        while not is_ready(port):
            if process.poll() is not None or time.monotonic() > give_up:
                pytest.fail("the server did not get ready")
            time.sleep(0.1)
        yield
    finally:
        process.terminate()
        assert process.wait(20) in {0, -signal.SIGTERM}


def is_ready(port: int) -> bool:
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/ready")
        return connection.getresponse().status == 200
    except ConnectionError:
        return False
    finally:
        connection.close()

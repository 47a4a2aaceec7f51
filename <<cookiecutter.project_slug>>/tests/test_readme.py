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
from http.client import HTTPConnection
from pathlib import Path

import pytest

import <<cookiecutter.package_name>> as package

from .services import free_port, require_program

PROJECT = Path(__file__).parents[1]
PROGRAM = next(
    line.partition(" = ")[0]
    for line in (PROJECT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
    if line.endswith('.cli:main"')
)
LOG = "customer,date,amount\n" + "".join(
    f"{customer},{2024 + month // 12}-{month % 12 + 1:02}-{customer % 27 + 1:02},{customer}.5\n"
    for customer in range(1, 60)
    for month in range(customer % 5, 20, customer % 4 + 1)
)
"""One retailer's export, as the README's import expects it."""


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


def test_the_commands_run_in_their_order(tmp_path: Path) -> None:
    require_program("curl")
    (tmp_path / "purchases.csv").write_text(LOG, encoding="utf-8")
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
            if command == f"{PROGRAM} serve":
                servers.enter_context(server(command, port, tmp_path, environment))
            else:
                answer = run(command.replace(":8000", f":{port}"), tmp_path, environment)
                assert answer.returncode == 0, f"{command}\n{answer.stdout}{answer.stderr}"
                if "/predict" in command:
                    assert '"prediction"' in answer.stdout
            ran.append(command)
    assert len(ran) > 10


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

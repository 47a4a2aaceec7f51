"""Make docs/pictures/ from a run: `make demo` is run in a rendered project and photographed.

The terminal becomes an SVG; MLflow's pages, the drift report and the model card are opened in
headless Chromium, which has to be on the machine.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.text import Text

from copier_questions import ROOT

FOLDER = ROOT / "docs" / "pictures"
COLUMNS = 100
# Cursor movements; colours stay.
MOVEMENTS = re.compile(r"\x1b\[[0-9;?]*[A-Za-ln-z]")
REMOTE_FONTS = re.compile(r"@font-face \{.*?\}\n", re.DOTALL)
START_SECONDS = 90


def main() -> int:
    """Run the demo and make the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("project", type=Path, help="a rendered MLflow project with its .venv")
    parser.add_argument("--log", type=Path, help="what an earlier `make demo` printed in it")
    arguments = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("chromium is not installed: apt-get install chromium", file=sys.stderr)
        return 1
    project = arguments.project.resolve()
    output = arguments.log.read_text(encoding="utf-8") if arguments.log else run_demo(project)
    FOLDER.mkdir(exist_ok=True)
    terminal(output, project)
    home = project / "demo"
    [report] = home.glob("drift/*/evidently.html")
    photograph(chromium, report.as_uri(), FOLDER / "drift-report.png", 1280, 1000)
    with tempfile.TemporaryDirectory() as card:
        command = [str(project / ".venv" / "bin" / "purchase-prediction"), "registry", "card", "1"]
        environment = {**os.environ, "ML_HOME": str(home)}
        subprocess.run([*command, "--output", card], cwd=project, env=environment, check=True)
        photograph(
            chromium, (Path(card) / "card.html").as_uri(), FOLDER / "model-card.png", 900, 1200
        )
    with mlflow_server(project, home) as address:
        pages = {"mlflow-models": "models/purchase-prediction", "mlflow-runs": "experiments/1/runs"}
        for name, page in pages.items():
            photograph(chromium, f"{address}/#/{page}", FOLDER / f"{name}.png", 1800, 720)
    shutil.copy(home / "experiments" / "smaller-trees.png", FOLDER / "experiment.png")
    for path in sorted(FOLDER.iterdir()):
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB")
    return 0


def run_demo(project: Path) -> str:
    """What `make demo` prints, in colour and without moving bars."""
    colours = {"FORCE_COLOR": "1", "TTY_INTERACTIVE": "0", "COLUMNS": str(COLUMNS)}
    done = subprocess.run(
        ["make", "--no-print-directory", "demo"],
        cwd=project,
        env={**os.environ, **colours},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"make demo failed:\n{done.stdout}")
    return done.stdout


def terminal(output: str, project: Path) -> None:
    """Draw what a command printed, whole and its summary; finished bars leave empty lines."""
    output = MOVEMENTS.sub("", output).replace(str(project), "~/purchase-prediction")
    lines = [line for line in output.splitlines()[1:] if Text.from_ansi(line).plain.strip()]
    tables = [number for number, line in enumerate(lines) if line.startswith("┏")]
    title = "\x1b[1m$ make demo\x1b[0m"
    for name, shown in {"demo": lines, "demo-summary": ["…", *lines[tables[-1] :]]}.items():
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            console = Console(record=True, width=COLUMNS, file=nowhere)
            console.print(Text.from_ansi("\n".join([title, *shown])))
            svg = REMOTE_FONTS.sub("", console.export_svg(title="make demo"))
            (FOLDER / f"{name}.svg").write_text(svg, encoding="utf-8")


@contextmanager
def mlflow_server(project: Path, home: Path) -> Iterator[str]:
    """MLflow's own pages of the demo's store, on a free port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    programs = project / ".venv" / "bin"
    words = [str(programs / "mlflow"), "server", "--port", str(port), "--workers", "1"]
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(
            [*words, "--backend-store-uri", f"sqlite:///{home / 'mlflow.db'}"],
            cwd=home,
            stdout=log,
            stderr=log,
            env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"},
        )
        try:
            wait_for(f"http://127.0.0.1:{port}/health")
            yield f"http://127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def wait_for(address: str) -> None:
    """Ask until there is an answer."""
    end = time.monotonic() + START_SECONDS
    while not answers(address):
        if time.monotonic() > end:
            sys.exit(f"{address} does not answer")
        time.sleep(0.5)


def answers(address: str) -> bool:
    """Whether a server is there."""
    try:
        with urllib.request.urlopen(address, timeout=5):  # noqa: S310
            return True
    except (urllib.error.URLError, OSError):
        return False


def photograph(chromium: str, address: str, target: Path, width: int, height: int) -> None:
    """A page as headless Chromium shows it."""
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                chromium,
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"),
                *("--hide-scrollbars", "--disable-extensions", "--disable-background-networking"),
                *("--virtual-time-budget=15000", f"--user-data-dir={profile}"),
                *(f"--window-size={width},{height}", f"--screenshot={target}", address),
            ],
            check=True,
            capture_output=True,
            timeout=120,
        )


if __name__ == "__main__":
    sys.exit(main())

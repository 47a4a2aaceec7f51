"""The project's own files, and commands run on them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

PROJECT = Path(__file__).parents[2]
DEPLOY = PROJECT / "deploy"
BIN = Path(sys.executable).parent


def load(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


SLUG: str = load(PROJECT / "compose.yaml")["name"]


def run(
    *command: str | Path, check: bool = True, cwd: Path = PROJECT, text_in: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run a command, with more variables; one that fails shows what it wrote.

    Raises:
        AssertionError: it failed and ``check`` is set.
    """
    words = [str(word) for word in command]
    result = subprocess.run(
        words, cwd=cwd, env={**os.environ, **more}, text=True, input=text_in, check=False,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    if check and result.returncode:
        raise AssertionError(f"{' '.join(words)}: exit code {result.returncode}\n{result.stdout}")
    return result

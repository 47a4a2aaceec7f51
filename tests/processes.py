"""Commands as a person would run them: without the variables of the test run itself."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

INHERITED_FROM_THE_RUN = ("MAKE", "MFLAGS", "PYTEST_", "VIRTUAL_ENV", "TEMPLATE_")


def run(
    *command: str | Path,
    cwd: Path,
    check: bool = True,
    text_in: str = "",
    timeout: float = 1800,
    env: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it writes, both streams together.

    Raises:
        AssertionError: the command failed and ``check`` is set; with what it wrote.
    """
    words = [str(word) for word in command]
    result = subprocess.run(
        words,
        cwd=cwd,
        env={**clean_environment(), **(env or {})},
        input=text_in,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        timeout=timeout,
        check=False,
    )
    if check and result.returncode != 0:
        raise AssertionError(f"{' '.join(words)}: exit code {result.returncode}\n{result.stdout}")
    return result


def clean_environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(INHERITED_FROM_THE_RUN)
    }


def git(folder: Path, *arguments: str | Path) -> str:
    return run("git", *arguments, cwd=folder).stdout.strip()

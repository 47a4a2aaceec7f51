"""Programs of the operating system that some tests need."""

from __future__ import annotations

import os
import shutil

import pytest


def require_program(name: str) -> str:
    """The program's path; without it the test skips, or fails where REQUIRE_SERVICES is set."""
    path = shutil.which(name)
    if path is not None:
        return path
    message = f"{name} is not installed"
    if os.environ.get("REQUIRE_SERVICES"):
        pytest.fail(message)
    pytest.skip(message)

"""The reference pages say what the code says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import reference
from projects import RenderedProject


@pytest.mark.xdist_group("mlflow")
def test_the_pages_are_what_make_reference_writes(
    rendered_with_environment: Callable[[str], RenderedProject],
) -> None:
    wanted = reference.pages(rendered_with_environment("mlflow").path)
    written = {path.name: path.read_text(encoding="utf-8") for path in reference.FOLDER.iterdir()}
    assert written == wanted, "run make demo, then make reference"

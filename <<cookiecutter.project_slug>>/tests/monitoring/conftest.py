"""Reference rows with a number, a whole number and two texts, and a model fitted on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import duckdb
import pandas as pd
import pytest

from <<cookiecutter.package_name>>.database import connect
from <<cookiecutter.package_name>>.monitoring.drift import Reference
from <<cookiecutter.package_name>>.profiling import answers, profile
from <<cookiecutter.package_name>>.settings import Settings

from ..trained import sample_rows, write_trained_model

REFERENCE_ROWS = 4_000


class Drifting:
    """A reference and current rows of the same kind, with the model's answers."""

    def __init__(self, folder: Path, case: str) -> None:
        trained = write_trained_model(folder, case)
        self.bundle = trained.bundle
        self.signature = trained.bundle.signature
        self.rows = self.draw(REFERENCE_ROWS, seed=1)
        scores = self.bundle.scorer().scores(self.signature.blocks(self.rows))
        self.reference = Reference("1", self.bundle, profile(self.signature, self.rows, scores))

    def draw(self, rows: int, seed: int) -> pd.DataFrame:
        """Rows without drift, with answers and outcomes."""
        frame = sample_rows(self.signature, rows, seed)
        scores = self.bundle.scorer().scores(self.signature.blocks(frame))
        frame = frame.rename(columns={self.signature.label: "outcome"})
        return pd.concat([frame, answers(self.signature, scores)], axis=1)


@pytest.fixture(scope="session")
def drifting(tmp_path_factory: pytest.TempPathFactory) -> Drifting:
    return Drifting(tmp_path_factory.mktemp("multiclass") / "model", "multiclass")


@pytest.fixture
def db(settings: Settings) -> Iterator[duckdb.DuckDBPyConnection]:
    with connect(settings) as connection:
        yield connection

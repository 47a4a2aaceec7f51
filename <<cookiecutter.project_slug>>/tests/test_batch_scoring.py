from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from <<cookiecutter.package_name>> import batch_scoring
from <<cookiecutter.package_name>>.batch_scoring import ScoringError, score_file
from <<cookiecutter.package_name>>.registry import Registry
from <<cookiecutter.package_name>>.settings import Settings

from .bundles import Models, publish
from .trained import SIGNATURES, sample_rows

SLOWLY = """
import sys, time
from pathlib import Path
from <<cookiecutter.package_name>> import batch_scoring, bundle
from <<cookiecutter.package_name>>.settings import Settings

scores = bundle.Scorer.scores

def slowly(self, blocks):
    time.sleep(0.02)
    return scores(self, blocks)

bundle.Scorer.scores = slowly
batch_scoring.BATCH_ROWS, batch_scoring.PART_BATCHES = 50, 2
home = Path(sys.argv[1])
batch_scoring.score_file(Settings(home=home), home / "in.parquet", home / "out.parquet", None)
"""


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Models:
    return Models(tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch_scoring, "BATCH_ROWS", 50)
    monkeypatch.setattr(batch_scoring, "PART_BATCHES", 2)


def write(settings: Settings, case: str, count: int = 1_234, **columns: Any) -> Path:
    rows = sample_rows(SIGNATURES[case], count).assign(key=[f"k{n}" for n in range(count)])
    path = settings.home / "in.parquet"
    table = pa.Table.from_pandas(rows.assign(**columns), preserve_index=False)
    pq.write_table(table, path, row_group_size=77)
    return path


@pytest.mark.parametrize("case", SIGNATURES)
def test_every_row_is_scored_in_its_order(settings: Settings, models: Models, case: str) -> None:
    model = models.get(case)
    publish(settings, "4", model)
    source, target = write(settings, case), settings.home / "out.parquet"
    done = score_file(settings, source, target, None)
    assert (done.rows, done.resumed, done.model) == (1_234, 0, "4")
    found = pd.read_parquet(target)
    signature = model.bundle.signature
    assert list(found) == [signature.label, "key", "prediction", "confidence"]
    rows = pd.read_parquet(source)
    assert found["key"].tolist() == rows["key"].tolist()
    scorer = model.bundle.scorer()
    expected = scorer.answers(scorer.scores(signature.blocks(rows)))
    assert found["prediction"].tolist() == pytest.approx([p for p, _ in expected])
    if signature.classes:
        assert found["confidence"].tolist() == pytest.approx([c for _, c in expected])
    else:
        assert found["confidence"].isna().all()
    assert {path.name for path in settings.home.glob("*.parquet*")} == {source.name, target.name}
    assert not list(settings.home.glob(".out*"))


def test_large_whole_numbers_are_scored_as_the_server_does(
    settings: Settings, models: Models
) -> None:
    publish(settings, "4", models.get("binary"))
    source = write(settings, "binary", visits=2**60 + 1)
    assert score_file(settings, source, settings.home / "out.parquet", None).rows == 1_234


def test_kept_categories_may_differ_from_row_group_to_row_group(
    settings: Settings, models: Models
) -> None:
    publish(settings, "4", models.get("binary"))
    rows = sample_rows(SIGNATURES["binary"], 80)
    parts = [rows[:40].assign(city="köln"), rows[40:].assign(city="oslo")]
    tables = [
        pa.Table.from_pandas(part.astype({"city": "category"}), preserve_index=False)
        for part in parts
    ]
    source, target = settings.home / "in.parquet", settings.home / "out.parquet"
    with pq.ParquetWriter(source, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    score_file(settings, source, target, None)
    assert pd.read_parquet(target)["city"].tolist() == ["köln"] * 40 + ["oslo"] * 40


def test_a_run_that_was_killed_goes_on(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    source, target = write(settings, "binary", 5_000), settings.home / "out.parquet"
    score_file(settings, source, settings.home / "whole.parquet", None)
    process = subprocess.Popen([sys.executable, "-c", SLOWLY, str(settings.home)])
    parts = settings.home / ".out.parquet.parts"
    while len(list(parts.glob("*.arrow"))) < 3:
        assert process.poll() is None
        time.sleep(0.01)
    with pytest.raises(ScoringError, match="another run writes"):
        score_file(settings, source, target, None)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not target.exists()
    done = score_file(settings, source, target, None)
    assert done.resumed >= 300
    assert pq.read_table(target) == pq.read_table(settings.home / "whole.parquet")
    assert not parts.exists()


def test_parts_of_another_input_are_not_used(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    amounts = sample_rows(SIGNATURES["binary"], 1_234)["amount"].to_numpy().copy()
    amounts[-1] = np.nan
    source, target = write(settings, "binary", amount=amounts), settings.home / "out.parquet"
    with pytest.raises(ScoringError, match="'amount' has"):
        score_file(settings, source, target, None)
    assert not target.exists()
    assert score_file(settings, write(settings, "binary"), target, None).resumed == 0


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"amount": "a lot"}, "'amount' holds (large_)?string, the model reads numbers"),
        ({"amount": None}, "'amount' holds null"),
        ({"amount": [1.0, None] * 617}, "'amount' has .* empty values among 50 rows"),
        ({"amount": 1e39}, "'amount' has the value 1e\\+39, which is no number that fits"),
        ({"visits": 1.5}, "'visits' has the value 1.5, which is not whole"),
        ({"prediction": 1}, "a column 'prediction' of its own"),
    ],
)
def test_what_the_model_cannot_read_is_named(
    settings: Settings, models: Models, columns: dict[str, Any], message: str
) -> None:
    publish(settings, "1", models.get("binary"))
    source, target = write(settings, "binary", **columns), settings.home / "out.parquet"
    with pytest.raises(ScoringError, match=message):
        score_file(settings, source, target, None)
    assert not target.exists()


def test_an_input_that_is_none_is_named(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    source, target = settings.home / "in.parquet", settings.home / "out.parquet"
    pq.write_table(pa.table({"visits": [1]}), source)
    with pytest.raises(ScoringError, match=r"no column 'amount', .* it has 'visits'"):
        score_file(settings, source, target, None)
    source.write_text("amount,visits", encoding="utf-8")
    with pytest.raises(ScoringError, match="cannot be read as Parquet"):
        score_file(settings, source, target, None)
    with pytest.raises(ScoringError, match="cannot be written"):
        score_file(settings, write(settings, "binary"), settings.home, None)


def test_no_rows_give_a_file_without_rows(settings: Settings, models: Models) -> None:
    publish(settings, "1", models.get("binary"))
    source, target = write(settings, "binary"), settings.home / "new" / "out.parquet"
    pq.write_table(pq.read_table(source).slice(0, 0), source)
    assert score_file(settings, source, target, None).rows == 0
    assert pq.read_schema(target).names == ["buys", "key", "prediction", "confidence"]


def test_a_version_that_is_not_served_comes_from_the_registry(
    registry: Registry, good: Path
) -> None:
    settings = registry._settings
    number = registry.register(good).number
    features = registry.bundle(number).signature.features
    source, target = settings.home / "in.parquet", settings.home / "out.parquet"
    pq.write_table(pa.table({feature.name: [1.0, 2.0] for feature in features}), source)
    assert score_file(settings, source, target, "staging").model == number

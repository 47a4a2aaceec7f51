from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>>.monitoring.counting import count
from <<cookiecutter.package_name>>.monitoring.drift import (
    DriftError,
    DriftReport,
    compare,
    compare_parts,
    judge,
)
from <<cookiecutter.package_name>>.settings import Settings

from .conftest import Drifting

Change = Callable[[pd.DataFrame], Any]


def judged(settings: Settings, drifting: Drifting, rows: pd.DataFrame) -> DriftReport:
    counts = count(duckdb.from_df(rows), drifting.reference.profile)
    return judge(settings, drifting.reference, counts, "a test")


def test_rows_like_the_reference_are_steady(settings: Settings, drifting: Drifting) -> None:
    report = judged(settings, drifting, drifting.draw(2_000, seed=2))
    assert (report.status, report.reasons, report.drifted) == ("steady", (), [])
    assert {column.name for column in report.columns} == {
        "amount", "visits", "city", "tier", "prediction", "confidence"
    }  # fmt: skip


@pytest.mark.parametrize(
    ("column", "change"),
    [
        ("amount", lambda rows: rows["amount"] + 0.5 * rows["amount"].std()),
        ("visits", lambda rows: rows["visits"] * 2),
        ("city", lambda rows: rows["city"].where(rows.index % 5 > 0, "oslo")),
    ],
)
def test_a_shifted_column_is_found(
    settings: Settings, drifting: Drifting, column: str, change: Change
) -> None:
    rows = drifting.draw(2_000, seed=2)
    report = judged(settings, drifting, rows.assign(**{column: change(rows)}))
    assert report.drifted == [column]
    assert report.status == "steady"  # one of six columns is fewer than a quarter
    one = settings.model_copy(update={"drift_share": 0.1})
    assert judged(one, drifting, rows.assign(**{column: change(rows)})).status == "drifted"


def test_a_drifted_prediction_suffices(settings: Settings, drifting: Drifting) -> None:
    rows = drifting.draw(2_000, seed=2)
    rows.loc[rows.index % 3 == 0, "prediction"] = "high"
    report = judged(settings, drifting, rows)
    assert (report.status, report.reasons) == ("drifted", ("the predictions have drifted",))


@pytest.mark.parametrize(
    ("change", "note"),
    [
        (lambda rows: rows.drop(columns="amount"), "amount: the column is missing"),
        (lambda rows: rows.assign(amount="12"), "amount: VARCHAR instead of a number"),
        (lambda rows: rows.assign(city=7), "city: BIGINT instead of text"),
        (lambda rows: rows.assign(amount=np.nan), "amount: every value is missing"),
        (lambda rows: rows.assign(amount=12.0), "amount: every value is '12.0'"),
        (lambda rows: rows.assign(city="x" * 99), f"city: every value is '{'x' * 40}'"),
        (
            lambda rows: rows.assign(visits=rows["visits"].where(rows.index % 10 > 0)),
            "visits: 10.0% of the values are missing, 0.0% in the reference",
        ),
    ],
)
def test_a_broken_column_is_said_and_the_others_are_judged(
    settings: Settings, drifting: Drifting, change: Change, note: str
) -> None:
    report = judged(settings, drifting, change(drifting.draw(2_000, seed=2)))
    assert (report.status, report.reasons) == ("broken", (note,))
    assert sum(column.status == "steady" for column in report.columns) == 5


def test_too_few_rows_are_not_judged(settings: Settings, drifting: Drifting) -> None:
    report = judged(settings, drifting, drifting.draw(299, seed=2))
    assert (report.status, report.columns) == ("too few rows", ())
    assert report.reasons == ("299 rows, 300 are needed",)
    assert judged(settings, drifting, drifting.draw(300, seed=2)).columns


def test_rows_without_answers_are_judged_by_their_features(
    settings: Settings, drifting: Drifting
) -> None:
    rows = drifting.draw(2_000, seed=2).drop(columns=["prediction", "confidence"])
    report = judged(settings, drifting, rows)
    assert report.status == "steady"
    assert len(report.columns) == 4


@pytest.mark.parametrize("case", ["binary", "regression", "whole numbers"])
def test_every_task_has_its_answers_judged(settings: Settings, tmp_path: Path, case: str) -> None:
    other = Drifting(tmp_path / "model", case)
    rows = other.draw(1_500, seed=3)
    assert judged(settings, other, rows).status == "steady"
    shifted = rows.sort_values("prediction").tail(700)
    report = judged(settings, other, shifted)
    assert report.status == "drifted"
    assert "prediction" in report.drifted


def test_parts_give_the_same_report(settings: Settings, drifting: Drifting) -> None:
    rows = drifting.draw(2_000, seed=2)
    halves = [
        count(duckdb.from_df(half), drifting.reference.profile) for half in (rows[:50], rows[50:])
    ]
    together = compare_parts(settings, drifting.reference, halves)
    assert together.columns == judged(settings, drifting, rows).columns


def test_a_folder_and_a_file_are_read_alike(
    settings: Settings, drifting: Drifting, tmp_path: Path
) -> None:
    rows = drifting.draw(2_000, seed=2)
    folder = tmp_path / "current"
    folder.mkdir()
    rows.to_parquet(tmp_path / "all.parquet")
    rows[:900].to_parquet(folder / "1.parquet")
    rows[900:].to_parquet(folder / "2.parquet")
    one, sample = compare(settings, drifting.reference, str(tmp_path / "all.parquet"))
    two, _ = compare(settings, drifting.reference, str(folder))
    assert one.columns == two.columns
    assert one.performance is not None
    assert sample is not None
    assert (len(sample), one.sample_rows) == (2_000, 2_000)


@pytest.mark.parametrize("name", ["nothing.parquet", "text.parquet"])
def test_what_is_no_parquet_is_named(
    settings: Settings, drifting: Drifting, tmp_path: Path, name: str
) -> None:
    (tmp_path / "text.parquet").write_text("no", encoding="utf-8")
    with pytest.raises(DriftError, match=f"{name} cannot be read as Parquet"):
        compare(settings, drifting.reference, str(tmp_path / name))


def test_rows_without_an_outcome_take_no_place_among_those_evaluated(
    settings: Settings, drifting: Drifting, tmp_path: Path
) -> None:
    rows = drifting.draw(4_000, seed=2)
    rows["outcome"] = rows["outcome"].where(rows.index % 10 == 0)
    rows.to_parquet(tmp_path / "current.parquet")
    few = settings.model_copy(update={"evaluation_rows": 350})
    report, _ = compare(few, drifting.reference, str(tmp_path / "current.parquet"))
    assert report.performance is not None
    assert report.performance.rows == 350


def test_the_performance_falls_where_outcomes_say_so(
    settings: Settings, drifting: Drifting, tmp_path: Path
) -> None:
    rows = drifting.draw(2_000, seed=2)
    path = tmp_path / "current.parquet"
    rows.to_parquet(path)
    good, _ = compare(settings, drifting.reference, str(path))
    assert good.performance is not None
    assert not good.performance.fallen
    hits = (rows["outcome"] == rows["prediction"]).mean()
    assert good.performance.current.estimate == pytest.approx(hits)
    rows["outcome"] = np.random.default_rng(0).permutation(rows["outcome"])
    rows.to_parquet(path)
    bad, _ = compare(settings, drifting.reference, str(path))
    assert bad.status == "drifted"
    assert bad.reasons[0].startswith("the model has become worse: accuracy 0.3")

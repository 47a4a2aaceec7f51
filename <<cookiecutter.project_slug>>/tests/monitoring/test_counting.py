from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pandas as pd
import pytest

from <<cookiecutter.package_name>>.bundle import NumberProfile, Profile, StringProfile
from <<cookiecutter.package_name>>.monitoring.counting import (
    CountingError,
    Counts,
    count,
    merge,
    profile_rows,
    read_counts,
)

from .conftest import Drifting

PROFILE = Profile(
    rows=6,
    numbers={"amount": NumberProfile(edges=(1.0, 2.5), counts=(2, 2, 2), least=0.0, most=4.0)},
    strings={"city": StringProfile(counts={"köln": 3, "": 2, "it's": 1})},
)


def counted(db: duckdb.DuckDBPyConnection, frame: pd.DataFrame, profile: Profile) -> Counts:
    return count(db.from_df(frame), profile)


def test_every_value_has_its_cell(db: duckdb.DuckDBPyConnection) -> None:
    amounts = [1.0, 1.5, 2.5, 9.0, -1.0, None, np.nan, np.inf]
    cities = ["köln", "", "it's", "oslo", None, "köln", "oslo", "oslo"]
    found = counted(db, pd.DataFrame({"amount": amounts, "city": cities}), PROFILE)
    amount, city = found.columns["amount"], found.columns["city"]
    assert (amount.cells, amount.missing, amount.outside) == ((2, 2, 1), 3, 2)
    assert (amount.least, amount.most) == (-1.0, 9.0)
    assert (city.cells, city.missing, city.outside) == ((2, 1, 1, 3), 1, 3)
    assert found.rows == 8


def test_values_on_an_edge_fall_where_the_profile_had_them(db: duckdb.DuckDBPyConnection) -> None:
    random = np.random.default_rng(0)
    values = np.unique(np.round(random.random(400), 2).astype(np.float32).astype(np.float64))
    edges = tuple(values.tolist())
    ones = (1,) * len(edges)
    number = NumberProfile(edges=edges, counts=(*ones, 0), least=edges[0], most=edges[-1])
    profile = Profile(rows=len(edges), numbers={"x": number}, strings={})
    found = counted(db, pd.DataFrame({"x": values}), profile).columns["x"]
    assert (found.cells, found.outside) == ((*ones, 0), 0)


def test_no_rows_are_counted_too(db: duckdb.DuckDBPyConnection) -> None:
    found = count(db.sql("SELECT 1.0 AS amount, 'a' AS city WHERE false"), PROFILE)
    assert found.rows == 0
    assert found.columns["amount"].cells == (0, 0, 0)
    assert found.columns["city"].least is None


@pytest.mark.parametrize(
    ("query", "fault"),
    [
        ("SELECT 1.0 AS amount", ("city", "the column is missing")),
        ("SELECT 'one' AS amount, 'a' AS city", ("amount", "VARCHAR instead of a number")),
        ("SELECT INTERVAL 1 DAY AS amount, 'a' AS city", ("amount", "INTERVAL instead of")),
        ("SELECT 1 AS amount, 7 AS city", ("city", "INTEGER instead of text")),
        ("SELECT [1] AS amount, 'a' AS city", ("amount", "INTEGER[] instead of a number")),
    ],
)
def test_what_cannot_be_counted_is_named(
    db: duckdb.DuckDBPyConnection, query: str, fault: tuple[str, str]
) -> None:
    faults = count(db.sql(query), PROFILE).faults
    assert list(faults) == [fault[0]]
    assert fault[1] in faults[fault[0]]


def test_other_types_that_say_the_same_are_counted(db: duckdb.DuckDBPyConnection) -> None:
    query = "SELECT {} AS amount, {} AS city"
    for amount in ("1::TINYINT", "1::DECIMAL(9, 2)", "true", "1::UBIGINT", "1::FLOAT"):
        found = count(db.sql(query.format(amount, "'köln'::ENUM('köln')")), PROFILE)
        assert not found.faults
        assert found.columns["amount"].cells == (1, 0, 0)
        assert found.columns["city"].cells == (1, 0, 0, 0)


@pytest.mark.parametrize("kind", ["INTEGER", "VARCHAR", "INTERVAL", "INTEGER[]", '"NULL"'])
def test_a_column_without_a_value_may_be_of_any_type(
    kind: str, db: duckdb.DuckDBPyConnection
) -> None:
    empty = "NULL" if kind == '"NULL"' else f"NULL::{kind}"
    found = count(db.sql(f"SELECT {empty} AS amount, {empty} AS city FROM range(2)"), PROFILE)
    assert not found.faults
    assert [column.missing for column in found.columns.values()] == [2, 2]


def test_the_reference_itself_gives_the_profile(
    db: duckdb.DuckDBPyConnection, drifting: Drifting
) -> None:
    profile = drifting.reference.profile
    found = counted(db, drifting.rows, profile)
    assert set(found.columns) == {*drifting.signature.names, "prediction", "confidence"}
    for name, expected in {**profile.numbers, **profile.strings}.items():
        cells = expected.counts
        known = cells if isinstance(cells, tuple) else (*cells.values(), expected.other)
        assert found.columns[name].cells == known
        assert found.columns[name].missing == found.columns[name].outside == 0
    assert profile_rows(db.from_df(drifting.rows), drifting.signature, seed=0) == profile


def test_parts_add_up_exactly(
    db: duckdb.DuckDBPyConnection, drifting: Drifting, tmp_path: Path
) -> None:
    rows, profile = drifting.draw(3_000, seed=5), drifting.reference.profile
    rows.loc[rows.index % 7 == 0, "amount"] = np.nan
    parts = []
    for number, part in enumerate((rows[:17], rows[17:2_000], rows[2_000:])):
        path = tmp_path / f"{number}.json"
        counted(db, part, profile).write(path)
        parts.append(read_counts(path))
    assert merge(parts) == counted(db, rows, profile)
    assert {path.name for path in tmp_path.iterdir()} >= {"0.json", "1.json", "2.json"}


def test_parts_of_different_profiles_are_refused(db: duckdb.DuckDBPyConnection) -> None:
    other = PROFILE.model_copy(update={"rows": 7})
    frame = pd.DataFrame({"amount": [1.0], "city": ["köln"]})
    with pytest.raises(CountingError, match="against different profiles"):
        merge([counted(db, frame, PROFILE), counted(db, frame, other)])


def test_a_file_that_is_no_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part.json").write_text('{"rows": 3}', encoding="utf-8")
    for name in ("part.json", "nothing.json"):
        with pytest.raises(CountingError, match=f"{name} is no part that"):
            read_counts(tmp_path / name)
